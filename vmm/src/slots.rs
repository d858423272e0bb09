//! Expansion slots: devices of the program that uses this library.
//!
//! A device answers at I/O ports that are free on the [board], and may drive an interrupt line that is. Ports are
//! bytes: a wider access is one access to each of the ports it covers.

use std::{fmt, ops::RangeInclusive};

use irq::{Chipset, Irq, Level};
use thiserror::Error;

use crate::board;

/// A device on the board.
///
/// ```
/// use vmm::{BootSource, Device, Kernel, StopReason, Vm, VmConfig, console::pipe};
///
/// /// Reads as a number that goes up by one each time.
/// struct Counter(u8);
///
/// impl Device for Counter {
///     fn read(&mut self, _offset: u16) -> u8 {
///         self.0 += 1;
///         self.0
///     }
///
///     fn write(&mut self, _offset: u16, value: u8) {
///         self.0 = value;
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = Kernel::flat(vec![
///     0xe4, 0x50, // in al, 50h
///     0xe4, 0x50, // in al, 50h
///     0xe6, 0xf4, // out F4h, al  ; ends the machine
/// ]);
/// let source = BootSource {
///     kernel: &kernel,
///     initrd: &[],
///     cmdline: "",
/// };
/// let mut vm = Vm::boot(&VmConfig::default(), &source)?;
/// vm.attach(0x50..=0x50, None, Counter(40))?;
/// let (mut line, _) = pipe()?;
/// assert!(matches!(vm.run(&mut line), StopReason::DebugExit(42)));
/// # Ok(())
/// # }
/// ```
///
/// The machine calls it on the thread that it runs on. A device that other threads have a part in shares its state with them;
/// when they have changed what [`Self::interrupt`] says, they call [`crate::Control::wake`].
pub trait Device: Send {
    /// The guest reads the port `offset` above the lowest.
    fn read(&mut self, offset: u16) -> u8;

    /// The guest writes the port `offset` above the lowest.
    fn write(&mut self, offset: u16, value: u8);

    /// The interrupt line as it is now. It is asked for after each access and at each slice of the machine. The controllers take
    /// a rising edge as a request, unless the guest has them take the level: a device keeps the line high until the guest has
    /// seen to it.
    fn interrupt(&self) -> Level {
        Level::Low
    }
}

/// Why a device was not attached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttachError {
    /// The range is empty.
    #[error("no ports: {:#06x} to {:#06x}", .0.start(), .0.end())]
    NoPorts(RangeInclusive<u16>),
    /// A device answers there, or the port is part of a wider register.
    #[error("port {0:#06x} is in use")]
    PortInUse(u16),
    /// The line is driven already.
    #[error("IRQ {} is in use", .0.number())]
    IrqInUse(Irq),
}

/// Lines that the board drives itself.
const OWN_LINES: [Irq; 5] = [Irq::TIMER, Irq::CASCADE, Irq::COM1, Irq::COM2, Irq::RTC];

/// The devices attached.
#[derive(Debug, Default)]
pub(crate) struct Slots(Vec<Slot>);

struct Slot {
    ports: RangeInclusive<u16>,
    irq: Option<Irq>,
    device: Box<dyn Device>,
}

impl Slots {
    /// Attaches a device.
    pub(crate) fn attach(
        &mut self,
        ports: RangeInclusive<u16>,
        irq: Option<Irq>,
        device: Box<dyn Device>,
    ) -> Result<(), AttachError> {
        if ports.is_empty() {
            return Err(AttachError::NoPorts(ports));
        }
        let in_use = |port| board::is_reserved(port) || self.find(port).is_some();
        if let Some(port) = ports.clone().find(|&port| in_use(port)) {
            return Err(AttachError::PortInUse(port));
        }
        let is_driven =
            |irq| OWN_LINES.contains(&irq) || self.0.iter().any(|slot| slot.irq == Some(irq));
        if let Some(irq) = irq.filter(|&irq| is_driven(irq)) {
            return Err(AttachError::IrqInUse(irq));
        }
        self.0.push(Slot { ports, irq, device });
        Ok(())
    }

    /// The slot that answers at `port`, and its offset there.
    pub(crate) fn find(&self, port: u16) -> Option<(usize, u16)> {
        let slot = self.0.iter().position(|slot| slot.ports.contains(&port))?;
        Some((slot, port - self.0[slot].ports.start()))
    }

    pub(crate) fn read(&mut self, slot: usize, offset: u16, chipset: &mut Chipset) -> u8 {
        let slot = &mut self.0[slot];
        let value = slot.device.read(offset);
        slot.drive(chipset);
        value
    }

    pub(crate) fn write(&mut self, slot: usize, offset: u16, value: u8, chipset: &mut Chipset) {
        let slot = &mut self.0[slot];
        slot.device.write(offset, value);
        slot.drive(chipset);
    }

    /// Drives all lines to what the devices say now.
    pub(crate) fn drive(&self, chipset: &mut Chipset) {
        for slot in &self.0 {
            slot.drive(chipset);
        }
    }

    /// The ports of the devices.
    pub(crate) fn ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.0.iter().map(|slot| slot.ports.clone())
    }
}

impl Slot {
    fn drive(&self, chipset: &mut Chipset) {
        if let Some(irq) = self.irq {
            chipset.set_line(irq, self.device.interrupt());
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("ports", &self.ports)
            .field("irq", &self.irq)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Device for Nothing {
        fn read(&mut self, _: u16) -> u8 {
            0
        }

        fn write(&mut self, _: u16, _: u8) {}
    }

    fn irq(number: u8) -> Irq {
        Irq::new(number).unwrap()
    }

    #[test]
    fn conflicts_are_named() {
        let mut slots = Slots::default();
        let mut attach = |ports, irq| slots.attach(ports, irq, Box::new(Nothing));
        #[expect(clippy::reversed_empty_ranges, reason = "what is to be refused")]
        let empty = 0x301..=0x300;
        for (ports, line, result) in [
            (0x300..=0x303, Some(irq(5)), Ok(())),
            (0x304..=0x304, None, Ok(())),
            (0x2fe..=0x300, None, Err(AttachError::PortInUse(0x2fe))),
            (0x303..=0x310, None, Err(AttachError::PortInUse(0x303))),
            (0x0..=0xffff, None, Err(AttachError::PortInUse(0x20))),
            (0xcf0..=0xcf8, None, Err(AttachError::PortInUse(0xcf8))),
            (
                0x310..=0x310,
                Some(irq(5)),
                Err(AttachError::IrqInUse(irq(5))),
            ),
            (
                0x310..=0x310,
                Some(Irq::COM1),
                Err(AttachError::IrqInUse(Irq::COM1)),
            ),
            (empty.clone(), None, Err(AttachError::NoPorts(empty))),
            (0xffff..=0xffff, Some(irq(7)), Ok(())),
        ] {
            assert_eq!(attach(ports.clone(), line), result, "{ports:x?}");
        }
        assert_eq!(slots.find(0x302), Some((0, 2)));
        assert_eq!(slots.find(0x304), Some((1, 0)));
        assert_eq!(slots.find(0x310), None);
    }
}
