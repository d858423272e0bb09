//! [`SyscallRegisters`]: the registers of SYSCALL and SYSRET.

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
