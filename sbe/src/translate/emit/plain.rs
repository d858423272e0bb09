//! Integer instructions that the host executes as they are, and LEA.

use super::{Emitted, Emitter, Home, Result, home};
use crate::translate::asm::*;
use crate::translate::operands::{
    Counter, HostOperand, Loaded, high_byte_operand, is_high_byte, memory_operand, rewrite,
};
use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind, Register};

/// The distance in bits of AH from AL.
const HIGH_BYTE: u8 = 8;

impl Emitter {
    /// Emits an instruction that the host executes as it is, with its operands renamed.
    pub(super) fn copy(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(index) = memory_operand(raw) else {
            return self.copy_registers(raw);
        };
        if high_byte_operand(raw).is_some() {
            return self.copy_high_byte(raw, index);
        }
        let writes = self.writes(raw, index);
        let Some(probed) = self.probe_operand(raw, writes) else {
            return Ok(Emitted::Emulate);
        };
        self.encode(raw, Counter::R11, Some(probed.operand()))
    }

    /// Whether operand `index` is written.
    pub(super) fn writes(&mut self, raw: &Instruction, index: u32) -> bool {
        let access = self.info.info(raw).op_access(index);
        !matches!(access, OpAccess::Read | OpAccess::CondRead)
    }

    /// Emits `raw` in its host form; nothing when there is none.
    pub(super) fn encode(
        &mut self,
        raw: &Instruction,
        counter: Counter,
        place: Option<HostOperand>,
    ) -> Result<Emitted> {
        let loaded = self.load_operands(raw);
        let Some(host) = rewrite(raw, counter, &loaded, place) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.guest(&host)?;
        self.store_operands(raw, &loaded);
        Ok(Emitted::Inline)
    }

    /// Emits the loading of the register operands of `raw` that have their places in the context, into R9 and, of two, R8, where
    /// the instruction needs their values.
    fn load_operands(&mut self, raw: &Instruction) -> Loaded {
        let mut loaded = Loaded::new();
        for index in 0..raw.op_count() {
            let register = raw.op_register(index);
            if raw.op_kind(index) != OpKind::Register {
                continue;
            }
            let Some(Home::Context(place)) = home(register) else {
                continue;
            };
            let whole = register.full_register();
            if loaded.iter().any(|&(guest, _)| guest == whole) {
                continue;
            }
            let (scratch, name) = match loaded.is_empty() {
                true => (R9, Register::R9),
                false => (R8, Register::R8),
            };
            if !is_moved(raw, index) {
                self.asm.load64(scratch, place);
            }
            loaded.push((whole, name));
        }
        loaded
    }

    /// Emits the storing of the register operands of `raw` that [`Self::load_operands`] has loaded and `raw` has written.
    fn store_operands(&mut self, raw: &Instruction, loaded: &Loaded) {
        for &(whole, name) in loaded {
            let written = (0..raw.op_count()).any(|index| {
                raw.op_kind(index) == OpKind::Register
                    && raw.op_register(index).full_register() == whole
                    && self.writes(raw, index)
            });
            if let (true, Some(Home::Context(place))) = (written, home(whole)) {
                let scratch = if name == Register::R9 { R9 } else { R8 };
                self.asm.store64(place, scratch);
            }
        }
    }

    /// Emits an instruction of registers only. For AH..BH beside ECX, or CH, guest ECX is moved to ECX.
    fn copy_registers(&mut self, raw: &Instruction) -> Result<Emitted> {
        if self.encode(raw, Counter::R11, None)? == Emitted::Inline {
            return Ok(Emitted::Inline);
        }
        self.with_counter(raw, None)
    }

    /// Emits `raw` with guest ECX in ECX.
    fn with_counter(&mut self, raw: &Instruction, place: Option<HostOperand>) -> Result<Emitted> {
        let loaded = self.load_operands(raw);
        let Some(host) = rewrite(raw, Counter::Ecx, &loaded, place) else {
            return Ok(Emitted::Emulate);
        };
        self.mov(RCX, R11);
        self.asm.guest(&host)?;
        self.mov(R11, RCX);
        self.store_operands(raw, &loaded);
        Ok(Emitted::Inline)
    }

    /// Emits an instruction of memory and AH..BH. A high byte that is only read is copied to R9B first; else the operand's address
    /// needs a register without REX prefix, and RCX is the only one.
    fn copy_high_byte(&mut self, raw: &Instruction, memory: u32) -> Result<Emitted> {
        let Some(high) = high_byte_operand(raw) else {
            return Ok(Emitted::Emulate);
        };
        let register = raw.op_register(high);
        if self.writes(raw, high) {
            let writes = self.writes(raw, memory);
            if register == Register::CH {
                return match writes {
                    true => Ok(Emitted::Emulate),
                    false => self.copy_to_ch(raw, memory, high),
                };
            }
            let Some(probed) = self.probe_operand(raw, writes) else {
                return Ok(Emitted::Emulate);
            };
            let probed = self.point(RCX, probed);
            return self.encode(raw, Counter::R11, Some(probed.operand()));
        }
        let writes = self.writes(raw, memory);
        let (Some(probed), Some(whole)) = (self.probe_operand(raw, writes), self.whole(register))
        else {
            return Ok(Emitted::Emulate);
        };
        debug_assert!(is_high_byte(register));
        self.asm.rorx32(R9, whole, HIGH_BYTE);
        let mut low = *raw;
        low.set_op_register(high, Register::R9L);
        self.encode_low(&low, Some(probed.operand()))
    }

    /// Emits an instruction that reads memory and writes CH, operand `high`: as the low byte of guest ECX, rotated there and back.
    fn copy_to_ch(&mut self, raw: &Instruction, memory: u32, high: u32) -> Result<Emitted> {
        let Some(probed) = self.probe_operand(raw, false) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.load8(R9, probed.mem());
        let mut low = *raw;
        low.set_op_kind(memory, OpKind::Register);
        low.set_op_register(memory, Register::R9L);
        low.set_op_register(high, Register::R11L);
        self.rotate_counter(HIGH_BYTE);
        let emitted = self.encode_low(&low, None)?;
        self.rotate_counter(self.word() as u8 * u8::BITS as u8 - HIGH_BYTE);
        Ok(emitted)
    }

    /// Emits an instruction in which a low byte of R9 or R11, of the host, stands for AH..BH.
    fn encode_low(&mut self, low: &Instruction, place: Option<HostOperand>) -> Result<Emitted> {
        let Some(host) = rewrite(low, Counter::R11, &Loaded::new(), place) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.guest(&host)?;
        Ok(Emitted::Inline)
    }

    /// Emits the rotation of guest RCX to the right.
    fn rotate_counter(&mut self, count: u8) {
        match self.mode.is_64() {
            true => self.asm.rorx64(R11, R11, count),
            false => self.asm.rorx32(R11, R11, count),
        }
    }

    /// Emits a shift or rotation by CL.
    pub(super) fn copy_with_cl(&mut self, raw: &Instruction) -> Result<Emitted> {
        if memory_operand(raw).is_none() {
            return self.with_counter(raw, None);
        }
        let Some(probed) = self.probe_operand(raw, true) else {
            return Ok(Emitted::Emulate);
        };
        let probed = self.point(R8, probed);
        self.with_counter(raw, Some(probed.operand()))
    }

    /// Emits LEA.
    pub(super) fn load_address(&mut self, raw: &Instruction) -> Emitted {
        match home(raw.op0_register()) {
            Some(home) if self.is_addressable(raw, false) => {
                let half = !self.is_word(raw.op0_register());
                match home {
                    Home::Register(target) => self.effective_address(target, raw, half),
                    Home::Context(place) => {
                        self.effective_address(R8, raw, half);
                        self.asm.store64(place, R8);
                    }
                }
                Emitted::Inline
            }
            _ => Emitted::Emulate,
        }
    }

    /// The host register that holds the register of which `register` is a part.
    pub(super) fn whole(&self, register: Register) -> Option<Reg> {
        match home(register.full_register())? {
            Home::Register(register) => Some(register),
            Home::Context(_) => None,
        }
    }
}

/// Whether `raw` does nothing to its register operand `index` but replace it as a whole.
fn is_moved(raw: &Instruction, index: u32) -> bool {
    let moves = matches!(
        raw.mnemonic(),
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd
    );
    moves
        && index == 0
        && raw.op_register(index).size() >= 4
        && !(raw.op1_kind() == OpKind::Register
            && raw.op1_register().full_register() == raw.op0_register().full_register())
}
