//! MC146818 real-time clock and CMOS RAM behind ports 0x70 and 0x71, interrupt line IRQ 8.
//!
//! ```text
//!  0x00–0x09 time and alarm     0x0a–0x0d registers A–D     0x0e–0x7f RAM (0x32 century)
//! ```
//!
//! The time of day is not counted but computed: an epoch plus the caller's nanoseconds. While register B's SET bit is on
//! or the divider is held in reset, time stands still in the registers themselves; when it goes on, the epoch is made
//! anew from them. So the clock neither drifts from the caller's nor needs to be called at all to be right.
//!
//! Motorola MC146818A datasheet, "Address Map" and "Registers". Square wave and daylight saving are not there.

mod device;
#[cfg(test)]
mod tests;

use irq::Level;

use super::calendar::{Date, date_from_days, days_from_date};

/// A real-time clock and its RAM.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    ram: [u8; RAM],
    time: Time,
    /// Whole seconds and periods that had passed when the flags were last brought up to date.
    seen_second: i128,
    seen_period: i128,
    /// The time before which no second or period ends, derived from the rest; 0 when it is not known.
    quiet_until: u64,
}

/// Whether time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// Nanoseconds since 1970-01-01 at the caller's time 0.
    Running { epoch: i128 },
    /// The registers hold the time; the divider chain has come this many nanoseconds into a second.
    Stopped { phase: i128 },
}

const RAM: usize = 128;
const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const A: usize = 0x0a;
const B: usize = 0x0b;
const C: usize = 0x0c;
const D: usize = 0x0d;
const CENTURY: usize = 0x32;

/// Register A: an update comes within 244 µs.
const A_UIP: u8 = 1 << 7;
const A_DIVIDER: u8 = 0b111 << 4;
/// The divider setting for a 32,768 Hz crystal, the only one at which time goes on.
const A_DIVIDER_32KHZ: u8 = 0b010 << 4;
const A_RATE: u8 = 0b1111;
/// Register B.
const B_SET: u8 = 1 << 7;
const B_PIE: u8 = 1 << 6;
const B_AIE: u8 = 1 << 5;
const B_UIE: u8 = 1 << 4;
const B_DM_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// Register C; the flags stand where register B has their enables.
const C_IRQF: u8 = 1 << 7;
const C_PF: u8 = B_PIE;
const C_AF: u8 = B_AIE;
const C_UF: u8 = B_UIE;
/// Register D: RAM and time are valid.
const D_VRT: u8 = 1 << 7;
/// Hours register in 12-hour mode: after noon.
const PM: u8 = 1 << 7;
/// An alarm register with both upper bits on matches any value.
const DONT_CARE: u8 = 0b1100_0000;
/// The periodic rate that PCs start with: 1024 Hz.
const RATE_1024HZ: u8 = 6;

const SECOND: i128 = 1_000_000_000;
/// UIP goes up this long before an update.
const UIP_LEAD: i128 = 244_000;
/// The first update after the divider is let go comes after half a second.
const DIVIDER_RELEASE_PHASE: i128 = SECOND / 2;
const CRYSTAL_HZ: i128 = 32_768;
const SECONDS_A_DAY: i64 = 86_400;

/// CMOS RAM that a BIOS fills in: memory sizes (IBM PC/AT Technical Reference, "CMOS RAM Address Map", and what later
/// BIOSes added).
const BASE_KIB: usize = 0x15;
const EXTENDED_KIB: [usize; 2] = [0x17, 0x30];
const ABOVE_16M_64KIB: usize = 0x34;

impl Rtc {
    /// Creates a clock that shows `unix_ns` (nanoseconds since 1970-01-01 00:00 UTC) at the caller's time 0, in a machine with
    /// `memory` bytes of RAM.
    pub fn new(unix_ns: i128, memory: u64) -> Self {
        let mut ram = [0; RAM];
        ram[A] = A_DIVIDER_32KHZ | RATE_1024HZ;
        ram[B] = B_24_HOURS;
        ram[D] = D_VRT;
        put_memory_size(&mut ram, memory);
        let mut rtc = Self {
            index: 0,
            ram,
            time: Time::Running { epoch: unix_ns },
            seen_second: 0,
            seen_period: 0,
            quiet_until: 0,
        };
        rtc.skip_to(0);
        rtc
    }

    /// Writes the index register, port 0x70. Bit 7, the PC's NMI mask, does nothing: there is no NMI source.
    pub fn select(&mut self, index: u8) {
        self.index = index & (RAM as u8 - 1);
    }

    /// Reads the register selected, port 0x71, at time `now` in nanoseconds.
    pub fn read(&mut self, now: u64) -> u8 {
        self.advance(now);
        match usize::from(self.index) {
            index @ (SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY) => {
                self.time_registers(now)[index]
            }
            A => self.ram[A] | self.update_in_progress(now),
            C => std::mem::replace(&mut self.ram[C], 0),
            index => self.ram[index],
        }
    }

    /// Writes the register selected, port 0x71, at time `now` in nanoseconds.
    pub fn write(&mut self, now: u64, value: u8) {
        self.advance(now);
        self.quiet_until = 0;
        match usize::from(self.index) {
            index @ (SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY) => {
                self.stop(now);
                self.ram[index] = value;
                self.start_if_enabled(now);
            }
            A => {
                let held = self.ram[A] & A_DIVIDER != A_DIVIDER_32KHZ;
                self.stop(now);
                self.ram[A] = value & !A_UIP;
                if held {
                    self.time = Time::Stopped {
                        phase: DIVIDER_RELEASE_PHASE,
                    };
                }
                self.start_if_enabled(now);
                self.skip_to(now);
            }
            B => {
                self.stop(now);
                // SET ends updates and with them their interrupt.
                let mask = if value & B_SET == 0 { 0xff } else { !B_UIE };
                self.ram[B] = value & mask;
                self.start_if_enabled(now);
                self.update_irqf();
            }
            C | D => {}
            index => self.ram[index] = value,
        }
    }

    /// Brings the interrupt flags up to time `now` in nanoseconds.
    pub fn advance(&mut self, now: u64) {
        if now < self.quiet_until {
            return;
        }
        let (second, period) = (self.second(now), self.period(now));
        if second > self.seen_second {
            self.ram[C] |= C_UF;
            if self.alarm_within(self.seen_second + 1, second) {
                self.ram[C] |= C_AF;
            }
        }
        if period > self.seen_period {
            self.ram[C] |= C_PF;
        }
        (self.seen_second, self.seen_period) = (second, period);
        self.update_irqf();
        self.quiet_until = Self::earliest([self.next_second(now), self.next_period(now)]);
    }

    /// The interrupt line, as of the last call to [`Self::advance`].
    pub fn interrupt(&self) -> Level {
        Level::from_active(self.ram[C] & C_IRQF != 0)
    }

    /// The next time in nanoseconds at which the interrupt line may rise by itself; none if it is high or nothing is
    /// enabled.
    pub fn next_deadline(&self, now: u64) -> Option<u64> {
        if self.ram[C] & C_IRQF != 0 {
            return None;
        }
        let enabled = |enables: u8| self.ram[B] & enables != 0;
        let update = enabled(B_UIE | B_AIE).then(|| self.next_second(now));
        let period = enabled(B_PIE).then(|| self.next_period(now));
        let at = update.into_iter().chain(period).flatten().min()?;
        u64::try_from(at).ok()
    }

    /// The end of the present second on the caller's clock; none while time stands still.
    fn next_second(&self, now: u64) -> Option<i128> {
        match self.time {
            Time::Running { epoch } => Some((self.second(now) + 1) * SECOND - epoch),
            Time::Stopped { .. } => None,
        }
    }

    /// The end of the present period of the periodic interrupt on the caller's clock; none while there is no period.
    fn next_period(&self, now: u64) -> Option<i128> {
        let (Time::Running { epoch }, Some(ticks)) = (self.time, self.period_ticks()) else {
            return None;
        };
        let end = (self.period(now) + 1) * ticks * SECOND;
        Some((end + CRYSTAL_HZ - 1).div_euclid(CRYSTAL_HZ) - epoch)
    }

    /// The earliest of these times on the caller's clock, or its last if there is none.
    fn earliest(times: [Option<i128>; 2]) -> u64 {
        let earliest = times.into_iter().flatten().min();
        earliest.map_or(u64::MAX, |at| u64::try_from(at).unwrap_or(u64::MAX))
    }

    /// Whole seconds since 1970; constant while time stands still.
    fn second(&self, now: u64) -> i128 {
        match self.time {
            Time::Running { epoch } => (epoch + i128::from(now)).div_euclid(SECOND),
            Time::Stopped { .. } => self.seen_second,
        }
    }

    /// Whole periods of the periodic interrupt since 1970; constant while there is none.
    fn period(&self, now: u64) -> i128 {
        match (self.time, self.period_ticks()) {
            (Time::Running { epoch }, Some(ticks)) => {
                ((epoch + i128::from(now)) * CRYSTAL_HZ).div_euclid(ticks * SECOND)
            }
            _ => self.seen_period,
        }
    }

    /// The period of the periodic interrupt in cycles of the crystal (datasheet, "Periodic Interrupt Rate").
    fn period_ticks(&self) -> Option<i128> {
        match self.ram[A] & A_RATE {
            0 => None,
            // The two shortest periods do not exist at this crystal and come out as longer ones.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Ignores the seconds and periods that have passed up to `now`, as after a change of rate.
    fn skip_to(&mut self, now: u64) {
        (self.seen_second, self.seen_period) = (self.second(now), self.period(now));
    }

    fn update_irqf(&mut self) {
        let flags = self.ram[C] & !C_IRQF;
        let irqf = if flags & self.ram[B] & (C_PF | C_AF | C_UF) != 0 {
            C_IRQF
        } else {
            0
        };
        self.ram[C] = flags | irqf;
    }

    fn update_in_progress(&self, now: u64) -> u8 {
        match self.time {
            Time::Running { epoch }
                if (epoch + i128::from(now)).rem_euclid(SECOND) >= SECOND - UIP_LEAD =>
            {
                A_UIP
            }
            _ => 0,
        }
    }

    /// Whether the alarm matches one of the seconds `from..=to`. It repeats every day at the latest.
    fn alarm_within(&self, from: i128, to: i128) -> bool {
        let days = i128::from(SECONDS_A_DAY);
        (from.max(to - days + 1)..=to).any(|second| {
            let second = second.rem_euclid(days) as i64;
            let [hours, minutes, seconds] = self.encode_clock(second);
            [
                (HOURS_ALARM, hours),
                (MINUTES_ALARM, minutes),
                (SECONDS_ALARM, seconds),
            ]
            .into_iter()
            .all(|(at, value)| self.ram[at] >= DONT_CARE || self.ram[at] == value)
        })
    }

    /// Stops time, the registers showing `now`.
    fn stop(&mut self, now: u64) {
        if let Time::Running { epoch } = self.time {
            self.ram = self.time_registers(now);
            self.time = Time::Stopped {
                phase: (epoch + i128::from(now)).rem_euclid(SECOND),
            };
        }
    }

    /// Lets time go on from what the registers show, unless SET or the divider holds it.
    fn start_if_enabled(&mut self, now: u64) {
        let enabled = self.ram[B] & B_SET == 0 && self.ram[A] & A_DIVIDER == A_DIVIDER_32KHZ;
        if let (Time::Stopped { phase }, true) = (self.time, enabled) {
            let epoch = i128::from(self.decode_time()) * SECOND + phase - i128::from(now);
            self.time = Time::Running { epoch };
            self.skip_to(now);
        }
    }

    /// The whole RAM as it reads at `now`: time registers filled in.
    fn time_registers(&self, now: u64) -> [u8; RAM] {
        let mut registers = self.ram;
        if let Time::Stopped { .. } = self.time {
            return registers;
        }
        // The epoch was made from eight-bit registers or the host's clock: its seconds are far from i64's limits.
        let seconds = self.second(now) as i64;
        let days = seconds.div_euclid(SECONDS_A_DAY);
        let date = date_from_days(days);
        let clock = self.encode_clock(seconds.rem_euclid(SECONDS_A_DAY));
        [registers[HOURS], registers[MINUTES], registers[SECONDS]] = clock;
        // 1970-01-01 was a Thursday; Sunday is 1.
        registers[WEEKDAY] = self.encode((days + 4).rem_euclid(7) + 1);
        registers[DAY] = self.encode(date.day.into());
        registers[MONTH] = self.encode(date.month.into());
        registers[YEAR] = self.encode(date.year.rem_euclid(100));
        registers[CENTURY] = self.encode(date.year.div_euclid(100).rem_euclid(100));
        registers
    }

    /// Hours, minutes and seconds as the registers show a second of the day.
    fn encode_clock(&self, second: i64) -> [u8; 3] {
        let hour = second / 3600;
        let hours = if self.ram[B] & B_24_HOURS != 0 {
            self.encode(hour)
        } else {
            let after_noon = if hour >= 12 { PM } else { 0 };
            self.encode((hour + 11) % 12 + 1) | after_noon
        };
        [
            hours,
            self.encode(second / 60 % 60),
            self.encode(second % 60),
        ]
    }

    /// Seconds since 1970 that the registers show.
    fn decode_time(&self) -> i64 {
        let hours = self.ram[HOURS];
        let hour = if self.ram[B] & B_24_HOURS != 0 {
            self.decode(hours)
        } else {
            let after_noon = if hours & PM != 0 { 12 } else { 0 };
            self.decode(hours & !PM) % 12 + after_noon
        };
        let date = Date {
            year: self.decode(self.ram[CENTURY]) * 100 + self.decode(self.ram[YEAR]),
            month: self.decode(self.ram[MONTH]) as u8,
            day: self.decode(self.ram[DAY]) as u8,
        };
        days_from_date(date) * SECONDS_A_DAY
            + hour * 3600
            + self.decode(self.ram[MINUTES]) * 60
            + self.decode(self.ram[SECONDS])
    }

    /// A value below 100 in the data mode of register B.
    fn encode(&self, value: i64) -> u8 {
        let value = value as u8;
        if self.ram[B] & B_DM_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    /// The value of a register in the data mode of register B, 0 to 255.
    fn decode(&self, register: u8) -> i64 {
        let register = i64::from(register);
        if self.ram[B] & B_DM_BINARY != 0 {
            register
        } else {
            (register >> 4) * 10 + (register & 0xf)
        }
    }
}

fn put_memory_size(ram: &mut [u8; RAM], memory: u64) {
    let mut put = |at: usize, value: u64| {
        let value = u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
        ram[at..at + 2].copy_from_slice(&value);
    };
    put(BASE_KIB, 640);
    for at in EXTENDED_KIB {
        put(at, memory.saturating_sub(1 << 20) >> 10);
    }
    put(ABOVE_16M_64KIB, memory.saturating_sub(16 << 20) >> 16);
}
