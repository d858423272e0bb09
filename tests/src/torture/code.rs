//! The code that lies in each frame.

use super::format::PAGE;

/// Offset in each frame of code that loads EAX and jumps back, and of its immediate.
pub const CODE: u32 = 0x10;
/// Offset of code that continues on the next page, behind its first immediate byte.
pub const CROSSING_CODE: u32 = PAGE - 2;
/// MOV to EAX, and JMP to EBP or RBP.
const MOV: u8 = 0xb8;
pub const JMP: [u8; 2] = [0xff, 0xe5];

/// The bytes of code that loads `value`.
pub fn code(value: u32) -> Vec<u8> {
    [&[MOV], &value.to_le_bytes()[..], &JMP].concat()
}
