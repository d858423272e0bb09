//! Instructions on registers and memory that need more than renamed operands.

use super::memory::is_addressable;
use super::misses::Cause;
use super::{Emitted, Emitter, Result, guest};
use crate::translate::asm::*;
use crate::translate::operands::{Counter, memory_operand, rewrite};
use iced_x86::{Code, Instruction, Mnemonic, Register};

/// log2 of the number of bits of a doubleword.
const DOUBLEWORD_BITS_LOG: u32 = 5;
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
        let Some(offset) = guest(raw.op1_register()).filter(|_| is_addressable(raw, writes)) else {
            return Ok(Emitted::Emulate);
        };
        let address = self.address(raw);
        self.asm.mov_imm32(R9, DOUBLEWORD_BITS_LOG);
        self.asm.sarx32(R9, offset, R9);
        self.asm.lea32(R8, indexed(address, R9, 2, 0));
        let probed = self.probe(raw, R8, 4, writes);
        self.asm.load32(R9, probed.mem());
        let code = match raw.mnemonic() {
            Mnemonic::Bt => Code::Bt_rm32_r32,
            Mnemonic::Bts => Code::Bts_rm32_r32,
            Mnemonic::Btr => Code::Btr_rm32_r32,
            _ => Code::Btc_rm32_r32,
        };
        let test = Instruction::with2(code, Register::R9D, raw.op1_register())?;
        let Some(test) = rewrite(&test, Counter::R11, None) else {
            return Ok(Emitted::Emulate);
        };
        self.asm.guest(&test)?;
        if writes {
            self.asm.store32(probed.mem(), R9);
        }
        Ok(Emitted::Inline)
    }

    /// Emits CMPXCHG8B, which takes half of its operand from ECX.
    pub(super) fn compare_exchange8(&mut self, raw: &Instruction) -> Emitted {
        let Some(probed) = self.probe_operand(raw, true) else {
            return Emitted::Emulate;
        };
        let memory = self.point(R8, probed).mem();
        self.asm.mov32(RCX, R11);
        if raw.has_lock_prefix() {
            self.asm.lock();
        }
        self.asm.digit(&[0x0f, 0xc7], 1, memory);
        Emitted::Inline
    }

    /// Emits DIV or IDIV of EDX:EAX, behind checks that it raises no #DE; else the emulator executes it.
    pub(super) fn divide(&mut self, raw: &Instruction) -> Result<Emitted> {
        if memory_operand(raw).is_some() {
            let Some(probed) = self.probe_operand(raw, false) else {
                return Ok(Emitted::Emulate);
            };
            self.asm.load32(R8, probed.mem());
        } else {
            let Some(divisor) = guest(raw.op0_register()) else {
                return Ok(Emitted::Emulate);
            };
            self.asm.mov32(R8, divisor);
        }
        if raw.mnemonic() == Mnemonic::Div {
            self.check_unsigned(raw);
        } else {
            self.check_signed(raw);
        }
        self.asm
            .guest(&Instruction::with1(raw.code(), Register::R8D)?)?;
        Ok(Emitted::Inline)
    }

    /// Emits the check of DIV: the quotient of EDX:EAX and R8D fits if EDX < R8D, that is, if their 64-bit difference is negative.
    fn check_unsigned(&mut self, raw: &Instruction) {
        let refused = self.miss(raw.ip32(), Cause::Refused);
        self.asm.mov64(R9, R8);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(RDX, R9, 0, 1));
        self.asm.mov_imm32(R9, QUADWORD_SIGN);
        self.asm.shrx64(RCX, RCX, R9);
        self.asm.jrcxz(refused);
    }

    /// Emits the check of IDIV: the quotient fits if EDX:EAX is EAX sign-extended and R8D neither 0 nor -1.
    fn check_signed(&mut self, raw: &Instruction) {
        let extended = self.asm.label();
        let refused = self.miss(raw.ip32(), Cause::Refused);
        let zero = self.miss(raw.ip32(), Cause::Refused);
        let minus_one = self.miss(raw.ip32(), Cause::Refused);
        self.asm.mov_imm32(R9, DOUBLEWORD_SIGN);
        self.asm.sarx32(R9, RAX, R9);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(RDX, R9, 0, 1));
        self.asm.jrcxz(extended);
        self.asm.mov_imm32(RCX, 0);
        self.asm.jrcxz(refused);
        self.asm.bind(extended);
        self.asm.mov32(RCX, R8);
        self.asm.jrcxz(zero);
        self.asm.lea32(RCX, at(R8, 1));
        self.asm.jrcxz(minus_one);
    }

    /// Emits FLDCW, behind a check that the new control word masks all exceptions; else the emulator executes it.
    pub(super) fn load_control_word(&mut self, raw: &Instruction) -> Emitted {
        if !is_addressable(raw, false) {
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
