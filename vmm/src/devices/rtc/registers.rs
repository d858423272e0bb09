//! Places and bits of the registers (MC146818A datasheet, "Address Map" and "Registers").

pub const RAM: usize = 128;

pub const SECONDS: usize = 0x00;
pub const SECONDS_ALARM: usize = 0x01;
pub const MINUTES: usize = 0x02;
pub const MINUTES_ALARM: usize = 0x03;
pub const HOURS: usize = 0x04;
pub const HOURS_ALARM: usize = 0x05;
pub const WEEKDAY: usize = 0x06;
pub const DAY: usize = 0x07;
pub const MONTH: usize = 0x08;
pub const YEAR: usize = 0x09;
pub const A: usize = 0x0a;
pub const B: usize = 0x0b;
pub const C: usize = 0x0c;
pub const D: usize = 0x0d;
pub const CENTURY: usize = 0x32;

/// Register A: an update comes within 244 µs.
pub const A_UIP: u8 = 1 << 7;
pub const A_DIVIDER: u8 = 0b111 << 4;
/// The divider setting for a 32,768 Hz crystal, the only one at which time goes on.
pub const A_DIVIDER_32KHZ: u8 = 0b010 << 4;
pub const A_RATE: u8 = 0b1111;
/// The periodic rate that PCs start with: 1024 Hz.
pub const A_RATE_1024HZ: u8 = 6;
/// Register B.
pub const B_SET: u8 = 1 << 7;
pub const B_PIE: u8 = 1 << 6;
pub const B_AIE: u8 = 1 << 5;
pub const B_UIE: u8 = 1 << 4;
pub const B_DM_BINARY: u8 = 1 << 2;
pub const B_24_HOURS: u8 = 1 << 1;
/// Register B: daylight saving.
pub const B_DSE: u8 = 1 << 0;
/// Register C; the flags stand where register B has their enables.
pub const C_IRQF: u8 = 1 << 7;
pub const C_PF: u8 = B_PIE;
pub const C_AF: u8 = B_AIE;
pub const C_UF: u8 = B_UIE;
/// Register D: RAM and time are valid.
pub const D_VRT: u8 = 1 << 7;
/// Hours register in 12-hour mode: after noon.
pub const PM: u8 = 1 << 7;
/// An alarm register with both upper bits on matches any value.
pub const DONT_CARE: u8 = 0b1100_0000;
