//! Integer instructions that the host executes as they are, and LEA.

use super::memory::Probed;
use super::{Emitted, Emitter, Home, Result, home};
use crate::translate::asm::*;
use crate::translate::operands::{
    Counter, HostOperand, Loaded, high_byte_operand, is_high_byte, memory_operand, rewrite,
};
use iced_x86::{Code, Instruction, InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register};

/// Without the lists of all registers and all memory that an instruction uses: to know how it accesses its operands is enough.
const ACCESS_OPTIONS: u32 =
    InstructionInfoOptions::NO_REGISTER_USAGE | InstructionInfoOptions::NO_MEMORY_USAGE;
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
        let facts = self.info.info_options(raw, ACCESS_OPTIONS);
        let access = facts.op_access(index);
        !matches!(access, OpAccess::Read | OpAccess::CondRead)
    }

    /// Emits `raw` in its host form; nothing when there is none.
    pub(super) fn encode(
        &mut self,
        raw: &Instruction,
        counter: Counter,
        place: Option<HostOperand>,
    ) -> Result<Emitted> {
        let copied = self.copied();
        let loaded = self.load_operands(raw);
        let Some(host) = rewrite(raw, counter, &loaded, place) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.guest(&host)?;
        self.store_operands(raw, &loaded);
        let in_r9 = loaded.iter().find(|&&(_, name)| name == Register::R9);
        self.note_copy(in_r9.map_or(copied, |&(guest, _)| Some(guest)));
        Ok(Emitted::Inline)
    }

    /// Emits MOV of 32 or 64 bits between registers of which one has its place in the context. Returns whether `raw` is that.
    fn move_by_context(&mut self, raw: &Instruction) -> bool {
        let [to, from] = [raw.op0_register(), raw.op1_register()];
        let is_move = raw.mnemonic() == Mnemonic::Mov
            && raw.op1_kind() == OpKind::Register
            && (to.is_gpr32() || to.is_gpr64());
        let (Some(target), Some(source), true) = (home(to), home(from), is_move) else {
            return false;
        };
        let is_quad = to.is_gpr64();
        let copied = self.copied();
        let source = match source {
            Home::Context(_) if copied == Some(from.full_register()) => Home::Register(R9),
            source => source,
        };
        match (target, source) {
            (Home::Register(_), Home::Register(source)) if source != R9 => return false,
            (Home::Context(place), Home::Register(source)) if is_quad => {
                self.asm.store64(place, source);
                let stays = copied.filter(|&copied| copied != to.full_register());
                self.note_copy(stays);
                return true;
            }
            _ => {}
        }
        let register = target.or(R9);
        match (source, is_quad) {
            (Home::Register(source), true) => self.asm.mov64(register, source),
            (Home::Register(source), false) => self.asm.mov32(register, source),
            (Home::Context(place), true) => self.asm.load64(register, place),
            (Home::Context(place), false) => self.asm.load32(register, place),
        }
        match target {
            Home::Register(_) => self.note_copy(copied),
            Home::Context(place) => {
                self.asm.store64(place, R9);
                self.note_copy(Some(to.full_register()));
            }
        }
        true
    }

    /// The form of `raw`, an instruction of registers, that takes a register which it only reads from its place in the context, and
    /// that place.
    fn by_context(&mut self, raw: &Instruction) -> Option<(Instruction, HostOperand)> {
        (0..raw.op_count()).find_map(|index| {
            let register = raw.op_register(index);
            let Some(Home::Context(place)) = home(register) else {
                return None;
            };
            let whole = register.full_register();
            let uses =
                (0..raw.op_count()).filter(|&at| raw.op_register(at).full_register() == whole);
            if self.copied() == Some(whole) || uses.count() != 1 || self.writes(raw, index) {
                return None;
            }
            let mut by_memory = *raw;
            by_memory.set_code(code_with_memory(raw, index)?);
            by_memory.set_op_kind(index, OpKind::Memory);
            Some((by_memory, Probed::in_context(place).operand()))
        })
    }

    /// Emits the loading of the register operands of `raw` that have their places in the context, into R9 and, of two, R8, where
    /// the instruction needs their values.
    fn load_operands(&mut self, raw: &Instruction) -> Loaded {
        let copied = self.copied();
        let mut loaded = Loaded::new();
        if !self.mode.is_64() {
            // All registers of 32-bit code are the host's.
            return loaded;
        }
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
            let is_copied = copied == Some(whole);
            let is_free = loaded.iter().all(|&(_, name)| name != Register::R9);
            let (scratch, name) = match is_copied || is_free && !needs_copy(raw, copied) {
                true => (R9, Register::R9),
                false => (R8, Register::R8),
            };
            if !is_copied && !is_moved(raw, index) {
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
        let is_64 = self.mode.is_64();
        if is_64 && self.move_by_context(raw) {
            return Ok(Emitted::Inline);
        }
        let by_context = if is_64 { self.by_context(raw) } else { None };
        let emitted = match by_context {
            Some((by_memory, place)) => self.encode(&by_memory, Counter::R11, Some(place))?,
            None => self.encode(raw, Counter::R11, None)?,
        };
        match emitted {
            Emitted::Inline => Ok(Emitted::Inline),
            _ => self.with_counter(raw, None),
        }
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
                        self.effective_address(R9, raw, half);
                        self.asm.store64(place, R9);
                        self.note_copy(Some(raw.op0_register().full_register()));
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

/// Whether an operand of `raw` is the register of which R9 has a copy.
fn needs_copy(raw: &Instruction, copied: Option<Register>) -> bool {
    (0..raw.op_count()).any(|index| {
        raw.op_kind(index) == OpKind::Register
            && Some(raw.op_register(index).full_register()) == copied
    })
}

/// The form of an instruction of registers whose operand `index`, which it only reads, is in memory.
fn code_with_memory(raw: &Instruction, index: u32) -> Option<Code> {
    use Code::*;
    let code = raw.code();
    Some(match (code, index) {
        (Add_rm32_r32, 1) => Add_r32_rm32,
        (Add_rm64_r64, 1) => Add_r64_rm64,
        (Or_rm32_r32, 1) => Or_r32_rm32,
        (Or_rm64_r64, 1) => Or_r64_rm64,
        (Adc_rm32_r32, 1) => Adc_r32_rm32,
        (Adc_rm64_r64, 1) => Adc_r64_rm64,
        (Sbb_rm32_r32, 1) => Sbb_r32_rm32,
        (Sbb_rm64_r64, 1) => Sbb_r64_rm64,
        (And_rm32_r32, 1) => And_r32_rm32,
        (And_rm64_r64, 1) => And_r64_rm64,
        (Sub_rm32_r32, 1) => Sub_r32_rm32,
        (Sub_rm64_r64, 1) => Sub_r64_rm64,
        (Xor_rm32_r32, 1) => Xor_r32_rm32,
        (Xor_rm64_r64, 1) => Xor_r64_rm64,
        (Cmp_rm32_r32, 1) => Cmp_r32_rm32,
        (Cmp_rm64_r64, 1) => Cmp_r64_rm64,
        (
            Add_r32_rm32 | Add_r64_rm64 | Or_r32_rm32 | Or_r64_rm64 | And_r32_rm32 | And_r64_rm64
            | Sub_r32_rm32 | Sub_r64_rm64 | Xor_r32_rm32 | Xor_r64_rm64 | Cmp_r32_rm32
            | Cmp_r64_rm64 | Imul_r32_rm32 | Imul_r64_rm64 | Movzx_r32_rm8 | Movzx_r32_rm16
            | Movsx_r32_rm8 | Movsx_r32_rm16 | Movsx_r64_rm8 | Movsx_r64_rm16 | Movsxd_r64_rm32,
            1,
        )
        | (
            Cmp_rm32_r32 | Cmp_rm64_r64 | Cmp_rm32_imm8 | Cmp_rm32_imm32 | Cmp_rm64_imm8
            | Cmp_rm64_imm32 | Test_rm32_r32 | Test_rm64_r64 | Test_rm32_imm32 | Test_rm64_imm32,
            0,
        ) => code,
        _ => return None,
    })
}
