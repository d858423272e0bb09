//! The interrupt hardware of a PC, wired: the 8259A pair, and the 8254 with OUT0 on IRQ 0.
//!
//! How a machine uses it:
//! 1. Before a port access or a look at INTR, [`Chipset::advance`] to the present.
//! 2. Ports: [`Port::decode`] once, then [`Chipset::read`] and [`Chipset::write`].
//! 3. Devices drive their lines with [`Chipset::set_line`].
//! 4. While [`Chipset::intr`], a processor that accepts interrupts takes [`Chipset::acknowledge`]'s vector.
//! 5. A processor that waits sleeps until [`Chipset::next_deadline`] or until a device acts.
//!
//! The caller may come late: an OUT0 pulse that both rose and fell since the last call still requests its interrupt, because
//! the fall is withheld from IR0 until the request is taken or OUT0 rises again. Several pulses request one interrupt, as
//! they do on hardware that is kept from acknowledging; [`TimerStats`] counts what that swallows.

use std::fmt;

use crate::lines::{Irq, Level};
use crate::pic::{Pic, PicPort};
use crate::pit::{Channel, Pit, PitPort};

/// A byte-wide port of the chipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// A port of the interrupt controllers.
    Pic(PicPort),
    /// A port of the timer.
    Pit(PitPort),
}

impl Port {
    /// The register at I/O address `port`, or `None` when it is not the chipset's.
    #[must_use]
    pub const fn decode(port: u16) -> Option<Self> {
        if let Some(port) = PicPort::decode(port) {
            return Some(Self::Pic(port));
        }
        match PitPort::decode(port) {
            Some(port) => Some(Self::Pit(port)),
            None => None,
        }
    }
}

/// What became of the timer's pulses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerStats {
    /// Rising edges of OUT0 as time passed.
    pub ticks: u64,
    /// Those that got no interrupt of their own: the next edge found the request still latched, or OUT0 fell before the
    /// request was acknowledged.
    pub lost: u64,
}

/// The 8259A pair and the 8254 of a PC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chipset {
    pic: Pic,
    pit: Pit,
    /// OUT0 is low, but IR0 is kept high for a pulse that nobody could see yet.
    fall_withheld: bool,
    stats: TimerStats,
}

impl Chipset {
    /// The chipset after power-on at time 0: controllers not initialized, timer as [`Pit::new`] leaves it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one byte.
    pub fn read(&mut self, port: Port) -> u8 {
        match port {
            Port::Pic(port) => self.pic.read(port),
            Port::Pit(port) => self.pit.read(port),
        }
    }

    /// Writes one byte.
    pub fn write(&mut self, port: Port, value: u8) {
        match port {
            Port::Pic(port) => self.pic.write(port, value),
            Port::Pit(port) => self.write_pit(port, value),
        }
    }

    /// Drives device line `irq` to `level`. Line 0 belongs to the timer, which drives it as time passes.
    pub fn set_line(&mut self, irq: Irq, level: Level) {
        self.pic.set_line(irq, level);
    }

    /// Runs the timer up to `now_ns`, in nanoseconds since time 0. A time before the last one changes nothing.
    pub fn advance(&mut self, now_ns: u64) {
        let pending = self.pic.is_requested(Irq::TIMER);
        let edges = self.pit.advance(now_ns);
        if edges > 0 {
            self.raise_timer();
            self.stats.ticks += edges;
            self.stats.lost += edges - 1 + u64::from(pending);
        } else if !(self.fall_withheld && pending) {
            self.follow_out0();
            self.stats.lost += u64::from(pending && !self.pic.is_requested(Irq::TIMER));
        }
    }

    /// The processor's INTR pin.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.pic.intr()
    }

    /// Runs an interrupt acknowledge cycle and returns the vector; without a request, a default vector.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }

    /// Ends the service of the interrupt that was acknowledged with `vector`, see [`Pic::end_service`].
    pub fn end_service(&mut self, vector: u8) {
        self.pic.end_service(vector);
    }

    /// When the timer can raise the next interrupt, in nanoseconds since time 0. `None` while no write or line change is
    /// due: OUT0 stays as it is, or IRQ 0 is masked.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.pic.is_masked(Irq::TIMER) {
            None
        } else {
            self.pit.next_edge()
        }
    }

    /// What became of the timer's pulses since power-on.
    #[must_use]
    pub fn timer_stats(&self) -> TimerStats {
        self.stats
    }

    fn write_pit(&mut self, port: PitPort, value: u8) {
        let before = self.pit.out(Channel::Timer);
        self.pit.write(port, value);
        if self.pit.out(Channel::Timer) != before {
            self.follow_out0();
        }
    }

    /// OUT0 rose at least once since the last call.
    fn raise_timer(&mut self) {
        self.pic.set_line(Irq::TIMER, Level::Low);
        self.pic.set_line(Irq::TIMER, Level::High);
        self.fall_withheld = !self.pit.out(Channel::Timer).is_high();
    }

    fn follow_out0(&mut self) {
        self.pic.set_line(Irq::TIMER, self.pit.out(Channel::Timer));
        self.fall_withheld = false;
    }
}

/// The state of all of it, several lines.
impl fmt::Display for Chipset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.pic, self.pit)
    }
}
