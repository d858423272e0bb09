//! The host's integer unit, on which instructions execute that leave a flag or a result undefined.
//!
//! Where the manual leaves something undefined, processors still compute something, and emitted code, in which the host
//! executes the guest's instruction, shows it to the guest. So that a guest sees one processor, whatever engine it is on,
//! these instructions execute on the host here, too: results and flags are the host's own, the defined and the undefined ones.
//! POPCNT and CRC32, which leave nothing undefined, are here as the host has them anyway.
//!
//! ```text
//!   eax = flags ──> add al, 0x7f (OF); sahf (the others) ──> instruction ──> lahf; seto al ──> eax = flags
//! ```
//!
//! The decimal adjustments do not exist in 64-bit mode; [`super::bcd`] computes them.

use super::word::Word;
use crate::cpu::eflags::{AF, CF, OF, PF, SF, ZF};
use std::arch::asm;

/// Status flags that LAHF stores and SAHF loads.
const LOW: u32 = SF | ZF | AF | PF | CF;
/// Position of AH in EAX.
const AH_SHIFT: u32 = 8;

/// Executes instructions on the host between loading the status flags from `$flags` and storing them there.
///
/// The instructions may name the operands given, and EAX as scratch. They must neither access memory nor raise an exception.
macro_rules! execute {
    ($flags:ident, [$($instruction:expr),+], $($operands:tt)+) => {{
        let mut image = ($flags & LOW) << AH_SHIFT | u32::from($flags & OF != 0);
        // SAFETY: the instructions read and write the registers that are declared and the status flags; none accesses memory or
        // the stack, and none raises an exception: the only one that could is DIV or IDIV, which their caller excludes.
        unsafe {
            asm!(
                "add al, 0x7f",
                "sahf",
                $($instruction,)+
                "lahf",
                "seto al",
                inout("eax") image,
                $($operands)+,
                options(pure, nomem, nostack)
            );
        }
        $flags = image >> AH_SHIFT & LOW | if image & 1 == 0 { 0 } else { OF };
    }};
}

macro_rules! by_count {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<W: Word>(value: W, count: u32, mut flags: u32) -> (W, u32) {
            let mut value = value.zero_extend();
            match W::BITS {
                8 => execute!(
                    flags, [concat!(stringify!($name), " {value:l}, cl")],
                    value = inout(reg) value, in("ecx") count
                ),
                16 => execute!(
                    flags, [concat!(stringify!($name), " {value:x}, cl")],
                    value = inout(reg) value, in("ecx") count
                ),
                32 => execute!(
                    flags, [concat!(stringify!($name), " {value:e}, cl")],
                    value = inout(reg) value, in("ecx") count
                ),
                _ => execute!(
                    flags, [concat!(stringify!($name), " {value:r}, cl")],
                    value = inout(reg) value, in("ecx") count
                ),
            }
            (W::cut(value), flags)
        }
    )+};
}

by_count!(
    /// SHL and SAL of `value`: result and status flags.
    shl,
    /// SHR of `value`: result and status flags.
    shr,
    /// SAR of `value`: result and status flags.
    sar,
    /// ROL of `value`: result and status flags.
    rol,
    /// ROR of `value`: result and status flags.
    ror,
    /// RCL of `value`: result and status flags.
    rcl,
    /// RCR of `value`: result and status flags.
    rcr
);

macro_rules! double_shifts {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<W: Word>(value: W, source: W, count: u32, mut flags: u32) -> (W, u32) {
            let (mut value, source) = (value.zero_extend(), source.zero_extend());
            match W::BITS {
                16 => execute!(
                    flags, [concat!(stringify!($name), " {value:x}, {source:x}, cl")],
                    value = inout(reg) value, source = in(reg) source, in("ecx") count
                ),
                32 => execute!(
                    flags, [concat!(stringify!($name), " {value:e}, {source:e}, cl")],
                    value = inout(reg) value, source = in(reg) source, in("ecx") count
                ),
                _ => execute!(
                    flags, [concat!(stringify!($name), " {value:r}, {source:r}, cl")],
                    value = inout(reg) value, source = in(reg) source, in("ecx") count
                ),
            }
            (W::cut(value), flags)
        }
    )+};
}

double_shifts!(
    /// SHLD of 16, 32 or 64 bits, with bits of `source` coming in: result and status flags.
    shld,
    /// SHRD of 16, 32 or 64 bits, with bits of `source` coming in: result and status flags.
    shrd
);

/// Executes the instruction `$name` of two operands, of 16, 32 or 64 bits.
macro_rules! by_width {
    ($W:ident, $name:ident, $flags:ident, $destination:ident, $source:ident) => {
        match $W::BITS {
            16 => execute!(
                $flags, [concat!(stringify!($name), " {destination:x}, {source:x}")],
                destination = inout(reg) $destination, source = in(reg) $source
            ),
            32 => execute!(
                $flags, [concat!(stringify!($name), " {destination:e}, {source:e}")],
                destination = inout(reg) $destination, source = in(reg) $source
            ),
            _ => execute!(
                $flags, [concat!(stringify!($name), " {destination:r}, {source:r}")],
                destination = inout(reg) $destination, source = in(reg) $source
            ),
        }
    };
}

macro_rules! two_operands {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<W: Word>(destination: W, source: W, mut flags: u32) -> (W, u32) {
            let (mut destination, source) = (destination.zero_extend(), source.zero_extend());
            by_width!(W, $name, flags, destination, source);
            (W::cut(destination), flags)
        }
    )+};
}

two_operands!(
    /// IMUL of 16, 32 or 64 bits, cut to the width: result and status flags.
    imul,
    /// POPCNT of 16, 32 or 64 bits, whatever `destination` is: result and status flags.
    popcnt,
    /// BT of 16, 32 or 64 bits by the bit offset `source` modulo the width: `destination` as it was, and status flags.
    bt,
    /// BTS of 16, 32 or 64 bits by the bit offset `source` modulo the width: result and status flags.
    bts,
    /// BTR of 16, 32 or 64 bits by the bit offset `source` modulo the width: result and status flags.
    btr,
    /// BTC of 16, 32 or 64 bits by the bit offset `source` modulo the width: result and status flags.
    btc
);

macro_rules! scans {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<W: Word>(mut destination: u64, source: W, mut flags: u32) -> (u64, u32) {
            let source = source.zero_extend();
            by_width!(W, $name, flags, destination, source);
            (destination, flags)
        }
    )+};
}

scans!(
    /// BSF of 16, 32 or 64 bits, which writes `destination`, a 64-bit register: all of it after, and status flags. If `source` is
    /// zero, the processor decides which part of it is written.
    bsf,
    /// BSR of 16, 32 or 64 bits, which writes `destination`, a 64-bit register: all of it after, and status flags. If `source` is
    /// zero, the processor decides which part of it is written.
    bsr
);

/// CRC32 of `source`, of 8, 16, 32 or 64 bits, added to `sum`. Flags stay.
pub fn crc32<W: Word>(sum: u32, source: W) -> u32 {
    let (mut sum, source, mut flags) = (u64::from(sum), source.zero_extend(), 0);
    match W::BITS {
        8 => execute!(
            flags, ["crc32 {sum:e}, {source:l}"],
            sum = inout(reg) sum, source = in(reg) source
        ),
        16 => execute!(
            flags, ["crc32 {sum:e}, {source:x}"],
            sum = inout(reg) sum, source = in(reg) source
        ),
        32 => execute!(
            flags, ["crc32 {sum:e}, {source:e}"],
            sum = inout(reg) sum, source = in(reg) source
        ),
        _ => execute!(
            flags, ["crc32 {sum:r}, {source:r}"],
            sum = inout(reg) sum, source = in(reg) source
        ),
    }
    debug_assert_eq!(flags, 0);
    sum as u32
}

macro_rules! by_accumulator {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal),+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<W: Word>(low: u64, high: u64, operand: W, mut flags: u32) -> (u64, u64, u32) {
            let (mut low, mut high, operand) = (low, high, operand.zero_extend());
            match W::BITS {
                8 => execute!(
                    flags, ["mov rax, {low:r}", concat!($instruction, " {operand:l}"), "mov {low:r}, rax"],
                    low = inout(reg) low, inout("rdx") high, operand = in(reg) operand
                ),
                16 => execute!(
                    flags, ["mov rax, {low:r}", concat!($instruction, " {operand:x}"), "mov {low:r}, rax"],
                    low = inout(reg) low, inout("rdx") high, operand = in(reg) operand
                ),
                32 => execute!(
                    flags, ["mov rax, {low:r}", concat!($instruction, " {operand:e}"), "mov {low:r}, rax"],
                    low = inout(reg) low, inout("rdx") high, operand = in(reg) operand
                ),
                _ => execute!(
                    flags, ["mov rax, {low:r}", concat!($instruction, " {operand:r}"), "mov {low:r}, rax"],
                    low = inout(reg) low, inout("rdx") high, operand = in(reg) operand
                ),
            }
            (low, high, flags)
        }
    )+};
}

by_accumulator!(
    /// MUL with RAX = `low` and RDX = `high`: RAX, RDX and status flags.
    multiply: "mul",
    /// IMUL with RAX = `low` and RDX = `high`: RAX, RDX and status flags.
    multiply_signed: "imul"
);

/// DIV and IDIV without the checks that they raise no #DE.
mod unchecked {
    use super::*;

    by_accumulator!(
        /// DIV.
        divide: "div",
        /// IDIV.
        divide_signed: "idiv"
    );
}

/// The dividend of DIV and IDIV in the low `2 * W::BITS` bits: AX, DX:AX, EDX:EAX or RDX:RAX.
fn dividend<W: Word>(low: u64, high: u64) -> u128 {
    match W::BITS {
        8 => u128::from(low as u16),
        _ => u128::from(high & W::MASK) << W::BITS | u128::from(low & W::MASK),
    }
}

/// DIV with RAX = `low` and RDX = `high`: RAX, RDX and status flags; `None` if it raises #DE.
pub fn divide<W: Word>(low: u64, high: u64, divisor: W, flags: u32) -> Option<(u64, u64, u32)> {
    let (dividend, divisor_value) = (dividend::<W>(low, high), u128::from(divisor.zero_extend()));
    // The quotient fits if and only if the upper half of the dividend is below the divisor.
    (dividend >> W::BITS < divisor_value).then(|| unchecked::divide(low, high, divisor, flags))
}

/// IDIV with RAX = `low` and RDX = `high`: RAX, RDX and status flags; `None` if it raises #DE.
pub fn divide_signed<W: Word>(
    low: u64,
    high: u64,
    divisor: W,
    flags: u32,
) -> Option<(u64, u64, u32)> {
    let unused = 128 - 2 * W::BITS;
    let dividend = (dividend::<W>(low, high) << unused) as i128 >> unused;
    let quotient = match (i64::try_from(dividend), divisor.sign_extend() as i64) {
        // Twice as fast as a division of 128 bits.
        (Ok(dividend), divisor) => dividend.checked_div(divisor).map(i128::from),
        (Err(_), divisor) => dividend.checked_div(divisor.into()),
    }?;
    let fits = quotient == i128::from(W::cut(quotient as u64).sign_extend() as i64);
    fits.then(|| unchecked::divide_signed(low, high, divisor, flags))
}

/// BSWAP of the 16-bit register in the low half of `value`, whose result is undefined.
pub fn bswap16(value: u16) -> u16 {
    let mut value = u32::from(value);
    // SAFETY: 0x66, 0x0f, 0xc8 is BSWAP AX, an instruction without memory operand, exception and effect on flags.
    unsafe {
        asm!(
            ".byte 0x66, 0x0f, 0xc8",
            inout("eax") value,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    value as u16
}

#[cfg(test)]
mod tests {
    use super::super::alu;
    use super::*;
    use crate::cpu::eflags::STATUS;

    /// The undefined AF of logic is the one that is computed, as logic is too common to execute on the host.
    #[test]
    fn the_host_clears_af_in_logic() {
        for (a, b) in [(0x1f, 0x2f), (0, 0), (u32::MAX, 0x10), (0x8000_0008, 8)] {
            for before in [0, AF] {
                let (mut flags, mut value) = (before, a);
                execute!(
                    flags, ["and {value:e}, {b:e}"],
                    value = inout(reg) value, b = in(reg) b
                );
                let computed = <alu::And as alu::Binary>::apply::<u32>(a, b, 0);
                assert_eq!((value, flags), computed, "{a:#x} & {b:#x}");
            }
        }
    }

    #[test]
    fn all_status_flags_reach_the_host_and_come_back() {
        for flags in (0..=STATUS).filter(|flags| flags & !STATUS == 0) {
            assert_eq!(shl(0x5a_u8, 0, flags), (0x5a, flags));
            assert_eq!(rcl(0x80_u8, 0, flags), (0x80, flags));
        }
        assert_eq!(rcl(0x80_u8, 1, CF), (1, CF | OF));
        assert_eq!(shr(0x8001_u16, 1, 0).0, 0x4000);
    }

    #[test]
    fn divisions_that_raise_de_are_not_executed() {
        assert_eq!(divide(1, 0, 0_u32, 0), None);
        assert_eq!(divide(0, 1, 1_u32, 0), None);
        assert_eq!(divide(0x100, 0, 1_u8, 0), None);
        assert_eq!(divide_signed(0, 0x8000_0000, u32::MAX, 0), None);
        assert_eq!(divide_signed(0x80, 0, 1_u8, 0), None);
        assert_eq!(divide_signed(0, 0x8000, 0xffff_u16, 0), None);
        let divided = divide(0xaaaa_0007, 0xbbbb_0001, 2_u16, 0).map(|(low, high, _)| (low, high));
        assert_eq!(divided, Some((0xaaaa_8003, 0xbbbb_0001)));
    }
}
