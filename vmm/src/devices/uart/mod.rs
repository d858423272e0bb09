//! A 16550A serial port, with flow control for the peer's bytes.
//!
//! ```text
//!   peer ──send()──► backlog ──► receiver's FIFO ──► guest      (while the guest asserts RTS and there is room)
//!   peer ◄─take_transmitted()── transmitter ◄─────── guest
//! ```
//!
//! Guarantees beyond the registers:
//! * No byte of the peer is lost by overrun: the peer waits while RTS is low, as a modem with hardware handshake does, and
//!   while the FIFO is full. Drivers clear the receiver before they raise RTS for the first time and may throttle with it
//!   later.
//! * Bytes come in bursts: the next burst is taken once the guest has read the last byte of this one. An interrupt
//!   handler that reads until nothing is left therefore comes to an end, however fast the peer is.
//! * The interrupt line is the level that the datasheet derives from what is pending *and* enabled, gated by OUT2 as a PC
//!   wires it; the identification register reports by priority and reading it clears no more than it reported.
//! * Only the receiver's time-out takes time, four characters at the bit rate of the divisor. It starts at the
//!   [`Uart::advance`] after the event that starts it, so that no access needs to know the time.
//!
//! A port that nobody has set up is as firmware leaves it: 9600 bits per second, eight bits, OUT2 on.
//!
//! National Semiconductor PC16550D datasheet, 8.0 Registers.

mod line;
mod modem;
mod receiver;
mod registers;
#[cfg(test)]
mod tests;
mod transmitter;

use std::collections::VecDeque;

use irq::Level;
use serde::{Deserialize, Serialize};

use crate::bus::DeviceStateError;
use line::Line;
use modem::Modem;
use receiver::{Character, Receiver};
use registers::{
    DATA, IER, IER_EDSSI, IER_ELSI, IER_ERBFI, IER_ETBEI, IER_WRITABLE, IIR_DATA, IIR_FCR,
    IIR_FIFOS, IIR_LINE_STATUS, IIR_MODEM_STATUS, IIR_NONE, IIR_THRE, IIR_TIME_OUT, LCR, LSR,
    LSR_TEMT, LSR_THRE, MCR, MSR, SCR,
};
use transmitter::Transmitter;

/// A 16550A serial port, which is also its saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uart {
    interrupt_enable: u8,
    line: Line,
    scratch: u8,
    receiver: Receiver,
    transmitter: Transmitter,
    modem: Modem,
    /// What the peer has sent and the receiver has not taken yet.
    backlog: VecDeque<Signal>,
    /// Whether the interrupt line has been low since this was last taken.
    #[serde(skip)]
    dipped: bool,
}

/// A signal of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Signal {
    Data(u8),
    Break,
}

/// The most bytes that the peer sends at once.
const BURST: usize = 256;

impl Uart {
    /// Checks a saved state.
    ///
    /// # Errors
    /// If it cannot be one of a port.
    pub fn check(&self) -> Result<(), DeviceStateError> {
        if self.interrupt_enable & !IER_WRITABLE != 0 {
            return Err(DeviceStateError::Impossible("interrupt enable"));
        }
        self.receiver.check()?;
        self.modem.check()
    }

    /// Reads the register at `offset`, 0 to 7, from the port's base.
    pub fn read(&mut self, offset: u8) -> u8 {
        match offset {
            DATA if self.line.selects_divisor() => self.line.divisor.to_le_bytes()[0],
            IER if self.line.selects_divisor() => self.line.divisor.to_le_bytes()[1],
            DATA => {
                let value = self.receiver.read();
                self.note_level();
                self.receive_backlog();
                value
            }
            IER => self.interrupt_enable,
            IIR_FCR => self.read_identification(),
            LCR => self.line.control,
            MCR => self.modem.control(),
            LSR => self.receiver.read_status() | LSR_THRE | LSR_TEMT,
            MSR => self.modem.read_status(),
            SCR => self.scratch,
            _ => u8::MAX,
        }
    }

    /// Writes the register at `offset`, 0 to 7, from the port's base.
    pub fn write(&mut self, offset: u8, value: u8) {
        let [low, high] = self.line.divisor.to_le_bytes();
        match offset {
            DATA if self.line.selects_divisor() => {
                self.line.divisor = u16::from_le_bytes([value, high]);
            }
            IER if self.line.selects_divisor() => {
                self.line.divisor = u16::from_le_bytes([low, value]);
            }
            DATA => self.transmit(value),
            IER => self.enable_interrupts(value & IER_WRITABLE),
            IIR_FCR => self.receiver.control(value),
            LCR => self.line.control = value,
            MCR => self.modem.set_control(value),
            SCR => self.scratch = value,
            // LSR, which is written in factory tests only, and MSR.
            _ => {}
        }
        self.note_level();
        self.receive_backlog();
    }

    /// Brings the receiver's time-out up to time `now` in nanoseconds.
    pub fn advance(&mut self, now: u64) {
        self.receiver.advance(now, self.line.character_time());
    }

    /// The time at which [`Self::advance`] next has something to do; 0 if that is now, and the last of all if never.
    pub fn due(&self) -> u64 {
        self.receiver.due()
    }

    /// The level of the interrupt line.
    pub fn interrupt(&self) -> Level {
        Level::from_active(self.modem.passes_interrupts() && self.identification() != IIR_NONE)
    }

    /// Takes whether the interrupt line has been low during the accesses since the last call, however high it is now: what
    /// ends an interrupt may be followed at once by the next, whose edge a controller has to see.
    pub fn take_dip(&mut self) -> bool {
        std::mem::take(&mut self.dipped)
    }

    /// The number of bytes that [`Self::send`] should be given at present: a burst, or none until the last one has been
    /// read.
    pub fn room(&self) -> usize {
        let unread = !self.backlog.is_empty() || !self.receiver.is_empty();
        if unread { 0 } else { BURST }
    }

    /// Sends `bytes` from the peer. Those above [`Self::room`] wait as the others do.
    pub fn send(&mut self, bytes: &[u8]) {
        self.backlog
            .extend(bytes.iter().map(|&byte| Signal::Data(byte)));
        self.receive_backlog();
    }

    /// Sends a break from the peer, after all bytes sent before.
    pub fn send_break(&mut self) {
        self.backlog.push_back(Signal::Break);
        self.receive_backlog();
    }

    /// Takes what the guest has transmitted since the last call.
    pub fn take_transmitted(&mut self) -> Vec<u8> {
        self.transmitter.take()
    }

    /// Notes the interrupt line if it is low.
    fn note_level(&mut self) {
        self.dipped |= self.interrupt() == Level::Low;
    }

    /// Moves what the peer has sent to the receiver, as far as there is room and the guest asserts RTS.
    fn receive_backlog(&mut self) {
        while self.modem.requests_to_send()
            && self.receiver.has_room()
            && let Some(signal) = self.backlog.pop_front()
        {
            self.receiver.receive(match signal {
                Signal::Data(data) => self.character(data),
                Signal::Break => Character {
                    data: 0,
                    errors: self.line.break_errors(),
                },
            });
        }
    }

    /// A character with the data bits that the line control register lets through.
    fn character(&self, data: u8) -> Character {
        Character {
            data: self.line.character(data),
            errors: 0,
        }
    }

    /// Writes the transmitter's holding register, which ends its interrupt. The character leaves at once: to the peer, to
    /// the receiver in loopback, or unseen under a break.
    fn transmit(&mut self, data: u8) {
        self.transmitter.acknowledge();
        self.note_level();
        let character = self.character(data);
        if self.modem.is_looped() {
            self.receiver.receive(character);
        } else if !self.line.is_broken() {
            self.transmitter.send(character.data);
        }
        self.transmitter.set_empty();
    }

    /// Writes the interrupt enable register. Enabling the transmitter's interrupt raises it, as the transmitter is empty;
    /// leaving it enabled does not (8.6 Interrupt Identification Register, Table IV).
    fn enable_interrupts(&mut self, enable: u8) {
        if enable & !self.interrupt_enable & IER_ETBEI != 0 {
            self.transmitter.set_empty();
        }
        self.interrupt_enable = enable;
    }

    /// Reads the identification register. "Transmitter empty" is cleared by having been reported; the others only by what
    /// they ask for.
    fn read_identification(&mut self) -> u8 {
        let identification = self.identification();
        if identification == IIR_THRE {
            self.transmitter.acknowledge();
        }
        let fifos = if self.receiver.fifo_enabled() {
            IIR_FIFOS
        } else {
            0
        };
        identification | fifos
    }

    /// The interrupt of the highest priority that is pending and enabled, as in bits 3 to 0 of the identification
    /// register. A time-out is told before the trigger level, whose bits it includes.
    fn identification(&self) -> u8 {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        if enabled(IER_ELSI) && self.receiver.has_errors() {
            IIR_LINE_STATUS
        } else if enabled(IER_ERBFI) && self.receiver.has_timed_out() {
            IIR_TIME_OUT
        } else if enabled(IER_ERBFI) && self.receiver.has_reached_trigger() {
            IIR_DATA
        } else if enabled(IER_ETBEI) && self.transmitter.is_pending() {
            IIR_THRE
        } else if enabled(IER_EDSSI) && self.modem.has_changed() {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }
}
