//! MC146818A real-time clock and CMOS RAM behind ports 0x70 and 0x71, interrupt line IRQ 8.
//!
//! ```text
//!  0x00–0x09 time and alarm     0x0a–0x0d registers A–D     0x0e–0x7f RAM (0x32 century)
//!
//!  crystal ──► divider ──┬──► seconds ──► updates, unless SET ──► time registers, alarm
//!            (A: DV, RS) └──► periods ──► periodic interrupt
//! ```
//!
//! Nothing is counted before somebody looks: the divider knows how many seconds have ended, and the time registers catch up.
//! So the clock neither drifts from the caller's nor needs to be called at all to be right. An update takes no time.
//!
//! The chip's successors in PCs count the century as well, and so does this one. Square wave has no pin.
//!
//! Motorola MC146818A datasheet, "Address Map" and "Registers".

mod counters;
mod device;
mod divider;
mod registers;
#[cfg(test)]
mod tests;

use irq::Level;

use counters::Counters;
use divider::{Divider, SECOND};
use registers::{
    A, A_DIVIDER, A_DIVIDER_32KHZ, A_RATE, A_RATE_1024HZ, A_UIP, B, B_24_HOURS, B_AIE, B_PIE,
    B_SET, B_UIE, C, C_AF, C_IRQF, C_PF, C_UF, D, D_VRT, RAM,
};

/// A real-time clock and its RAM.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    counters: Counters,
    divider: Divider,
    /// The divider's seconds and periods up to which registers and flags have been brought.
    seen_second: i128,
    seen_period: i128,
    /// The time before which no second or period ends, derived from the rest; 0 when it is not known.
    quiet_until: u64,
}

/// CMOS RAM that a BIOS fills in: memory sizes (IBM PC/AT Technical Reference, "CMOS RAM Address Map", and what later
/// BIOSes added).
const BASE_KIB: usize = 0x15;
const EXTENDED_KIB: [usize; 2] = [0x17, 0x30];
const ABOVE_16M_64KIB: usize = 0x34;
/// Three bytes, of emulators' BIOSes: SeaBIOS, src/hw/rtc.h, `CMOS_MEM_HIGHMEM_LOW`.
const ABOVE_4G_64KIB: usize = 0x5b;

impl Rtc {
    /// Creates a clock that shows `unix_ns` (nanoseconds since 1970-01-01 00:00 UTC) at the caller's time 0, in a machine whose RAM
    /// below 4 GiB ends at `low_end`, with `above_4g` bytes from there on.
    pub fn new(unix_ns: i128, low_end: u64, above_4g: u64) -> Self {
        let mut ram = [0; RAM];
        ram[A] = A_DIVIDER_32KHZ | A_RATE_1024HZ;
        ram[B] = B_24_HOURS;
        ram[D] = D_VRT;
        put_memory_size(&mut ram, low_end, above_4g);
        let mut counters = Counters {
            ram,
            fell_back: false,
        };
        // No host's clock is near the limits of 64 bits.
        counters.set_time(unix_ns.div_euclid(SECOND) as i64);
        Self::with(0, counters, Divider::Running { offset: unix_ns }, 0)
    }

    /// A clock that is up to date at time `now`.
    fn with(index: u8, counters: Counters, divider: Divider, now: u64) -> Self {
        let mut rtc = Self {
            index,
            counters,
            divider,
            seen_second: 0,
            seen_period: 0,
            quiet_until: 0,
        };
        rtc.skip_to(now);
        rtc
    }

    /// Writes the index register, port 0x70. Bit 7, the PC's NMI mask, does nothing: there is no NMI source.
    pub fn select(&mut self, index: u8) {
        self.index = index & (RAM as u8 - 1);
    }

    /// Reads the register selected, port 0x71, at time `now` in nanoseconds.
    pub fn read(&mut self, now: u64) -> u8 {
        self.advance(now);
        let index = usize::from(self.index);
        match index {
            A if !self.is_set() && self.divider.is_near_update(now) => self.get(A) | A_UIP,
            C => std::mem::replace(self.register(C), 0),
            _ => self.get(index),
        }
    }

    /// Writes the register selected, port 0x71, at time `now` in nanoseconds.
    pub fn write(&mut self, now: u64, value: u8) {
        self.advance(now);
        self.quiet_until = 0;
        match usize::from(self.index) {
            A => {
                *self.register(A) = value & !A_UIP;
                self.divider.hold(value & A_DIVIDER != A_DIVIDER_32KHZ, now);
                self.skip_to(now);
            }
            B => {
                // SET ends updates and, when it goes on, their interrupt.
                let ends_updates = value & B_SET != 0 && !self.is_set();
                *self.register(B) = if ends_updates { value & !B_UIE } else { value };
                self.update_irqf();
            }
            C | D => {}
            index => *self.register(index) = value,
        }
    }

    /// Brings time registers and interrupt flags up to time `now` in nanoseconds.
    pub fn advance(&mut self, now: u64) {
        if now < self.quiet_until {
            return;
        }
        let (second, period) = (self.divider.second(now), self.period(now));
        if second > self.seen_second && !self.is_set() {
            *self.register(C) |= C_UF;
            // Fewer than the caller's clock has.
            if self.counters.update((second - self.seen_second) as i64) {
                *self.register(C) |= C_AF;
            }
        }
        if period > self.seen_period {
            *self.register(C) |= C_PF;
        }
        (self.seen_second, self.seen_period) = (second, period);
        self.update_irqf();
        let next = earliest([self.divider.next_second(now), self.next_period(now)]);
        self.quiet_until = next.unwrap_or(u64::MAX);
    }

    /// The interrupt line, as of the last call to [`Self::advance`].
    pub fn interrupt(&self) -> Level {
        Level::from_active(self.get(C) & C_IRQF != 0)
    }

    /// The next time in nanoseconds at which the interrupt line may rise by itself; none if it is high or nothing is
    /// enabled.
    pub fn next_deadline(&self, now: u64) -> Option<u64> {
        if self.get(C) & C_IRQF != 0 {
            return None;
        }
        let enabled = |enables: u8| self.get(B) & enables != 0;
        let updates = enabled(B_UIE | B_AIE) && !self.is_set();
        earliest([
            self.divider.next_second(now).filter(|_| updates),
            self.next_period(now).filter(|_| enabled(B_PIE)),
        ])
    }

    fn get(&self, index: usize) -> u8 {
        self.counters.ram[index]
    }

    fn register(&mut self, index: usize) -> &mut u8 {
        &mut self.counters.ram[index]
    }

    /// Whether register B's SET bit holds back updates.
    fn is_set(&self) -> bool {
        self.get(B) & B_SET != 0
    }

    /// The number of periods of the periodic interrupt that have ended; constant while there is none.
    fn period(&self, now: u64) -> i128 {
        let cycles = self.period_cycles();
        cycles.map_or(self.seen_period, |cycles| self.divider.period(cycles, now))
    }

    /// The end of the present period on the caller's clock.
    fn next_period(&self, now: u64) -> Option<i128> {
        self.divider.next_period(self.period_cycles()?, now)
    }

    /// The period of the periodic interrupt in cycles of the crystal (datasheet, "Periodic Interrupt Rate").
    fn period_cycles(&self) -> Option<i128> {
        match self.get(A) & A_RATE {
            0 => None,
            // The two shortest periods do not exist at this crystal and come out as longer ones.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Ignores the seconds and periods that have ended up to `now`, as after a change of rate.
    fn skip_to(&mut self, now: u64) {
        (self.seen_second, self.seen_period) = (self.divider.second(now), self.period(now));
    }

    fn update_irqf(&mut self) {
        let flags = self.get(C) & !C_IRQF;
        let interrupts = flags & self.get(B) & (C_PF | C_AF | C_UF) != 0;
        *self.register(C) = if interrupts { flags | C_IRQF } else { flags };
    }
}

/// The earliest of these times on the caller's clock, if it ever comes.
fn earliest(times: [Option<i128>; 2]) -> Option<u64> {
    let at = times.into_iter().flatten().min()?;
    u64::try_from(at).ok()
}

fn put_memory_size(ram: &mut [u8; RAM], low_end: u64, above_4g: u64) {
    let mut put = |at: usize, value: u64| {
        let value = u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
        ram[at..at + 2].copy_from_slice(&value);
    };
    put(BASE_KIB, 640);
    for at in EXTENDED_KIB {
        put(at, low_end.saturating_sub(1 << 20) >> 10);
    }
    put(ABOVE_16M_64KIB, low_end.saturating_sub(16 << 20) >> 16);
    let high = u32::to_le_bytes((above_4g >> 16).min(0xff_ffff) as u32);
    ram[ABOVE_4G_64KIB..ABOVE_4G_64KIB + 3].copy_from_slice(&high[..3]);
}
