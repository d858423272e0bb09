//! The registers of gdb's feature `org.gnu.gdb.i386.sse`.

use sbe::cpu::fpu::MXCSR_MASK;

use super::register::Register;
use crate::linear::Width;

const XMM: [&str; 16] = [
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
    "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
];

/// The registers, in the order of their numbers.
pub(super) fn registers(width: Width) -> Vec<Register> {
    let mut registers = Vec::new();
    let count = match width {
        Width::Bits32 => 8,
        Width::Bits64 => XMM.len(),
    };
    for (&name, index) in XMM[..count].iter().zip(0..) {
        let register = Register::new(name, 128, "vec128", move |cpu| cpu.fpu.xmm(index));
        registers.push(register.set_by(move |cpu, value| cpu.fpu.set_xmm(index, value)));
    }
    let mxcsr = Register::new("mxcsr", 32, "i386_mxcsr", |cpu| cpu.fpu.mxcsr().into());
    registers.push(mxcsr.set_by(|cpu, value| cpu.fpu.set_mxcsr(value as u32 & MXCSR_MASK)));
    registers
}
