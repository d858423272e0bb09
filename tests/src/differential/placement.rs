//! The address of a memory operand: displacement and registers that make it meet a linear address.

use super::address::is_open;
use super::operands::{Drawn, address_bytes};
use super::prepare::{Conflict, ESP, Known, Value, gpr_index};
use super::values::percent;
use fastrand::Rng;
use iced_x86::{Mnemonic, OpKind};

impl Drawn {
    /// Makes the memory operand's effective address meet the linear address `linear`: by its displacement where the
    /// registers are known, else by setting one.
    pub fn place(&mut self, linear: u64, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let base = known.base(instruction.memory_segment());
        if is_open(linear, base) {
            return Err(Conflict);
        }
        let bit_string = self.bit_string_offset(known, rng)?;
        let offset = linear.wrapping_sub(base).wrapping_sub(bit_string);
        if instruction.is_stack_instruction() && gpr_index(instruction.memory_base()) == Some(ESP) {
            return Err(Conflict);
        }
        if known.is_64() {
            return self.place_64(offset, known, rng);
        }
        let offset = offset as u32;
        if instruction.memory_displ_size() == 2
            || instruction.memory_base().size() == 2
            || instruction.memory_index().size() == 2
        {
            return self.place_16(offset, known, rng);
        }
        let index = match gpr_index(instruction.memory_index()) {
            Some(index) => (self.value_or_any(index, known, rng)? as u32)
                .wrapping_mul(instruction.memory_index_scale()),
            None => 0,
        };
        let base = gpr_index(instruction.memory_base());
        if instruction.memory_displ_size() == 4 {
            let base = match base {
                Some(base) => self.value_or_any(base, known, rng)? as u32,
                None => 0,
            };
            let displacement = offset.wrapping_sub(base).wrapping_sub(index);
            self.encoded.set_displacement(displacement.into());
            return Ok(());
        }
        let base = base.expect("an address without base has a 32-bit displacement");
        if gpr_index(instruction.memory_index()) == Some(base) {
            return Err(Conflict);
        }
        let rest = index.wrapping_add(instruction.memory_displacement32());
        self.needs
            .set(base, Value::Const(offset.wrapping_sub(rest).into()))
    }

    /// [`Self::place`] in 64-bit mode, with addresses of 64 or 32 bits.
    fn place_64(&mut self, offset: u64, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let bytes = address_bytes(&instruction);
        let mask = u64::MAX >> (64 - 8 * bytes);
        if offset & !mask != 0 {
            return Err(Conflict);
        }
        if instruction.is_ip_rel_memory_operand() {
            self.relative = Some(offset);
            return Ok(());
        }
        let size = self.encoded.offsets.displacement_size();
        let base = gpr_index(instruction.memory_base());
        let index = gpr_index(instruction.memory_index());
        let scale = u64::from(instruction.memory_index_scale());
        let (Some(base), indexed) = (match (base, index) {
            (None, Some(index)) => return self.place_index(index, scale, offset, known, rng),
            (None, None) => (None, 0),
            (Some(base), Some(index)) if base == index => return Err(Conflict),
            (Some(base), Some(index)) => (
                Some(base),
                self.value_or_any(index, known, rng)?.wrapping_mul(scale),
            ),
            (Some(base), None) => (Some(base), 0),
        }) else {
            return self.set_absolute(offset, size);
        };
        if size == 4
            && let Some(value) = self.needs.value(base, known)
        {
            let displacement = offset.wrapping_sub(value).wrapping_sub(indexed) & mask;
            if fits(displacement, mask) {
                self.encoded.set_displacement(displacement);
                return Ok(());
            }
        }
        let rest = indexed.wrapping_add(instruction.memory_displacement64());
        let value = known.with_noise(offset.wrapping_sub(rest) & mask, bytes, rng);
        self.needs.set(base, Value::Const(value))
    }

    /// Sets the displacement of a RIP-relative operand; `next` is the linear address behind the instruction.
    pub fn set_relative(&mut self, next: u64) -> Result<(), Conflict> {
        let Some(offset) = self.relative else {
            return Ok(());
        };
        let mask = u64::MAX >> (64 - 8 * address_bytes(&self.encoded.instruction));
        let displacement = offset.wrapping_sub(next) & mask;
        if !fits(displacement, mask) {
            return Err(Conflict);
        }
        self.encoded.set_displacement(displacement);
        Ok(())
    }

    /// Makes the absolute address of the operand `offset`.
    fn set_absolute(&mut self, offset: u64, size: usize) -> Result<(), Conflict> {
        if size == 4 && !fits(offset, u64::MAX) {
            return Err(Conflict);
        }
        self.encoded.set_displacement(offset);
        Ok(())
    }

    /// Chooses index and displacement of an address without base.
    fn place_index(
        &mut self,
        index: usize,
        scale: u64,
        offset: u64,
        known: &Known,
        rng: &mut Rng,
    ) -> Result<(), Conflict> {
        let bytes = address_bytes(&self.encoded.instruction);
        let near = rng.i32(-0x7fff_0000..0x7fff_0000);
        let mut value = offset.wrapping_add_signed(near.into()) / scale;
        if bytes == 4 {
            value &= u64::from(u32::MAX);
        }
        let displacement = offset.wrapping_sub(value.wrapping_mul(scale));
        if bytes == 8 && !fits(displacement, u64::MAX) {
            return Err(Conflict);
        }
        self.encoded.set_displacement(displacement);
        self.needs
            .set(index, Value::Const(known.with_noise(value, bytes, rng)))
    }

    fn place_16(&mut self, offset: u32, known: &Known, rng: &mut Rng) -> Result<(), Conflict> {
        let instruction = self.encoded.instruction;
        let index = match gpr_index(instruction.memory_index()) {
            Some(index) => self.value_or_any(index, known, rng)? as u32,
            None => 0,
        };
        let Ok(offset) = u16::try_from(offset) else {
            return Ok(());
        };
        match gpr_index(instruction.memory_base()) {
            Some(base) => {
                let rest = index.wrapping_add(instruction.memory_displacement32());
                let low = u32::from(offset).wrapping_sub(rest) & 0xffff;
                let value = known.with_noise(low.into(), 2, rng);
                self.needs.set(base, Value::Const(value))
            }
            None => {
                self.encoded
                    .set_displacement(u32::from(offset).wrapping_sub(index).into());
                Ok(())
            }
        }
    }

    fn value_or_any(
        &mut self,
        register: usize,
        known: &Known,
        rng: &mut Rng,
    ) -> Result<u64, Conflict> {
        if let Some(value) = self.needs.value(register, known) {
            return Ok(value);
        }
        let value = known.integer(rng);
        self.needs.set(register, Value::Const(value))?;
        Ok(value)
    }

    /// BT, BTS, BTR and BTC with a register offset address a bit string: the bytes that the offset adds to the address.
    fn bit_string_offset(&mut self, known: &Known, rng: &mut Rng) -> Result<u64, Conflict> {
        let instruction = self.encoded.instruction;
        let bit_test = matches!(
            instruction.mnemonic(),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        );
        if !bit_test || instruction.op1_kind() != OpKind::Register {
            return Ok(0);
        }
        let register =
            gpr_index(instruction.op1_register()).expect("bit offsets come in general registers");
        if self.needs.value(register, known).is_none() || percent(rng, 70) {
            let near = rng.i32(-300..300);
            let near = if known.is_64() {
                near as u64
            } else {
                u64::from(near as u32)
            };
            let value = if percent(rng, 90) {
                near
            } else {
                known.integer(rng)
            };
            self.needs.set(register, Value::Const(value))?;
        }
        let bits = self.needs.value(register, known).ok_or(Conflict)?;
        Ok(match instruction.op1_register().size() {
            2 => ((bits as u16 as i16 >> 4) * 2) as u64,
            4 => ((bits as i32 >> 5) * 4) as u64,
            _ => ((bits as i64 >> 6) * 8) as u64,
        })
    }
}

/// Whether a displacement of 32 bits gives `value` modulo `mask + 1`.
fn fits(value: u64, mask: u64) -> bool {
    mask <= u64::from(u32::MAX) || i32::try_from(value as i64).is_ok()
}
