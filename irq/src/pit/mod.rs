//! The 8254 programmable interval timer of a PC and port 0x61.
//!
//! Three counters run from one clock of 1,193,182 Hz. Counter 0 makes the timer interrupt, counter 1 the memory refresh
//! request, and counter 2 the speaker tone. Bit 0 of port 0x61 is counter 2's GATE; the other GATE pins are tied high.
//! The counters follow the Intel 8254 datasheet (231164).
//!
//! ```text
//!   clock ─┬─▶ counter 0 ── OUT0 ─▶ IRQ 0
//!          ├─▶ counter 1 ── OUT1 ─▶ toggles bit 4 of 0x61
//!          └─▶ counter 2 ── OUT2 ─▶ bit 5 of 0x61
//!   bit 0 of 0x61 ──▶ GATE2
//! ```
//!
//! Guarantees:
//! * Time passes only in [`Pit::advance`], which works in closed form: its cost does not depend on how much time
//!   passes.
//! * Clock pulse n happens at the first whole nanosecond not before n / 1,193,182 s. No error accumulates, so nothing
//!   drifts.
//! * Reads and writes act between the last clock pulse and the next.

mod clock;
mod control;
mod counter;
mod counting;

pub use clock::FREQUENCY_HZ;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lines::Level;
use crate::state::{StateError, check};
use clock::{pulses_until, time_of_pulse};
use control::{ControlWord, CounterCommand};
use counter::Counter;

/// The control word that firmware gives counter 1: mode 2, low byte only.
const REFRESH_CONTROL: u8 = 0b0101_0100;
/// The count that firmware gives counter 1: 18 pulses, a refresh request each 15 µs.
const REFRESH_COUNT: u8 = 18;

/// Port 0x61: GATE of counter 2.
const PORT_61_GATE2: u8 = 1 << 0;
/// Port 0x61: the bits that read back as written, which are GATE2, speaker data and the two NMI source masks.
const PORT_61_WRITABLE: u8 = 0b1111;
/// Port 0x61: the bit that toggles at each refresh request.
const PORT_61_REFRESH: u8 = 1 << 4;
/// Port 0x61: OUT of counter 2.
const PORT_61_OUT2: u8 = 1 << 5;

/// A byte-wide port of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PitPort {
    /// Ports 0x40, 0x41, 0x42: count and status of a counter.
    Counter(Channel),
    /// Port 0x43: control words, write only.
    Control,
    /// Port 0x61: GATE and OUT of counter 2, speaker, refresh.
    SystemControl,
}

impl PitPort {
    /// Returns the register at I/O address `port`, or `None` if the timer does not decode it.
    #[must_use]
    pub const fn decode(port: u16) -> Option<Self> {
        match port {
            0x40 => Some(Self::Counter(Channel::Timer)),
            0x41 => Some(Self::Counter(Channel::Refresh)),
            0x42 => Some(Self::Counter(Channel::Speaker)),
            0x43 => Some(Self::Control),
            0x61 => Some(Self::SystemControl),
            _ => None,
        }
    }

    /// The counter that writing `value` to this port programs anew, or `None` if it programs none.
    #[must_use]
    pub fn programs(self, value: u8) -> Option<Channel> {
        match (self, ControlWord::decode(value)) {
            (Self::Control, ControlWord::Counter(channel, CounterCommand::Program(_))) => {
                Some(channel)
            }
            _ => None,
        }
    }
}

/// One of the three counters, named by its use in a PC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Counter 0, which makes the timer interrupt.
    Timer = 0,
    /// Counter 1, which makes the memory refresh request.
    Refresh = 1,
    /// Counter 2, which makes the speaker tone.
    Speaker = 2,
}

impl Channel {
    const ALL: [Self; 3] = [Self::Timer, Self::Refresh, Self::Speaker];
}

/// The 8254 with port 0x61.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pit {
    counters: [Counter; 3],
    /// The number of clock pulses since the caller's time 0.
    pulses: u64,
    /// The writable bits of port 0x61.
    port_61: u8,
    /// Bit 4 of port 0x61.
    refresh: bool,
}

/// The saved state of a [`Pit`]. Its time is on the clock of the machine that saved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    counters: [Counter; 3],
    pulses: u64,
    port_61: u8,
    refresh: bool,
}

/// Saving and restoring.
impl Pit {
    /// Saves the state of the timer.
    #[must_use]
    pub fn save(&self) -> PitState {
        let Self {
            counters,
            pulses,
            port_61,
            refresh,
        } = self.clone();
        PitState {
            counters,
            pulses,
            port_61,
            refresh,
        }
    }

    /// Restores a timer that continues exactly as the saved one, if the caller's clock goes on from the time of the
    /// latest [`Self::advance`] of the saved one.
    ///
    /// # Errors
    /// [`StateError`] if no timer can have been saved like this.
    pub fn restore(state: PitState) -> Result<Self, StateError> {
        let PitState {
            counters,
            pulses,
            port_61,
            refresh,
        } = state;
        check(port_61 & !PORT_61_WRITABLE == 0, "port 0x61")?;
        for (counter, gate) in counters.iter().zip(gates(port_61)) {
            counter.check(gate)?;
        }
        Ok(Self {
            counters,
            pulses,
            port_61,
            refresh,
        })
    }

    /// Whether the counters have run up to `now_ns`.
    pub(crate) fn is_at(&self, now_ns: u64) -> bool {
        self.pulses == pulses_until(now_ns)
    }
}

/// The levels of the counters' GATE pins when port 0x61 holds `port_61`.
fn gates(port_61: u8) -> [Level; 3] {
    let gate2 = Level::from_active(port_61 & PORT_61_GATE2 != 0);
    [Level::High, Level::High, gate2]
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

impl Pit {
    /// Creates the timer at time 0 as firmware leaves it: counter 1 makes refresh requests, counters 0 and 2 are not
    /// programmed, and GATE2 is low.
    #[must_use]
    pub fn new() -> Self {
        let mut pit = Self {
            counters: gates(0).map(Counter::new),
            pulses: 0,
            port_61: 0,
            refresh: false,
        };
        pit.write(PitPort::Control, REFRESH_CONTROL);
        pit.write(PitPort::Counter(Channel::Refresh), REFRESH_COUNT);
        pit
    }

    /// Reads a byte from `port`. The control port is write only and reads as ones.
    pub fn read(&mut self, port: PitPort) -> u8 {
        match port {
            PitPort::Counter(channel) => self.counter(channel).read(),
            PitPort::Control => u8::MAX,
            PitPort::SystemControl => self.read_port_61(),
        }
    }

    /// Writes a byte to `port`.
    pub fn write(&mut self, port: PitPort, value: u8) {
        match port {
            PitPort::Counter(channel) => self.counter(channel).write(value),
            PitPort::Control => self.write_control(value),
            PitPort::SystemControl => {
                self.port_61 = value & PORT_61_WRITABLE;
                let [.., gate2] = gates(value);
                self.counter(Channel::Speaker).set_gate(gate2);
            }
        }
    }

    /// Runs the counters up to `now_ns`, in nanoseconds since time 0, and returns how often OUT0 rose meanwhile. A time
    /// before the latest one changes nothing.
    pub fn advance(&mut self, now_ns: u64) -> u64 {
        let pulses = pulses_until(now_ns);
        let elapsed = pulses.saturating_sub(self.pulses);
        self.pulses += elapsed;
        let [timer, refresh, speaker] = &mut self.counters;
        speaker.clock(elapsed);
        self.refresh ^= refresh.clock(elapsed) % 2 != 0;
        timer.clock(elapsed)
    }

    /// The level of a counter's OUT pin.
    #[must_use]
    pub fn out(&self, channel: Channel) -> Level {
        self.counters[channel as usize].out()
    }

    /// The time at which OUT0 rises next, in nanoseconds since time 0: the least time for which [`Pit::advance`] will
    /// report an edge. `None` if it will not rise before something is written, or within the 584 years that 64 bits of
    /// nanoseconds hold.
    #[must_use]
    pub fn next_edge(&self) -> Option<u64> {
        let distance = self.counters[Channel::Timer as usize].pulses_to_rise()?;
        time_of_pulse(self.pulses.checked_add(distance)?)
    }

    fn counter(&mut self, channel: Channel) -> &mut Counter {
        &mut self.counters[channel as usize]
    }

    fn read_port_61(&self) -> u8 {
        let refresh = if self.refresh { PORT_61_REFRESH } else { 0 };
        let out2 = if self.out(Channel::Speaker).is_high() {
            PORT_61_OUT2
        } else {
            0
        };
        self.port_61 | refresh | out2
    }

    fn write_control(&mut self, value: u8) {
        match ControlWord::decode(value) {
            ControlWord::Counter(channel, CounterCommand::Latch) => {
                self.counter(channel).latch_count()
            }
            ControlWord::Counter(channel, CounterCommand::Program(format)) => {
                self.counter(channel).program(format)
            }
            ControlWord::ReadBack(read_back) => {
                for channel in Channel::ALL
                    .into_iter()
                    .filter(|&channel| read_back.selects(channel))
                {
                    self.counter(channel).read_back(read_back);
                }
            }
        }
    }
}

/// Prints a line for each counter.
impl fmt::Display for Pit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, counter) in self.counters.iter().enumerate() {
            writeln!(f, "8254 counter {number}  {counter}")?;
        }
        Ok(())
    }
}
