//! EFLAGS bits (SDM Vol. 1, 3.4.3 "EFLAGS Register").

/// Carry flag.
pub const CF: u32 = 1 << 0;
/// The bit that is always one.
pub const FIXED: u32 = 1 << 1;
/// Parity flag: parity of the low byte of the result.
pub const PF: u32 = 1 << 2;
/// Auxiliary carry flag: carry out of bit 3.
pub const AF: u32 = 1 << 4;
/// Zero flag.
pub const ZF: u32 = 1 << 6;
/// Sign flag.
pub const SF: u32 = 1 << 7;
/// Trap flag: single step.
pub const TF: u32 = 1 << 8;
/// Interrupt enable flag.
pub const IF: u32 = 1 << 9;
/// Direction flag of string instructions.
pub const DF: u32 = 1 << 10;
/// Overflow flag: signed overflow.
pub const OF: u32 = 1 << 11;
/// I/O privilege level, two bits.
pub const IOPL: u32 = 3 << 12;
/// Position of the I/O privilege level.
pub const IOPL_SHIFT: u32 = 12;
/// Nested task flag.
pub const NT: u32 = 1 << 14;
/// Resume flag: the next instruction ignores instruction breakpoints.
pub const RF: u32 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u32 = 1 << 17;
/// Alignment check flag.
pub const AC: u32 = 1 << 18;
/// Virtual interrupt flag.
pub const VIF: u32 = 1 << 19;
/// Virtual interrupt pending.
pub const VIP: u32 = 1 << 20;
/// Identification flag: software that can toggle this bit may execute CPUID.
pub const ID: u32 = 1 << 21;

/// The six status flags of arithmetic.
pub const STATUS: u32 = CF | PF | AF | ZF | SF | OF;
/// The bits that exist; the others read as zero, except [`FIXED`].
pub const DEFINED: u32 = STATUS | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
