//! The instructions that may occur in emitted code: those without effect but on the general-purpose registers and flags, on the
//! x87, MMX and SSE unit, and on one explicit memory operand.

use super::widths::Widths;
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, OpKind};

/// The unit that an allowed instruction works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// General-purpose registers.
    Integer,
    /// x87, MMX and XMM registers.
    Fpu,
}

/// The unit of `instruction`, in code of these widths; `None` if it is not allowed.
pub fn unit(instruction: &Instruction, widths: Widths) -> Option<Unit> {
    // The decoder accepts LOCK only where there is something to lock.
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if repeated || !has_known_registers(instruction, widths) {
        None
    } else if is_integer(instruction) || widths.is_64() && is_integer64(instruction) {
        Some(Unit::Integer)
    } else if is_fpu(instruction) {
        Some(Unit::Fpu)
    } else {
        None
    }
}

/// Whether all register operands are parts of a general-purpose register, of 64 bits in 64-bit code only, or registers of the FPU.
fn has_known_registers(instruction: &Instruction, widths: Widths) -> bool {
    (0..instruction.op_count())
        .filter(|&index| instruction.op_kind(index) == OpKind::Register)
        .map(|index| instruction.op_register(index))
        .all(|register| {
            register.is_gpr8()
                || register.is_gpr16()
                || register.is_gpr32()
                || widths.is_64() && register.is_gpr64()
                || register.is_st()
                || register.is_mm()
                || register.is_xmm()
        })
}

fn is_integer(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    match instruction.mnemonic() {
        Mov | Movzx | Movsx | Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test | Inc | Dec
        | Neg | Not | Imul | Mul | Div | Idiv | Bsf | Bsr | Bswap | Cbw | Cwde | Cwd | Cdq
        | Popcnt | Crc32 | Xadd | Xchg | Cmpxchg | Cmpxchg8b | Mfence | Sfence | Clc | Stc
        | Cmc | Lahf | Sahf | Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd
        | Rdtsc | Cmova | Cmovae | Cmovb | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle
        | Cmovne | Cmovno | Cmovnp | Cmovns | Cmovo | Cmovp | Cmovs | Seta | Setae | Setb
        | Setbe | Sete | Setg | Setge | Setl | Setle | Setne | Setno | Setnp | Setns | Seto
        | Setp | Sets => true,
        // A bit offset in a register reaches beyond a memory operand.
        Bt | Bts | Btr | Btc => {
            instruction.op0_kind() == OpKind::Register
                || instruction.op1_kind() == OpKind::Immediate8
        }
        _ => false,
    }
}

/// Whether the instruction has operands of 64 bits in general-purpose registers, named or not.
pub fn is_quad(instruction: &Instruction) -> bool {
    instruction.cpuid_features().contains(&CpuidFeature::X64)
        || (0..instruction.op_count()).any(|index| instruction.op_register(index).is_gpr64())
}

/// Whether the instruction is one of those on integers that only 64-bit code has.
fn is_integer64(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Movsxd | Cdqe | Cqo | Cmpxchg16b | Movnti
    )
}

fn is_fpu(instruction: &Instruction) -> bool {
    let mut features = instruction
        .cpuid_features()
        .iter()
        .filter(|&&feature| feature != CpuidFeature::X64)
        .peekable();
    let known = features.peek().is_some()
        && features.all(|feature| {
            matches!(
                feature,
                CpuidFeature::FPU
                    | CpuidFeature::FPU287
                    | CpuidFeature::FPU387
                    | CpuidFeature::MMX
                    | CpuidFeature::SSE
                    | CpuidFeature::SSE2
                    | CpuidFeature::SSE3
                    | CpuidFeature::SSSE3
                    | CpuidFeature::SSE4_1
                    | CpuidFeature::SSE4_2
                    | CpuidFeature::CMOV
            )
        });
    known && !is_control(instruction)
}

/// Whether the instruction loads control words, saves or loads whole states, touches caches or has an implicit memory operand.
fn is_control(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Wait | Fldcw
            | Fldenv
            | Fnstenv
            | Fnsave
            | Frstor
            | Fnclex
            | Fninit
            | Fneni
            | Fndisi
            | Fnsetpm
            | Frstpm
            | Ldmxcsr
            | Stmxcsr
            | Fxsave
            | Fxrstor
            | Maskmovq
            | Maskmovdqu
            | Clflush
            | Prefetchnta
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
            | Lfence
            | Pause
    )
}

/// Whether `code` is a string instruction with 64-bit addresses that a repeat prefix may precede.
pub fn is_string(code: Code, widths: Widths) -> bool {
    let quadwords = matches!(
        code,
        Code::Movsq_m64_m64 | Code::Stosq_m64_RAX | Code::Cmpsq_m64_m64 | Code::Scasq_RAX_m64
    );
    widths.is_64() && quadwords
        || matches!(
            code,
            Code::Movsb_m8_m8
                | Code::Movsw_m16_m16
                | Code::Movsd_m32_m32
                | Code::Stosb_m8_AL
                | Code::Stosw_m16_AX
                | Code::Stosd_m32_EAX
                | Code::Cmpsb_m8_m8
                | Code::Cmpsw_m16_m16
                | Code::Cmpsd_m32_m32
                | Code::Scasb_AL_m8
                | Code::Scasw_AX_m16
                | Code::Scasd_EAX_m32
        )
}

/// The alignment that the memory operand needs: 16 for 16 bytes, unless the instruction is an unaligned move or a string
/// comparison (SDM Vol. 1, 4.1.1 "Alignment of Words, Doublewords, Quadwords, and Double Quadwords").
pub fn alignment(instruction: &Instruction) -> u64 {
    use Mnemonic::*;
    let anywhere = matches!(
        instruction.mnemonic(),
        Movups
            | Movupd
            | Movdqu
            | Lddqu
            | Pcmpestrm
            | Pcmpestrm64
            | Pcmpestri
            | Pcmpestri64
            | Pcmpistrm
            | Pcmpistri
    );
    match instruction.memory_size().size() {
        16 if !anywhere => 16,
        _ => 1,
    }
}
