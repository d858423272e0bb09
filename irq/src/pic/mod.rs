//! The pair of 8259A interrupt controllers of a PC and its edge/level control registers (ELCR).
//!
//! The slave's INT output drives IR2 of the master; an acknowledge cycle (INTA) that selects an input listed in the
//! master's ICW3 goes on over the cascade lines to the slave of that identity. Both chips follow the Intel 8259A
//! datasheet (231468); the ELCR follow the PIIX (290562), ports 4D0h and 4D1h.
//!
//! Guarantees:
//! * [`Pic::intr`] is a function of the present requests, masks and services: a request that goes away before it is
//!   acknowledged takes INTR down with it.
//! * An acknowledge that finds no request returns the default level 7 and sets no in-service bit. When only the slave finds
//!   none, the master's in-service bit of the cascade input is set, and the guest owes the master an EOI, as on hardware.
//! * INTA is one step, so a request cannot vanish in its middle; a level driven on line 2 ([`Irq::CASCADE`], an open pin in
//!   a PC) or-ed with the slave's INT shows the same thing: the master sees a request, the slave has none.

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
/// Lines of one chip.
const INPUTS: u8 = 8;
/// What a processor reads in INTA when no controller drives the bus.
const FLOATING_BUS: u8 = 0xff;
/// Bits of 4D0h that can be set: IRQ 0, 1 and 2 are always edge triggered (PIIX 290562, ELCR1).
const MASTER_ELCR_WRITABLE: u8 = 0b1111_1000;
/// Bits of 4D1h that can be set: IRQ 8 and 13 are always edge triggered (PIIX 290562, ELCR2).
const SLAVE_ELCR_WRITABLE: u8 = 0b1101_1110;

/// A byte-wide port of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PicPort {
    /// 20h: the master with A0 = 0.
    MasterCommand,
    /// 21h: the master with A0 = 1.
    MasterData,
    /// A0h: the slave with A0 = 0.
    SlaveCommand,
    /// A1h: the slave with A0 = 1.
    SlaveData,
    /// 4D0h: edge (0) or level (1) of IRQ 0 to 7.
    MasterElcr,
    /// 4D1h: edge (0) or level (1) of IRQ 8 to 15.
    SlaveElcr,
}

impl PicPort {
    /// The register at I/O address `port`, or `None` when the pair does not decode it.
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

/// Master and slave 8259A, cascaded on IR2. Until the guest has written a chip's initialization words, that chip requests
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pic {
    master: Chip,
    slave: Chip,
    /// Level driven on line 2 from outside, or-ed with the slave's INT.
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
    /// The pair after power-on: not initialized, all lines low, all lines edge triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one byte. Reading acknowledges the highest request when a poll command (OCW3 P = 1) came before.
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

    /// Writes one byte: an initialization or operation command word, or an edge/level control register.
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

    /// Drives line `irq` to `level`. Driving a level that the line already has changes nothing.
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

    /// Makes `irq` level triggered, or edge triggered, in the edge/level control registers, as firmware does before it starts
    /// an operating system. The guest can change it there; initializing the controllers leaves it as it is.
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

    /// The INT output of the master, which is the processor's INTR pin.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.master.request().is_some()
    }

    /// Runs an interrupt acknowledge cycle and returns the vector (8259A datasheet, Interrupt Sequence).
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

    /// Ends the service of the interrupt that was acknowledged with `vector`, as the specific EOIs of its handler would. A
    /// vector that neither chip gives changes nothing.
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

    /// Whether `irq` has a request pending in its chip's Interrupt Request Register, masked or not.
    #[must_use]
    pub fn is_requested(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.irr() & (1 << input) != 0
    }

    /// Whether `irq` is masked in its chip's Interrupt Mask Register.
    #[must_use]
    pub fn is_masked(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.imr() & (1 << input) != 0
    }

    /// Whether `irq` is in service in its chip.
    #[must_use]
    pub fn is_in_service(&self, irq: Irq) -> bool {
        let (chip, input) = self.chip_of(irq);
        chip.isr() & (1 << input) != 0
    }

    /// How often `irq`'s chip acknowledged it since power-on, by INTA or by a poll.
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

    /// Lets `action` change the slave, then brings the cascade line up to date.
    fn with_slave<R>(&mut self, action: impl FnOnce(&mut Chip) -> R) -> R {
        let result = action(&mut self.slave);
        self.drive_cascade();
        result
    }

    /// The slave's INT goes low while it is acknowledged, so that a further request makes a new edge at the master.
    fn drop_cascade(&mut self) {
        self.master.set_input(CASCADE_INPUT, self.line2);
    }

    fn drive_cascade(&mut self) {
        let level = Level::from_active(self.line2.is_high() || self.slave.request().is_some());
        self.master.set_input(CASCADE_INPUT, level);
    }
}

/// A line for each chip, and INT's level.
impl fmt::Display for Pic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "8259A master  {}", self.master)?;
        writeln!(f, "8259A slave   {}", self.slave)?;
        let level = if self.intr() { "high" } else { "low" };
        writeln!(f, "INTR          {level}")
    }
}
