//! [`Verdict`]: the classification of guest instructions by how they are translated.
//!
//! SDM Vol. 2 describes the instructions. Instructions that the table does not name are left to the emulator.

use super::mode::Mode;
use crate::emulate::fpu::is_host_executed;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use mmu::Privilege;
use std::fmt;

/// The verdict on an instruction: how it is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is emitted, as the instruction has no effect.
    Skip,
    /// The host executes it, with its operands renamed and its memory operand found through a table.
    Copy,
    /// The host executes it as with [`Self::Copy`], guest ECX being moved to ECX for a shift count in CL.
    CopyWithCl,
    /// The host executes it as with [`Self::Copy`], on its x87, MMX and SSE unit.
    CopyFpu,
    /// An emitter of its own rewrites it.
    Rewrite(Rewrite),
    /// The emulator executes it.
    Emulate,
}

/// An instruction that is rewritten as several host instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// LEA.
    Lea,
    /// PUSH of a register, constant or stack slot's size of memory.
    Push,
    /// POP to a register.
    Pop,
    /// POP to a stack slot's size of memory.
    PopMemory,
    /// LEAVE.
    Leave,
    /// PUSHFD or PUSHFQ.
    Pushf,
    /// POPFD or POPFQ with CPL 0.
    Popf,
    /// CLI with CPL 0.
    Cli,
    /// STI with CPL 0.
    Sti,
    /// CLD.
    Cld,
    /// STD.
    Std,
    /// BT, BTS, BTR or BTC of memory by a bit offset in a register.
    BitString,
    /// CMPXCHG8B or CMPXCHG16B.
    CompareExchangePair,
    /// DIV or IDIV of a doubleword or quadword.
    Divide,
    /// FLDCW.
    LoadControlWord,
    /// PUSH of a segment register.
    PushSegment,
    /// POP to DS, ES, FS or GS with CPL 0.
    PopSegment,
    /// MOV from a segment register.
    StoreSegment,
    /// MOV to DS, ES, FS or GS with CPL 0.
    LoadSegment,
    /// MOV from CR0, CR2, CR3 or CR4 with CPL 0.
    StoreControl,
    /// SYSENTER.
    Sysenter,
    /// SYSEXIT with CPL 0.
    Sysexit,
    /// SYSCALL.
    Syscall,
    /// SYSRET to 64-bit code with CPL 0.
    Sysret,
    /// SWAPGS with CPL 0.
    Swapgs,
    /// WRMSR with CPL 0.
    WriteMsr,
    /// RDTSC.
    Rdtsc,
    /// A string instruction without a repeat prefix.
    String,
    /// A string instruction with a repeat prefix.
    RepeatedString,
    /// Jcc.
    Branch,
    /// JECXZ or JRCXZ.
    BranchIfZero,
    /// LOOP.
    Loop,
    /// JMP rel.
    Jump,
    /// CALL rel.
    Call,
    /// JMP r/m.
    JumpIndirect,
    /// CALL r/m.
    CallIndirect,
    /// RET.
    Return,
}

impl Verdict {
    /// Whether the next instruction is never executed right behind this one.
    pub fn ends(self) -> bool {
        matches!(
            self,
            Self::Rewrite(
                Rewrite::Jump
                    | Rewrite::Call
                    | Rewrite::JumpIndirect
                    | Rewrite::CallIndirect
                    | Rewrite::Return
                    | Rewrite::Sysenter
                    | Rewrite::Sysexit
                    | Rewrite::Syscall
                    | Rewrite::Sysret
                    | Rewrite::WriteMsr
            )
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::Copy => f.write_str("copy"),
            Self::CopyWithCl => f.write_str("copy with CL"),
            Self::CopyFpu => f.write_str("copy (FPU)"),
            Self::Rewrite(_) => f.write_str("rewrite"),
            Self::Emulate => f.write_str("emulate"),
        }
    }
}

/// Classifies `raw`, executed in `mode`.
pub fn verdict(raw: &Instruction, mode: Mode) -> Verdict {
    use Mnemonic::*;
    match raw.mnemonic() {
        Mov | Movzx | Movsx | Movsxd | Cdqe | Cqo | Add | Or | Adc | Sbb | And | Sub | Xor
        | Cmp | Test | Inc | Dec | Neg | Not | Imul | Mul | Bsf | Bsr | Bswap | Cbw | Cwde
        | Cwd | Cdq | Popcnt | Crc32 | Xadd | Xchg | Cmpxchg | Clc | Stc | Cmc | Lahf | Sahf
        | Cmova | Cmovae | Cmovb | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle | Cmovne
        | Cmovno | Cmovnp | Cmovns | Cmovo | Cmovp | Cmovs | Seta | Setae | Setb | Setbe | Sete
        | Setg | Setge | Setl | Setle | Setne | Setno | Setnp | Setns | Seto | Setp | Sets => {
            copy(raw, mode)
        }
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr => shift(raw, 1),
        Shld | Shrd => shift(raw, 2),
        Bt | Bts | Btr | Btc => bit_test(raw, mode),
        Nop | Reservednop | Pause => Verdict::Skip,
        // Loads are in order anyway. Device threads see stores as other processors do.
        Lfence => Verdict::Skip,
        Mfence | Sfence => Verdict::Copy,
        _ if raw.code() == Code::Fldcw_m2byte => Verdict::Rewrite(Rewrite::LoadControlWord),
        Fnstcw | Fnstsw => Verdict::CopyFpu,
        _ if is_host_executed(raw) => Verdict::CopyFpu,
        _ => rewrite(raw, mode).map_or(Verdict::Emulate, Verdict::Rewrite),
    }
}

/// Classifies an instruction on general-purpose registers and memory; others of the same name move segment, control and debug
/// registers.
fn copy(raw: &Instruction, mode: Mode) -> Verdict {
    let general = (0..raw.op_count()).all(|index| {
        let register = raw.op_register(index);
        raw.op_kind(index) != OpKind::Register
            || register.is_gpr8()
            || register.is_gpr16()
            || register.is_gpr32()
            || register.is_gpr64()
    });
    if general && !matches!(raw.code(), Code::Bswap_r16 | Code::Movsxd_r16_rm16) {
        Verdict::Copy
    } else {
        rewrite(raw, mode).map_or(Verdict::Emulate, Verdict::Rewrite)
    }
}

/// Classifies a shift whose count is operand `count`.
fn shift(raw: &Instruction, count: u32) -> Verdict {
    if raw.op_kind(count) == OpKind::Register {
        Verdict::CopyWithCl
    } else {
        Verdict::Copy
    }
}

/// Classifies BT, BTS, BTR and BTC: a bit offset in a register reaches beyond a memory operand. Such a bit is changed by more than
/// one instruction, which cannot be locked.
fn bit_test(raw: &Instruction, mode: Mode) -> Verdict {
    let word = if mode.is_64() { 8 } else { 4 };
    match (raw.op0_kind(), raw.op1_kind()) {
        (OpKind::Memory, OpKind::Register)
            if raw.memory_size().size() == word && !raw.has_lock_prefix() =>
        {
            Verdict::Rewrite(Rewrite::BitString)
        }
        (OpKind::Memory, OpKind::Register) => Verdict::Emulate,
        _ => Verdict::Copy,
    }
}

fn rewrite(raw: &Instruction, mode: Mode) -> Option<Rewrite> {
    if mode.is_64() {
        return rewrite64(raw, mode.privilege() == Privilege::Supervisor);
    }
    let kernel = mode.privilege() == Privilege::Supervisor;
    let rewrite = match raw.code() {
        Code::Lea_r32_m => Rewrite::Lea,
        Code::Push_r32 | Code::Pushd_imm8 | Code::Pushd_imm32 | Code::Push_rm32 => Rewrite::Push,
        Code::Pop_r32 => Rewrite::Pop,
        Code::Pop_rm32 => Rewrite::PopMemory,
        Code::Pushd_ES
        | Code::Pushd_CS
        | Code::Pushd_SS
        | Code::Pushd_DS
        | Code::Pushd_FS
        | Code::Pushd_GS => Rewrite::PushSegment,
        Code::Popd_ES | Code::Popd_DS | Code::Popd_FS | Code::Popd_GS if kernel => {
            Rewrite::PopSegment
        }
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg => Rewrite::StoreSegment,
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16
            if kernel && !matches!(raw.op0_register(), Register::CS | Register::SS) =>
        {
            Rewrite::LoadSegment
        }
        Code::Mov_r32_cr if kernel && is_held(raw.op1_register()) => Rewrite::StoreControl,
        Code::Sysenter if !kernel => Rewrite::Sysenter,
        Code::Sysexitd if kernel => Rewrite::Sysexit,
        Code::Rdtsc => Rewrite::Rdtsc,
        Code::Leaved => Rewrite::Leave,
        Code::Pushfd => Rewrite::Pushf,
        Code::Popfd if kernel => Rewrite::Popf,
        Code::Cld => Rewrite::Cld,
        Code::Std => Rewrite::Std,
        Code::Cli if kernel => Rewrite::Cli,
        Code::Sti if kernel => Rewrite::Sti,
        Code::Cmpxchg8b_m64 => Rewrite::CompareExchangePair,
        Code::Div_rm32 | Code::Idiv_rm32 => Rewrite::Divide,
        Code::Jecxz_rel8_32 => Rewrite::BranchIfZero,
        Code::Loop_rel8_32_ECX => Rewrite::Loop,
        Code::Jmp_rel8_32 | Code::Jmp_rel32_32 => Rewrite::Jump,
        Code::Call_rel32_32 => Rewrite::Call,
        Code::Jmp_rm32 => Rewrite::JumpIndirect,
        Code::Call_rm32 => Rewrite::CallIndirect,
        Code::Retnd | Code::Retnd_imm16 => Rewrite::Return,
        _ if raw.is_jcc_short_or_near() && raw.op_code().operand_size() == 32 => Rewrite::Branch,
        _ if is_flat_string(raw, false) => string(raw)?,
        _ => return None,
    };
    Some(rewrite)
}

/// The rewriting of 64-bit code.
fn rewrite64(raw: &Instruction, kernel: bool) -> Option<Rewrite> {
    let rewrite = match raw.code() {
        Code::Lea_r32_m | Code::Lea_r64_m => Rewrite::Lea,
        Code::Push_r64 | Code::Pushq_imm8 | Code::Pushq_imm32 | Code::Push_rm64 => Rewrite::Push,
        Code::Pop_r64 => Rewrite::Pop,
        Code::Pop_rm64 => Rewrite::PopMemory,
        Code::Pushq_FS | Code::Pushq_GS => Rewrite::PushSegment,
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
            Rewrite::StoreSegment
        }
        Code::Mov_r64_cr if kernel && is_held(raw.op1_register()) => Rewrite::StoreControl,
        Code::Syscall if !kernel => Rewrite::Syscall,
        Code::Sysretq if kernel => Rewrite::Sysret,
        Code::Swapgs if kernel => Rewrite::Swapgs,
        Code::Wrmsr if kernel => Rewrite::WriteMsr,
        Code::Rdtsc => Rewrite::Rdtsc,
        Code::Leaveq => Rewrite::Leave,
        Code::Pushfq => Rewrite::Pushf,
        Code::Popfq if kernel => Rewrite::Popf,
        Code::Cld => Rewrite::Cld,
        Code::Std => Rewrite::Std,
        Code::Cli if kernel => Rewrite::Cli,
        Code::Sti if kernel => Rewrite::Sti,
        Code::Cmpxchg8b_m64 | Code::Cmpxchg16b_m128 => Rewrite::CompareExchangePair,
        Code::Div_rm32 | Code::Idiv_rm32 | Code::Div_rm64 | Code::Idiv_rm64 => Rewrite::Divide,
        Code::Jrcxz_rel8_64 => Rewrite::BranchIfZero,
        Code::Loop_rel8_64_RCX => Rewrite::Loop,
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => Rewrite::Jump,
        Code::Call_rel32_64 => Rewrite::Call,
        Code::Jmp_rm64 => Rewrite::JumpIndirect,
        Code::Call_rm64 => Rewrite::CallIndirect,
        Code::Retnq | Code::Retnq_imm16 => Rewrite::Return,
        _ if raw.is_jcc_short_or_near() && raw.op_code().operand_size() == 64 => Rewrite::Branch,
        _ if is_flat_string(raw, true) => string(raw)?,
        _ => return None,
    };
    let is_near = i32::try_from(raw.near_branch64().cast_signed()).is_ok();
    let is_branch = raw.op0_kind() == OpKind::NearBranch64;
    (is_near || !is_branch).then_some(rewrite)
}

/// Whether the context holds a control register.
fn is_held(control: Register) -> bool {
    use Register::{CR0, CR2, CR3, CR4};
    matches!(control, CR0 | CR2 | CR3 | CR4)
}

/// Whether `raw` is a string instruction with addresses as wide as the code's, in flat segments.
fn is_flat_string(raw: &Instruction, is_64: bool) -> bool {
    let operand = |index| match raw.op_kind(index) {
        OpKind::MemorySegESI | OpKind::MemoryESEDI => !is_64,
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => is_64,
        kind => kind == OpKind::Register,
    };
    raw.is_string_instruction()
        && raw.op_count() == 2
        && operand(0)
        && operand(1)
        && !matches!(raw.memory_segment(), Register::FS | Register::GS)
}

fn string(raw: &Instruction) -> Option<Rewrite> {
    use Mnemonic::*;
    let repeated = raw.has_rep_prefix() || raw.has_repne_prefix();
    match raw.mnemonic() {
        Stosb | Stosw | Stosd | Stosq | Movsb | Movsw | Movsd | Movsq | Cmpsb | Cmpsw | Cmpsd
        | Cmpsq | Scasb | Scasw | Scasd | Scasq
            if repeated =>
        {
            Some(Rewrite::RepeatedString)
        }
        Lodsb | Lodsw | Lodsd | Lodsq | Stosb | Stosw | Stosd | Stosq | Scasb | Scasw | Scasd
        | Scasq | Movsb | Movsw | Movsd | Movsq
            if !repeated =>
        {
            Some(Rewrite::String)
        }
        _ => None,
    }
}
