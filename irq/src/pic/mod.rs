//! The pair of 8259A interrupt controllers of a PC and its edge/level control registers (ELCR).
//!
//! The slave's INT output drives IR2 of the master. If an interrupt acknowledge (INTA) cycle selects an input that the
//! master's ICW3 lists, the slave with that identity on the cascade lines gives the vector. Both chips follow the Intel
//! 8259A datasheet (231468); the ELCR follow the PIIX datasheet (290562), at ports 0x4d0 and 0x4d1.
//!
//! Guarantees:
//! * [`Pic::intr`] depends only on the present IRR, IMR and ISR: if a request goes away before it is acknowledged, INTR
//!   goes low with it.
//! * An INTA cycle that finds no request gives the vector of level 7 and sets no bit in the ISR. If only the slave
//!   finds no request, the master's ISR bit of the cascade input is set, and the guest owes the master an EOI, as on
//!   hardware.
//! * An INTA cycle is one step, so a request cannot go away in the middle of it. The effect can still be produced by
//!   driving line 2 ([`Irq::CASCADE`], an open pin in a PC), which is or-ed with the slave's INT: the master then sees
//!   a request where the slave has none.

mod chip;
mod command;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lines::{Irq, Level};
use crate::state::StateError;
use chip::Chip;

/// The master's input that the slave's INT output drives.
const CASCADE_INPUT: u8 = Irq::CASCADE.number();
/// The number of inputs of one chip.
const INPUTS: u8 = 8;
/// The vector that a processor reads in an INTA cycle in which no controller drives the bus.
const FLOATING_BUS: u8 = 0xff;
/// The writable bits of port 0x4d0: IRQ 0, 1 and 2 are always edge triggered (PIIX 290562, ELCR1).
const MASTER_ELCR_WRITABLE: u8 = 0b1111_1000;
/// The writable bits of port 0x4d1: IRQ 8 and 13 are always edge triggered (PIIX 290562, ELCR2).
const SLAVE_ELCR_WRITABLE: u8 = 0b1101_1110;

/// A byte-wide port of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PicPort {
    /// Port 0x20: the master with A0 = 0.
    MasterCommand,
    /// Port 0x21: the master with A0 = 1.
    MasterData,
    /// Port 0xa0: the slave with A0 = 0.
    SlaveCommand,
    /// Port 0xa1: the slave with A0 = 1.
    SlaveData,
    /// Port 0x4d0: edge (0) or level (1) triggering of IRQ 0 to 7.
    MasterElcr,
    /// Port 0x4d1: edge (0) or level (1) triggering of IRQ 8 to 15.
    SlaveElcr,
}

impl PicPort {
    /// Returns the register at I/O address `port`, or `None` if the pair does not decode it.
    #[must_use]
    pub const fn decode(port: u16) -> Option<Self> {
        match port {
            0x20 => Some(Self::MasterCommand),
            0x21 => Some(Self::MasterData),
            0xa0 => Some(Self::SlaveCommand),
            0xa1 => Some(Self::SlaveData),
            0x4d0 => Some(Self::MasterElcr),
            0x4d1 => Some(Self::SlaveElcr),
            _ => None,
        }
    }
}

/// The error of [`Pic::set_level_triggered`] for a line that the ELCR cannot make level triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("IRQ {} cannot be level triggered", .0.number())]
pub struct AlwaysEdgeTriggered(pub Irq);

/// A master and a slave 8259A, cascaded on IR2. A chip requests nothing until the guest has written its initialization
/// command words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pic {
    master: Chip,
    slave: Chip,
    /// The level driven on line 2 from outside, which is or-ed with the slave's INT.
    line2: Level,
}

/// The saved state of a [`Pic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    master: Chip,
    slave: Chip,
    line2: Level,
}

/// Saving and restoring.
impl Pic {
    /// Saves the state of the pair.
    #[must_use]
    pub fn save(&self) -> PicState {
        let Self {
            master,
            slave,
            line2,
        } = self.clone();
        PicState {
            master,
            slave,
            line2,
        }
    }

    /// Restores a pair that continues exactly as the saved one.
    ///
    /// # Errors
    /// [`StateError`] if no pair can have been saved like this.
    pub fn restore(state: PicState) -> Result<Self, StateError> {
        let PicState {
            master,
            slave,
            line2,
        } = state;
        master.check(MASTER_ELCR_WRITABLE)?;
        slave.check(SLAVE_ELCR_WRITABLE)?;
        Ok(Self {
            master,
            slave,
            line2,
        })
    }
}

impl Pic {
    /// Creates the pair as it is after power-on: not initialized, all lines low and edge triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a byte from `port`. After a poll command (OCW3 P = 1) the read acknowledges the highest request.
    pub fn read(&mut self, port: PicPort) -> u8 {
        match port {
            PicPort::MasterCommand => self.master.read_command(),
            PicPort::MasterData => self.master.read_data(),
            PicPort::SlaveCommand => self.read_slave(Chip::read_command),
            PicPort::SlaveData => self.read_slave(Chip::read_data),
            PicPort::MasterElcr => self.master.elcr(),
            PicPort::SlaveElcr => self.slave.elcr(),
        }
    }

    /// Writes a byte to `port`: an initialization or operation command word, or an edge/level control register.
    pub fn write(&mut self, port: PicPort, value: u8) {
        match port {
            PicPort::MasterCommand => self.master.write_command(value),
            PicPort::MasterData => self.master.write_data(value),
            PicPort::SlaveCommand => self.with_slave(|slave| slave.write_command(value)),
            PicPort::SlaveData => self.with_slave(|slave| slave.write_data(value)),
            PicPort::MasterElcr => self.master.set_elcr(value & MASTER_ELCR_WRITABLE),
            PicPort::SlaveElcr => {
                self.with_slave(|slave| slave.set_elcr(value & SLAVE_ELCR_WRITABLE))
            }
        }
    }

    /// Drives line `irq` to `level`. Driving it to the level that it already has changes nothing.
    pub fn set_line(&mut self, irq: Irq, level: Level) {
        if irq == Irq::CASCADE {
            self.line2 = level;
            self.drive_cascade();
        } else if irq.number() < INPUTS {
            self.master.set_input(irq.number(), level);
        } else {
            self.with_slave(|slave| slave.set_input(irq.number() - INPUTS, level));
        }
    }

    /// Makes line `irq` level triggered or edge triggered, as firmware does in the ELCR before it starts an operating
    /// system. The guest can change this in the ELCR; initializing the controllers does not.
    ///
    /// # Errors
    /// IRQ 0, 1, 2, 8 and 13 cannot be level triggered.
    pub fn set_level_triggered(
        &mut self,
        irq: Irq,
        level_triggered: bool,
    ) -> Result<(), AlwaysEdgeTriggered> {
        let (port, writable) = if irq.number() < INPUTS {
            (PicPort::MasterElcr, MASTER_ELCR_WRITABLE)
        } else {
            (PicPort::SlaveElcr, SLAVE_ELCR_WRITABLE)
        };
        let bit = 1 << (irq.number() % INPUTS);
        if level_triggered && writable & bit == 0 {
            return Err(AlwaysEdgeTriggered(irq));
        }
        let others = self.read(port) & !bit;
        self.write(port, others | if level_triggered { bit } else { 0 });
        Ok(())
    }

    /// Whether the master's INT output is high, which is the processor's INTR pin.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.master.request().is_some()
    }

    /// Runs an INTA cycle and returns the vector (8259A datasheet, Interrupt Sequence).
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.accept() else {
            return self.master.default_vector();
        };
        if !self.master.has_slave_on(input) {
            return self.master.vector(input);
        }
        if !self.slave.answers_to(input) {
            return FLOATING_BUS;
        }
        self.drop_cascade();
        match self.with_slave(Chip::accept) {
            Some(level) => self.slave.vector(level),
            None => self.slave.default_vector(),
        }
    }

    /// Ends the service of the interrupt that was acknowledged with `vector`, as specific EOIs from its handler would.
    /// A vector that belongs to neither chip changes nothing.
    pub fn end_service(&mut self, vector: u8) {
        if let Some(level) = self.master.level_of(vector) {
            self.master.end(level);
        } else if let Some(level) = self.slave.level_of(vector) {
            self.with_slave(|slave| slave.end(level));
            if !self.slave.is_serving() {
                self.master.end(CASCADE_INPUT);
            }
        }
    }

    /// Whether `irq` has a request in the IRR of its chip, masked or not.
    #[must_use]
    pub fn is_requested(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.irr() & (1 << input) != 0
    }

    /// Whether `irq` is masked in the IMR of its chip.
    #[must_use]
    pub fn is_masked(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.imr() & (1 << input) != 0
    }

    /// The Interrupt Mask Registers, the slave's in the high byte; `None` until the guest has initialized both chips.
    #[must_use]
    pub fn masks(&self) -> Option<u16> {
        let is_ready = self.master.is_ready() && self.slave.is_ready();
        is_ready.then(|| u16::from_le_bytes([self.master.imr(), self.slave.imr()]))
    }

    /// Whether `irq` is in service in the ISR of its chip.
    #[must_use]
    pub fn is_in_service(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.isr() & (1 << input) != 0
    }

    /// The number of acknowledges of `irq` since power-on, by INTA cycles and polls.
    #[must_use]
    pub fn acknowledged(&self, irq: Irq) -> u64 {
        let (chip, input) = self.chip_of(irq);
        chip.acknowledged(input)
    }

    fn chip_of(&self, irq: Irq) -> (&Chip, u8) {
        if irq.number() < INPUTS {
            (&self.master, irq.number())
        } else {
            (&self.slave, irq.number() - INPUTS)
        }
    }

    fn read_slave(&mut self, read: fn(&mut Chip) -> u8) -> u8 {
        if self.slave.is_polled() {
            self.drop_cascade();
        }
        self.with_slave(read)
    }

    /// Lets `action` change the slave, then brings the cascade input up to date.
    fn with_slave<R>(&mut self, action: impl FnOnce(&mut Chip) -> R) -> R {
        let result = action(&mut self.slave);
        self.drive_cascade();
        result
    }

    /// Lowers the slave's INT, as it is during an acknowledge, so that a further request makes a new edge at the
    /// master.
    fn drop_cascade(&mut self) {
        self.master.set_input(CASCADE_INPUT, self.line2);
    }

    fn drive_cascade(&mut self) {
        let level = Level::from_active(self.line2.is_high() || self.slave.request().is_some());
        self.master.set_input(CASCADE_INPUT, level);
    }
}

/// Prints a line for each chip and one for INTR.
impl fmt::Display for Pic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "8259A master  {}", self.master)?;
        writeln!(f, "8259A slave   {}", self.slave)?;
        let level = if self.intr() { "high" } else { "low" };
        writeln!(f, "INTR          {level}")
    }
}
