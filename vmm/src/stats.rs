//! [`Stats`]: the counts and times of a machine.

use std::{fmt, ops::RangeInclusive};

use irq::TimerStats;
use sbe::TranslationStats;

use crate::{kmod::ShadowStats, ports::PortCount};

/// Counts and times since the machine was switched on. The `Display` form is the report of `--stats`, several lines.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Instructions that the emulator executed. Translated code counts none.
    pub instructions: u64,
    /// Nanoseconds since the machine was switched on.
    pub time: u64,
    /// The part of [`Self::time`] in which the processor ran, its accesses to devices included.
    pub running: u64,
    /// The part of [`Self::time`] in which the processor waited in HLT.
    pub halted: u64,
    /// Exits of the processor from its run loop, by reason.
    pub exits: Exits,
    /// Interrupts that the processor acknowledged.
    pub interrupts: u64,
    /// The account of the timer's ticks.
    pub timer: TimerStats,
    /// Accesses to physical addresses without memory or device.
    pub mmio: u64,
    /// Accesses to I/O ports, by port.
    pub ports: Vec<(u16, PortCount)>,
    /// The ports at which somebody answers.
    pub connected: Vec<RangeInclusive<u16>>,
    /// The translator's counts, if there is one.
    pub translation: Option<TranslationStats>,
    /// The shadow that serves the translator's windows.
    pub shadow: ShadowStats,
}

/// Exits of the processor from its run loop, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// The budget of instructions was used up.
    pub budget: u64,
    /// The guest executed HLT.
    pub halt: u64,
    /// The board asked for a stop.
    pub stop: u64,
    /// An interrupt or exception was intercepted.
    pub intercept: u64,
}

const NS_PER_S: f64 = 1e9;

impl Stats {
    /// Millions of emulated instructions per second, the time in HLT not counted.
    pub fn mips(&self) -> f64 {
        let busy = self.time.saturating_sub(self.halted).max(1);
        self.instructions as f64 / (busy as f64 / NS_PER_S) / 1e6
    }
}

/// Converts nanoseconds to seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_S
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.translation {
            // Translated code counts no instructions, so there is no speed to report.
            Some(_) => writeln!(f, "emulated      {} instructions", self.instructions)?,
            None => {
                writeln!(f, "instructions  {}", self.instructions)?;
                writeln!(f, "speed         {:.1} MIPS while not halted", self.mips())?;
            }
        }
        writeln!(
            f,
            "time          {:.3} s: {:.3} s processor, {:.3} s halted",
            seconds(self.time),
            seconds(self.running),
            seconds(self.halted)
        )?;
        let Exits {
            budget,
            halt,
            stop,
            intercept,
        } = self.exits;
        writeln!(
            f,
            "exits         {budget} budget, {halt} halt, {stop} stop, {intercept} intercept"
        )?;
        if let Some(translation) = &self.translation {
            write_translation(f, translation)?;
            writeln!(f, "shadow        {}", self.shadow)?;
        }
        writeln!(f, "interrupts    {}", self.interrupts)?;
        let TimerStats {
            ticks,
            delivered,
            late,
            lost,
            doubled,
            waiting,
        } = self.timer;
        writeln!(
            f,
            "timer         {ticks} ticks: {delivered} delivered, {late} of them late and {doubled} doubled, {lost} lost, {waiting} waiting"
        )?;
        writeln!(f, "absent memory {} accesses", self.mmio)?;
        for &(port, PortCount { reads, writes }) in &self.ports {
            let connected = self.connected.iter().any(|ports| ports.contains(&port));
            let absent = if connected { "" } else { ", nobody there" };
            writeln!(
                f,
                "port {port:04x}     {reads} reads, {writes} writes{absent}"
            )?;
        }
        Ok(())
    }
}

/// Writes the translator's lines of the report.
fn write_translation(f: &mut fmt::Formatter<'_>, stats: &TranslationStats) -> fmt::Result {
    write!(
        f,
        "scanned       {} pages, {} fragments",
        stats.pages, stats.fragments
    )?;
    if let Some(translating) = stats.translating.0 {
        write!(f, " in {:.3} s", translating.as_secs_f64())?;
    }
    writeln!(f)?;
    if let Some(executing) = stats.executing.0 {
        let seconds = executing.as_secs_f64();
        writeln!(f, "emitted code  {seconds:.3} s of the processor's time")?;
    }
    writeln!(
        f,
        "translated    {} bytes to {}, {:.1} each",
        stats.guest_bytes,
        stats.host_bytes,
        stats.host_bytes as f64 / stats.guest_bytes.max(1) as f64
    )?;
    writeln!(
        f,
        "links         {}, {} of them between pages of programs without a guard",
        stats.links, stats.direct
    )?;
    writeln!(
        f,
        "invalidations {} changed, {} revalidated, {} evicted by a full cache {} times",
        stats.changed, stats.revalidated, stats.evicted, stats.cleared
    )?;
    let exits = &stats.exits;
    writeln!(
        f,
        "windows       {} opened, {} closed for their cost, {} host calls",
        stats.windows, stats.closed, stats.remaps
    )?;
    writeln!(
        f,
        "code exits    {} emulate, {} lookup, {} link, {} budget, {} FPU, {} table miss, {} window",
        exits.emulate,
        exits.lookup,
        exits.link,
        exits.budget,
        exits.load_fpu,
        exits.miss,
        exits.window
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mmu::KmodStats;
    use sbe::{CodeExits, TimeSpent};

    use super::*;

    #[test]
    fn an_emulator_reports_its_speed() {
        let stats = Stats {
            instructions: 6_000_000,
            time: 2_500_000_000,
            running: 1_900_000_000,
            halted: 500_000_000,
            timer: TimerStats {
                ticks: 11,
                delivered: 7,
                late: 2,
                lost: 4,
                doubled: 1,
                waiting: 3,
            },
            ..Stats::default()
        };
        let report = stats.to_string();
        let mut lines = report.lines();
        assert_eq!(lines.next(), Some("instructions  6000000"));
        assert_eq!(
            lines.next(),
            Some("speed         3.0 MIPS while not halted")
        );
        assert_eq!(
            lines.next(),
            Some("time          2.500 s: 1.900 s processor, 0.500 s halted")
        );
        assert!(report.contains(
            "\ntimer         11 ticks: 7 delivered, 2 of them late and 1 doubled, 4 lost, 3 waiting\n"
        ));
        assert!(!report.contains("translated"), "{report}");
    }

    #[test]
    fn a_translator_reports_what_it_did() {
        let stats = Stats {
            instructions: 7,
            translation: Some(TranslationStats {
                pages: 1,
                fragments: 2,
                guest_bytes: 30,
                host_bytes: 75,
                translating: TimeSpent(Some(Duration::from_millis(4))),
                executing: TimeSpent(Some(Duration::from_millis(1250))),
                links: 5,
                direct: 3,
                changed: 6,
                revalidated: 8,
                cleared: 9,
                evicted: 16,
                exits: CodeExits {
                    emulate: 10,
                    lookup: 11,
                    link: 12,
                    budget: 13,
                    load_fpu: 14,
                    miss: 15,
                    window: 17,
                },
                windows: 18,
                closed: 19,
                remaps: 20,
            }),
            shadow: ShadowStats::Kmod(Ok(KmodStats {
                faults: 20,
                around: 21,
                upgrades: 22,
                empty: 23,
                absent: 24,
                refused: 25,
                zaps: 26,
                held: 27,
            })),
            ..Stats::default()
        };
        let report = stats.to_string();
        for line in [
            "emulated      7 instructions",
            "scanned       1 pages, 2 fragments in 0.004 s",
            "emitted code  1.250 s of the processor's time",
            "translated    30 bytes to 75, 2.5 each",
            "links         5, 3 of them between pages of programs without a guard",
            "invalidations 6 changed, 8 revalidated, 16 evicted by a full cache 9 times",
            "code exits    10 emulate, 11 lookup, 12 link, 13 budget, 14 FPU, 15 table miss, 17 window",
            "shadow        kmod: 20 faults, 21 around, 22 upgrades, 23 empty, 24 absent, 25 refused, 26 zaps, 27 held",
            "windows       18 opened, 19 closed for their cost, 20 host calls",
        ] {
            assert!(report.lines().any(|l| l == line), "{report}");
        }
        assert!(!report.contains("MIPS"), "{report}");
    }

    #[test]
    fn the_shadow_is_named() {
        let report = |shadow| {
            let stats = Stats {
                translation: Some(TranslationStats::default()),
                shadow,
                ..Stats::default()
            };
            stats.to_string()
        };
        let unknown = ShadowStats::Kmod(Err("Operation not permitted (os error 1)".into()));
        for (shadow, line) in [
            (ShadowStats::Mmap, "\nshadow        mmap\n"),
            (
                unknown,
                "\nshadow        kmod: counts unknown: Operation not permitted (os error 1)\n",
            ),
        ] {
            let report = report(shadow);
            assert!(report.contains(line), "{report}");
        }
        assert!(!Stats::default().to_string().contains("shadow"));
    }

    #[test]
    fn nothing_translated_is_no_division_by_zero() {
        let stats = Stats {
            translation: Some(TranslationStats::default()),
            ..Stats::default()
        };
        assert!(
            stats
                .to_string()
                .contains("translated    0 bytes to 0, 0.0 each\n")
        );
    }
}
