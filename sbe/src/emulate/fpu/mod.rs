//! x87, MMX and SSE instructions, up to SSE4.2.
//!
//! Arithmetic and data movement execute on the host's own unit, never in software:
//!
//! ```text
//!   decode:   instruction ──> template of host_fpu::HostFpu ──> number in Insn::aux
//!   execute:  available? ──> load memory operand ──> HostFpu::run on a copy of the guest's state
//!                        ──> store memory operand ──> take over the state
//! ```
//!
//! Control, state-saving and cacheability instructions have handlers of their own. Every handler checks and faults before it
//! changes anything; only an unmasked SIMD exception sets its flags in MXCSR first, and the switch to MMX comes before it and
//! before a fault of MASKMOVQ, as with the processor.
//!
//! Where the manual leaves freedom, the guest sees what the host does: undefined condition codes, the last bits of
//! transcendental functions. After an unmasked exception of DPPS or DPPD, which multiply first and then add, MXCSR has the flags of
//! all steps; a processor stops at the first step that has one. CVTPI2PS with a memory operand leaves the x87 state alone, as on AMD
//! processors.

mod available;
mod cacheability;
mod control;
mod environment;
mod execute;
mod extent;
mod fxsave;
#[cfg(test)]
mod tests;

use super::exec::Handler;
use crate::host_fpu::Class;
use iced_x86::{Code, Instruction, Mnemonic};

/// Whether `raw` executes on the host and needs a template.
pub fn is_host_executed(raw: &Instruction) -> bool {
    manual_handler(raw).is_none() && Class::of(raw).is_some()
}

/// Whether `raw` sets the last-instruction pointers: x87 instructions do, but for control instructions.
pub fn sets_pointers(raw: &Instruction) -> bool {
    manual_handler(raw).is_none() && Class::of(raw) == Some(Class::X87)
}

/// The handler of an x87, MMX or SSE instruction; `None` for all others.
pub fn handler(raw: &Instruction) -> Option<Handler> {
    manual_handler(raw).or_else(|| match Class::of(raw)? {
        Class::X87 => Some(execute::x87 as Handler),
        Class::Mmx | Class::Sse | Class::SseMmx => Some(execute::simd),
    })
}

/// Handlers of the instructions that the host does not execute.
fn manual_handler(raw: &Instruction) -> Option<Handler> {
    let handler: Handler = match raw.code() {
        Code::Wait => control::wait,
        Code::Fninit => control::fninit,
        Code::Fnclex => control::fnclex,
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => control::obsolete,
        Code::Fldcw_m2byte => control::fldcw,
        Code::Fnstcw_m2byte => control::fnstcw,
        Code::Fnstsw_m2byte => control::fnstsw,
        Code::Fnstsw_AX => control::fnstsw_ax,
        Code::Fnstenv_m14byte => environment::fnstenv16,
        Code::Fnstenv_m28byte => environment::fnstenv32,
        Code::Fldenv_m14byte => environment::fldenv16,
        Code::Fldenv_m28byte => environment::fldenv32,
        Code::Fnsave_m94byte => environment::fnsave16,
        Code::Fnsave_m108byte => environment::fnsave32,
        Code::Frstor_m94byte => environment::frstor16,
        Code::Frstor_m108byte => environment::frstor32,
        Code::Fxsave_m512byte => fxsave::fxsave,
        Code::Fxsave64_m512byte => fxsave::fxsave64,
        Code::Fxrstor_m512byte => fxsave::fxrstor,
        Code::Fxrstor64_m512byte => fxsave::fxrstor64,
        Code::Ldmxcsr_m32 => fxsave::ldmxcsr,
        Code::Stmxcsr_m32 => fxsave::stmxcsr,
        Code::Movnti_m32_r32 => cacheability::movnti::<u32>,
        Code::Movnti_m64_r64 => cacheability::movnti::<u64>,
        Code::Clflush_m8 => cacheability::clflush,
        Code::Maskmovq_rDI_mm_mm => cacheability::maskmovq,
        Code::Maskmovdqu_rDI_xmm_xmm => cacheability::maskmovdqu,
        _ => return is_hint(raw).then_some(cacheability::hint),
    };
    Some(handler)
}

/// Whether `raw` is a prefetch or a fence, which have many encodings.
fn is_hint(raw: &Instruction) -> bool {
    matches!(
        raw.mnemonic(),
        Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
            | Mnemonic::Lfence
            | Mnemonic::Mfence
            | Mnemonic::Sfence
    )
}
