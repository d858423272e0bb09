//! [`SyscallRegisters`]: the registers of SYSCALL and SYSRET.

use super::segment::Selector;
use serde::{Deserialize, Serialize};

/// The registers of SYSCALL and SYSRET (SDM Vol. 3A, 5.8.8 "Fast System Calls in 64-Bit Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SyscallRegisters {
    /// IA32_STAR: the selectors, in bits 63:48 for SYSRET and 47:32 for SYSCALL.
    pub star: u64,
    /// IA32_LSTAR: RIP after SYSCALL in 64-bit mode.
    pub lstar: u64,
    /// IA32_CSTAR: RIP after SYSCALL in compatibility mode, where this processor does not have it.
    pub cstar: u64,
    /// IA32_FMASK: the flags that SYSCALL clears.
    pub fmask: u32,
}

/// Position of the selectors of SYSCALL in IA32_STAR.
const SYSCALL_SHIFT: u32 = 32;
/// Position of the selectors of SYSRET in IA32_STAR.
const SYSRET_SHIFT: u32 = 48;
/// Distance from the selector in IA32_STAR to the stack segment's.
const STACK: u16 = 8;
/// Distance from the selector for SYSRET to that of 64-bit code.
const CODE64: u16 = 16;

impl SyscallRegisters {
    /// The selectors of CS and SS that SYSCALL loads, with privilege level 0, or SYSRET to 64-bit code, with 3.
    pub fn selectors(&self, level: u8) -> (Selector, Selector) {
        let (code, stack) = match level {
            0 => {
                let base = (self.star >> SYSCALL_SHIFT) as u16;
                (base, base.wrapping_add(STACK))
            }
            _ => {
                let base = (self.star >> SYSRET_SHIFT) as u16;
                (base.wrapping_add(CODE64), base.wrapping_add(STACK))
            }
        };
        let at_level = |selector| Selector(selector).with_rpl(level);
        (at_level(code), at_level(stack))
    }

    /// The selectors of CS and SS that SYSRET to 32-bit code loads.
    pub fn selectors32(&self) -> (Selector, Selector) {
        let code = Selector((self.star >> SYSRET_SHIFT) as u16).with_rpl(3);
        let (_, stack) = self.selectors(3);
        (code, stack)
    }
}
