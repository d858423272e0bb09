//! What a machine has done so far.

use std::fmt;

use crate::{board::is_connected, ports::PortCount};

/// Counts since the machine was switched on. The `Display` is the report of `--stats`, several lines.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Instructions executed.
    pub instructions: u64,
    /// Nanoseconds since the machine was switched on.
    pub time: u64,
    /// Of these, nanoseconds in which the processor waited in HLT.
    pub halted: u64,
    /// How often the processor left its run loop, by reason.
    pub exits: Exits,
    /// Interrupts acknowledged.
    pub interrupts: u64,
    /// Timer pulses, and how many of them found the last still waiting.
    pub timer: irq::TimerStats,
    /// Accesses to physical memory where there is none.
    pub mmio: u64,
    /// Accesses to I/O ports, by port.
    pub ports: Vec<(u16, PortCount)>,
}

/// How often the processor left its run loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Its budget of instructions was used up.
    pub budget: u64,
    /// HLT.
    pub halt: u64,
    /// The board asked for it.
    pub stop: u64,
}

const NS_PER_S: f64 = 1e9;

impl Stats {
    /// Million instructions per second of the time in which the processor did not wait.
    pub fn mips(&self) -> f64 {
        let busy = self.time.saturating_sub(self.halted).max(1);
        self.instructions as f64 / (busy as f64 / NS_PER_S) / 1e6
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instructions  {}", self.instructions)?;
        writeln!(
            f,
            "time          {:.3} s, {:.3} s of it halted",
            self.time as f64 / NS_PER_S,
            self.halted as f64 / NS_PER_S
        )?;
        writeln!(f, "speed         {:.1} MIPS while not halted", self.mips())?;
        let Exits { budget, halt, stop } = self.exits;
        writeln!(f, "exits         {budget} budget, {halt} halt, {stop} stop")?;
        writeln!(
            f,
            "interrupts    {}; timer pulses {}, {} of them lost",
            self.interrupts, self.timer.ticks, self.timer.lost
        )?;
        writeln!(f, "absent memory {} accesses", self.mmio)?;
        for &(port, PortCount { reads, writes }) in &self.ports {
            let absent = if is_connected(port) {
                ""
            } else {
                ", nobody there"
            };
            writeln!(
                f,
                "port {port:04x}     {reads} reads, {writes} writes{absent}"
            )?;
        }
        Ok(())
    }
}
