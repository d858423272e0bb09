//! Instructions on registers and memory that need more than renamed operands.

use super::misses::Cause;
use super::{Emitted, Emitter, Home, Result, home};
use crate::translate::asm::*;
use crate::translate::operands::memory_operand;
use iced_x86::{Code, Instruction, Mnemonic, Register};

/// log2 of the number of bits of a byte.
const BYTE_BITS_LOG: u32 = 3;
/// The position of a doubleword's sign.
const DOUBLEWORD_SIGN: u32 = 31;
/// The position of a quadword's sign.
const QUADWORD_SIGN: u32 = 63;
/// The count of a shift left that leaves only the exception masks of the x87 control word, bits 5:0.
const ABOVE_MASKS: u32 = 26;

impl Emitter {
    /// Emits BT, BTS, BTR or BTC of memory by a bit offset in a register, which counts from the operand's address in either
    /// direction (SDM Vol. 1, 3.1.1.9 "Bit(BitBase, BitOffset)").
    pub(super) fn bit_string(&mut self, raw: &Instruction) -> Result<Emitted> {
        let writes = raw.mnemonic() != Mnemonic::Bt;
        let Some(place) = home(raw.op1_register()).filter(|_| self.is_addressable(raw, writes))
        else {
            return Ok(Emitted::Emulate);
        };
        let address = self.address(raw);
        let size = self.word() as u32;
        let log = size.trailing_zeros();
        let offset = self.held_at(place, RCX);
        self.asm.mov_imm32(R9, BYTE_BITS_LOG + log);
        match self.mode.is_64() {
            true => self.asm.sarx64(R9, offset, R9),
            false => self.asm.sarx32(R9, offset, R9),
        }
        self.lea(R8, indexed(address, R9, log as u8, 0));
        let mut probed = self.probe(raw, R8, size, writes);
        if let Home::Context(_) = place {
            probed = self.point(R8, probed);
        }
        let offset = self.held_at(place, RCX);
        self.load_word(R9, probed.mem());
        let codes = match raw.mnemonic() {
            Mnemonic::Bt => [Code::Bt_rm32_r32, Code::Bt_rm64_r64],
            Mnemonic::Bts => [Code::Bts_rm32_r32, Code::Bts_rm64_r64],
            Mnemonic::Btr => [Code::Btr_rm32_r32, Code::Btr_rm64_r64],
            _ => [Code::Btc_rm32_r32, Code::Btc_rm64_r64],
        };
        let number = u32::from(offset.number());
        let test = match self.mode.is_64() {
            true => Instruction::with2(codes[1], Register::R9, Register::RAX + number)?,
            false => Instruction::with2(codes[0], Register::R9D, Register::EAX + number)?,
        };
        self.asm.guest(&test)?;
        if writes {
            self.store_word(probed.mem(), R9);
        }
        Ok(Emitted::Inline)
    }

    /// Emits CMPXCHG8B or CMPXCHG16B, which takes half of its operand from RCX.
    pub(super) fn compare_exchange_pair(&mut self, raw: &Instruction) -> Emitted {
        let Some(probed) = self.probe_operand(raw, true) else {
            return Emitted::Emulate;
        };
        let memory = self.point(R8, probed).mem();
        self.mov(RCX, R11);
        if raw.has_lock_prefix() {
            self.asm.lock();
        }
        match raw.code() {
            Code::Cmpxchg16b_m128 => self.asm.digit64(&[0x0f, 0xc7], 1, memory),
            _ => self.asm.digit(&[0x0f, 0xc7], 1, memory),
        }
        Emitted::Inline
    }

    /// Emits DIV or IDIV of EDX:EAX or RDX:RAX, behind checks that it raises no #DE; else the emulator executes it.
    pub(super) fn divide(&mut self, raw: &Instruction) -> Result<Emitted> {
        let is_quad = matches!(raw.code(), Code::Div_rm64 | Code::Idiv_rm64);
        if memory_operand(raw).is_some() {
            let Some(probed) = self.probe_operand(raw, false) else {
                return Ok(Emitted::Emulate);
            };
            match is_quad {
                true => self.asm.load64(R8, probed.mem()),
                false => self.asm.load32(R8, probed.mem()),
            }
        } else {
            let Some(divisor) = self.held(raw.op0_register(), R8) else {
                return Ok(Emitted::Emulate);
            };
            match is_quad {
                true => self.asm.mov64(R8, divisor),
                false => self.asm.mov32(R8, divisor),
            }
        }
        match (raw.mnemonic(), is_quad) {
            (Mnemonic::Div, false) => self.check_unsigned(raw),
            (Mnemonic::Div, true) => self.check_unsigned_quad(raw),
            (_, is_quad) => self.check_signed(raw, is_quad),
        }
        let divisor = if is_quad { Register::R8 } else { Register::R8D };
        self.asm.guest(&Instruction::with1(raw.code(), divisor)?)?;
        Ok(Emitted::Inline)
    }

    /// Emits the check of DIV of RDX:RAX: the quotient fits if RDX is 0 and R8 is not.
    fn check_unsigned_quad(&mut self, raw: &Instruction) {
        let small = self.asm.label();
        let refused = self.miss(raw.ip32(), Cause::Refused);
        let zero = self.miss(raw.ip32(), Cause::Refused);
        self.asm.mov64(RCX, RDX);
        self.asm.jrcxz(small);
        self.asm.mov_imm32(RCX, 0);
        self.asm.jrcxz(refused);
        self.asm.bind(small);
        self.asm.mov64(RCX, R8);
        self.asm.jrcxz(zero);
    }

    /// The register that holds EDX zero-extended: RDX, or RCX in 64-bit code.
    fn high_half(&mut self) -> Reg {
        if !self.mode.is_64() {
            return RDX;
        }
        self.asm.mov32(RCX, RDX);
        RCX
    }

    /// Emits the check of DIV: the quotient of EDX:EAX and R8D fits if EDX < R8D, that is, if their 64-bit difference is negative.
    fn check_unsigned(&mut self, raw: &Instruction) {
        let refused = self.miss(raw.ip32(), Cause::Refused);
        self.asm.mov64(R9, R8);
        self.asm.not64(R9);
        let high = self.high_half();
        self.asm.lea64(RCX, indexed(high, R9, 0, 1));
        self.asm.mov_imm32(R9, QUADWORD_SIGN);
        self.asm.shrx64(RCX, RCX, R9);
        self.asm.jrcxz(refused);
    }

    /// Emits the check of IDIV, of RDX:RAX if `is_quad`, else of EDX:EAX: the quotient fits if the upper half is the lower one's
    /// sign, and the divisor in R8 is neither 0 nor -1.
    fn check_signed(&mut self, raw: &Instruction, is_quad: bool) {
        let extended = self.asm.label();
        let refused = self.miss(raw.ip32(), Cause::Refused);
        let zero = self.miss(raw.ip32(), Cause::Refused);
        let minus_one = self.miss(raw.ip32(), Cause::Refused);
        if is_quad {
            self.asm.mov_imm32(R9, QUADWORD_SIGN);
            self.asm.sarx64(R9, RAX, R9);
        } else {
            self.asm.mov_imm32(R9, DOUBLEWORD_SIGN);
            self.asm.sarx32(R9, RAX, R9);
        }
        self.asm.not64(R9);
        let high = if is_quad { RDX } else { self.high_half() };
        self.asm.lea64(RCX, indexed(high, R9, 0, 1));
        self.asm.jrcxz(extended);
        self.asm.mov_imm32(RCX, 0);
        self.asm.jrcxz(refused);
        self.asm.bind(extended);
        if is_quad {
            self.asm.mov64(RCX, R8);
        } else {
            self.asm.mov32(RCX, R8);
        }
        self.asm.jrcxz(zero);
        if is_quad {
            self.asm.lea64(RCX, at(R8, 1));
        } else {
            self.asm.lea32(RCX, at(R8, 1));
        }
        self.asm.jrcxz(minus_one);
    }

    /// Emits FLDCW, behind a check that the new control word masks all exceptions; else the emulator executes it.
    pub(super) fn load_control_word(&mut self, raw: &Instruction) -> Emitted {
        if !self.is_addressable(raw, false) {
            return Emitted::Emulate;
        }
        self.check_fpu(raw);
        let Some(probed) = self.probe_operand(raw, false) else {
            return Emitted::Emulate;
        };
        let masked = self.asm.label();
        let refused = self.miss(raw.ip32(), Cause::Refused);
        self.asm.lea64(R8, probed.mem());
        self.asm.load16(R9, at(R8, 0));
        self.asm.not64(R9);
        self.asm.mov_imm32(RCX, ABOVE_MASKS);
        self.asm.shlx32(RCX, R9, RCX);
        self.asm.jrcxz(masked);
        self.asm.mov_imm32(RCX, 0);
        self.asm.jrcxz(refused);
        self.asm.bind(masked);
        self.asm.digit(&[0xd9], 5, at(R8, 0));
        Emitted::Inline
    }
}
