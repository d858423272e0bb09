//! [`CodeAddress`]: where an instruction is.

use crate::cpu::Cpu;
use crate::cpu::segment::SegReg;
use mmu::LinearAddr;
use std::fmt;

/// The address of an instruction: as the guest has it, and linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeAddress {
    /// The selector in CS.
    pub cs: u16,
    /// The offset in that segment.
    pub eip: u64,
    /// The linear address, the base of CS plus the offset.
    pub linear: LinearAddr,
}

impl CodeAddress {
    /// The address of the instruction at `eip` in the code segment of `cpu`.
    pub fn of(cpu: &Cpu, eip: u64) -> Self {
        Self {
            cs: cpu.seg(SegReg::Cs).selector.0,
            eip,
            linear: cpu.linear_code(eip),
        }
    }
}

/// Selector and offset, and the linear address if that is not the offset.
impl fmt::Display for CodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let linear = self.linear.get();
        write!(f, "{:04x}:{:08x}", self.cs, self.eip)?;
        match linear == self.eip {
            true => Ok(()),
            false => write!(f, " (linear {linear:08x})"),
        }
    }
}
