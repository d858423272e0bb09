//! Operand values that matter: zeros, extremes, sign changes, floating-point specials.

use super::case::{FX_SIZE, SANDBOX_BYTES, Template};
use super::mode::Mode;
use super::segments::LocalTable;
use fastrand::Rng;

/// Integers around which instructions change their mind; used at every width.
const INTEGERS: [u32; 24] = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    31,
    32,
    33,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x0001_0000,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xffff_ff80,
    0xffff_fffe,
    0xffff_ffff,
];

/// 64-bit integers around which instructions change their mind: ends of 32-bit results, of sign-extended ones, and of the canonical
/// addresses.
const WIDE_INTEGERS: [u64; 22] = [
    63,
    64,
    65,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_8000_0000,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x8000_0000_0000_0001,
    0x8000_0000_8000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_7fff_ffff,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_ff80,
    0xffff_ffff_ffff_ffff,
];

/// Single-precision values: zeros, ones, denormals, extremes, infinities, quiet and signalling NaNs, conversion limits.
const SINGLES: [u32; 20] = [
    0x0000_0000,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x0000_0001,
    0x807f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_1234,
    0x7f80_0001,
    0xffbf_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x3f00_0000,
    0x4049_0fdb,
    0x5f00_0000,
];

/// Double-precision values, chosen as [`SINGLES`].
const DOUBLES: [u64; 20] = [
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x0000_0000_0000_0001,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_1234,
    0x7ff0_0000_0000_0001,
    0xfff7_ffff_ffff_ffff,
    0x41e0_0000_0000_0000,
    0xc1e0_0000_0020_0000,
    0x3fe0_0000_0000_0000,
    0x4009_21fb_5444_2d18,
    0x36a0_0000_0000_0000,
];

/// Sign and exponent, and significand, of 80-bit values: the kinds of SDM Vol. 1, Table 8-3 "Unsupported Double
/// Extended-Precision Floating-Point Encodings and Pseudo-Denormals" among the ordinary ones.
const EXTENDEDS: [(u16, u64); 22] = [
    (0x0000, 0x0000_0000_0000_0000),
    (0x8000, 0x0000_0000_0000_0000),
    (0x3fff, 0x8000_0000_0000_0000),
    (0xbfff, 0x8000_0000_0000_0000),
    (0x4000, 0xc90f_daa2_2168_c235),
    (0x0000, 0x0000_0000_0000_0001),
    (0x0000, 0x8000_0000_0000_0000),
    (0x0001, 0x8000_0000_0000_0000),
    (0x7ffe, 0xffff_ffff_ffff_ffff),
    (0xfffe, 0xffff_ffff_ffff_ffff),
    (0x7fff, 0x8000_0000_0000_0000),
    (0xffff, 0x8000_0000_0000_0000),
    (0x7fff, 0xc000_0000_0000_0000),
    (0xffff, 0xc000_0000_0000_0000),
    (0x7fff, 0x8000_0000_0000_0001),
    (0x7fff, 0x0000_0000_0000_0000),
    (0x3fff, 0x4000_0000_0000_0000),
    (0x403e, 0x8000_0000_0000_0000),
    (0xc03e, 0x8000_0000_0000_0000),
    (0x3ffe, 0x8000_0000_0000_0000),
    (0x4010, 0xffff_8000_0000_0000),
    (0x3f80, 0x8000_0000_0000_0000),
];

/// x87 control word after FNINIT.
const FCW_DEFAULT: u16 = 0x037f;
/// x87 control-word bits that mean something: masks, precision, rounding, infinity control.
const FCW_BITS: u16 = 0x1f3f;
/// The control-word bit that is always one.
const FCW_FIXED: u16 = 0x0040;
/// MXCSR after RESET.
const MXCSR_DEFAULT: u32 = 0x1f80;
/// MXCSR bits that every SSE2 processor has.
const MXCSR_BITS: u32 = 0xffff;

/// Whether something with this chance, in percent, happens.
pub fn percent(rng: &mut Rng, chance: u32) -> bool {
    rng.u32(0..100) < chance
}

/// A value for an integer register or immediate; the low bytes are interesting at every width.
pub fn integer(rng: &mut Rng) -> u32 {
    let special = INTEGERS[rng.usize(..INTEGERS.len())];
    match rng.u32(0..8) {
        0..=3 => special,
        4 => special.wrapping_add(rng.u32(0..5)).wrapping_sub(2),
        5 => rng.u32(..) & 0xffff_0000 | special & 0xffff,
        6 => rng.u32(..) & 0xffff_ff00 | special & 0xff,
        _ => rng.u32(..),
    }
}

/// A value for a general register or immediate of code of `bits` bits.
pub fn register(bits: u32, rng: &mut Rng) -> u64 {
    let low = u64::from(integer(rng));
    if bits != 64 {
        return low;
    }
    let special = WIDE_INTEGERS[rng.usize(..WIDE_INTEGERS.len())];
    match rng.u32(0..8) {
        0 | 1 => low,
        2 => low as i32 as u64,
        3 => special,
        4 => special.wrapping_add_signed(rng.i64(-2..3)),
        5 => special >> 32 << 32 | low,
        6 => rng.u64(..) << 32 | low,
        _ => rng.u64(..),
    }
}

fn single(rng: &mut Rng) -> u32 {
    match rng.u32(0..4) {
        0 | 1 => SINGLES[rng.usize(..SINGLES.len())],
        2 => ((rng.i32(-1000..1000) as f32) / 8.0).to_bits(),
        _ => rng.u32(..),
    }
}

fn double(rng: &mut Rng) -> u64 {
    match rng.u32(0..4) {
        0 | 1 => DOUBLES[rng.usize(..DOUBLES.len())],
        2 => ((rng.i32(-1000..1000) as f64) / 8.0).to_bits(),
        _ => rng.u64(..),
    }
}

fn extended(rng: &mut Rng) -> [u8; 10] {
    let (exponent, significand) = match rng.u32(0..4) {
        0 | 1 => EXTENDEDS[rng.usize(..EXTENDEDS.len())],
        2 => (
            (0x3ff0 + rng.u16(0..32)) | (rng.u16(0..2) << 15),
            rng.u64(..) | 1 << 63,
        ),
        _ => (rng.u16(..), rng.u64(..)),
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&significand.to_le_bytes());
    bytes[8..].copy_from_slice(&exponent.to_le_bytes());
    bytes
}

/// Sixteen bytes of one kind: integers, singles, doubles, an 80-bit value, packed decimal, or noise.
fn vector(rng: &mut Rng) -> [u8; 16] {
    let mut bytes = [0; 16];
    match rng.u32(0..6) {
        0 => bytes
            .chunks_exact_mut(4)
            .for_each(|chunk| chunk.copy_from_slice(&integer(rng).to_le_bytes())),
        1 => bytes
            .chunks_exact_mut(4)
            .for_each(|chunk| chunk.copy_from_slice(&single(rng).to_le_bytes())),
        2 => bytes
            .chunks_exact_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&double(rng).to_le_bytes())),
        3 => bytes[..10].copy_from_slice(&extended(rng)),
        4 => bytes.fill_with(|| rng.u8(0..10) << 4 | rng.u8(0..10)),
        _ => rng.fill(&mut bytes),
    }
    bytes
}

/// Contents of the sandboxes and the LDT for a batch.
pub fn template(mode: Mode, rng: &mut Rng) -> Template {
    let length = SANDBOX_BYTES * mode.places().len();
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        bytes.extend(vector(rng));
    }
    let segments = LocalTable::random(rng);
    Template::new(mode, bytes, segments)
}

/// An x87 control word: mostly the default, else any masks, precision and rounding.
pub fn control_word(rng: &mut Rng) -> u16 {
    match rng.u32(0..10) {
        0..=5 => FCW_DEFAULT,
        6..=8 => FCW_DEFAULT | rng.u16(..) & FCW_BITS,
        _ => rng.u16(..) & FCW_BITS | FCW_FIXED,
    }
}

/// An MXCSR value without reserved bits: mostly all exceptions masked.
pub fn mxcsr(rng: &mut Rng) -> u32 {
    match rng.u32(0..10) {
        0..=5 => MXCSR_DEFAULT,
        6..=8 => MXCSR_DEFAULT | rng.u32(..) & MXCSR_BITS,
        _ => rng.u32(..) & MXCSR_BITS,
    }
}

/// An FXSAVE image to start from (SDM Vol. 1, 10.5.1 "FXSAVE Area"). The pointers to the last instruction are zero.
pub fn fx_state(mode: Mode, rng: &mut Rng) -> [u8; FX_SIZE] {
    let mut fx = [0; FX_SIZE];
    let control = control_word(rng);
    fx[0..2].copy_from_slice(&control.to_le_bytes());
    let top = if percent(rng, 50) {
        0
    } else {
        rng.u16(0..8) << 11
    };
    let exceptions = if percent(rng, 30) {
        rng.u16(..) & 0x3f & (control | if percent(rng, 10) { 0x3f } else { 0 })
    } else {
        0
    };
    let conditions = rng.u16(..) & 0x4700;
    fx[2..4].copy_from_slice(&(top | exceptions | conditions).to_le_bytes());
    fx[4] = match rng.u32(0..4) {
        0 => 0,
        1 => 0xff,
        _ => rng.u8(..),
    };
    // FOP, and FIP, FCS, FDP and FDS.
    fx[6..8].copy_from_slice(&rng.u16(..0x800).to_le_bytes());
    for (at, mask) in [(8, u32::MAX), (12, 0xffff), (16, u32::MAX), (20, 0xffff)] {
        fx[at..at + 4].copy_from_slice(&(rng.u32(..) & mask).to_le_bytes());
    }
    fx[24..28].copy_from_slice(&mxcsr(rng).to_le_bytes());
    for register in fx[32..160].chunks_exact_mut(16) {
        register[..10].copy_from_slice(&extended(rng));
    }
    for register in fx[160..].chunks_exact_mut(16).take(mode.registers()) {
        register.copy_from_slice(&vector(rng));
    }
    fx
}
