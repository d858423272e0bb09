//! The numbers of the host's general-purpose registers, and which of them hold the guest's.

// Numbers of registers.
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RSP: usize = 4;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R8: usize = 8;
pub const R9: usize = 9;
pub const R10: usize = 10;
pub const R13: usize = 13;
pub const R14: usize = 14;
pub const R15: usize = 15;

/// The registers that hold the guest's: those of code of all widths, then those of 64-bit code only.
pub const GUEST: [usize; 10] = [RAX, RDX, 3, 5, RSI, RDI, 11, 12, R13, R14];
/// The number of those of 32-bit code.
pub const GUEST_32: usize = 8;
