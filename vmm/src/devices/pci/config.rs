//! [`ConfigSpace`]: the 256 bytes of configuration registers of a function (PCI Local Bus Specification 3.0, 6.1 and 6.2).
//!
//! ```text
//!   0x00 vendor    0x02 device       0x10–0x27 BARs              0x3c interrupt line
//!   0x04 command   0x06 status       0x2c subsystem ids          0x3d interrupt pin
//!   0x08 revision, class             0x34 ► first capability     0x40–0xff capabilities
//! ```
//!
//! A register is bytes with a mask of those bits that the guest can write. So a BAR tells its size when it is written with
//! ones, and what nobody implements reads as zeros.

use std::ops::RangeInclusive;

use crate::bus::DeviceStateError;

/// The configuration registers of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// The bits that the guest can write.
    writable: [u8; SIZE],
    /// The sizes of the I/O BARs, in ports.
    io_bars: [Option<u16>; BARS],
    /// The register that points to the next capability.
    link: usize,
    /// The first byte without a register.
    free: usize,
}

/// The registers that say what a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class, sub-class and programming interface, from the high byte down.
    pub class: u32,
    /// Subsystem vendor ID and subsystem ID.
    pub subsystem: (u16, u16),
}

/// The size of configuration space in bytes.
pub(super) const SIZE: usize = 256;
/// The number of BARs of a function that is no bridge.
pub(super) const BARS: usize = 6;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR_0: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const FIRST_CAPABILITY: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const HEADER: usize = 0x40;

/// Command, bit 0: the function answers at its I/O ports.
const IO_SPACE: u8 = 1 << 0;
/// Command, bit 1: the function answers at its memory addresses.
const MEMORY_SPACE: u8 = 1 << 1;
/// Command, bit 2: the function may access memory.
const BUS_MASTER: u8 = 1 << 2;
/// Command, bit 10, in the upper byte: the function does not drive its interrupt line.
const INTERRUPT_DISABLE: u8 = 1 << 2;
/// Status, bit 3: an interrupt is pending, disabled or not.
const INTERRUPT_STATUS: u8 = 1 << 3;
/// Status, bit 4: there is a list of capabilities.
const CAPABILITIES: u8 = 1 << 4;
/// A BAR, bit 0: for I/O ports.
const IO_BAR: u8 = 1 << 0;
/// The interrupt pin INTA#.
const INTA: u8 = 1;

impl ConfigSpace {
    /// Creates the registers of a function without BARs, interrupt and capabilities, as they are after a reset.
    pub fn new(identity: Identity) -> Self {
        let mut config = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            io_bars: [None; BARS],
            link: FIRST_CAPABILITY,
            free: HEADER,
        };
        let (subsystem_vendor, subsystem) = identity.subsystem;
        config.set(0, &identity.vendor.to_le_bytes());
        config.set(2, &identity.device.to_le_bytes());
        config.set(REVISION, &[identity.revision]);
        config.set(CLASS, &identity.class.to_le_bytes()[..3]);
        config.set(SUBSYSTEM, &subsystem_vendor.to_le_bytes());
        config.set(SUBSYSTEM + 2, &subsystem.to_le_bytes());
        config.set_writable(COMMAND, &[IO_SPACE | MEMORY_SPACE | BUS_MASTER]);
        config.set_writable(COMMAND + 1, &[INTERRUPT_DISABLE]);
        config
    }

    /// Adds a BAR for `ports` I/O ports, a power of two from 4 to 256.
    ///
    /// # Panics
    /// If there is no BAR `bar`, or the number is another.
    #[must_use]
    pub fn io_bar(mut self, bar: usize, ports: u16) -> Self {
        assert!(ports.is_power_of_two() && (4..=256).contains(&ports));
        self.io_bars[bar] = Some(ports);
        let register = BAR_0 + 4 * bar;
        self.set(register, &[IO_BAR]);
        self.set_writable(register, &(!u32::from(ports - 1)).to_le_bytes());
        self
    }

    /// Adds the interrupt pin INTA#.
    #[must_use]
    pub fn interrupt_pin(mut self) -> Self {
        self.set(INTERRUPT_PIN, &[INTA]);
        self.set_writable(INTERRUPT_LINE, &[u8::MAX]);
        self
    }

    /// Adds a capability with `id` and the bytes that follow its link, and returns its offset.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.free;
        self.set(self.link, &[at as u8]);
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.bytes[STATUS] |= CAPABILITIES;
        self.link = at + 1;
        self.free = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Sets bytes from `offset` on, whatever the guest can write there.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Sets the bits that the guest can write from `offset` on.
    ///
    /// # Panics
    /// If they reach beyond the end.
    pub fn set_writable(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Reads up to four bytes from `offset` on. Beyond the end there are ones.
    pub fn read(&self, offset: usize, bytes: usize) -> u32 {
        let mut value = [u8::MAX; 4];
        for (at, byte) in (offset..SIZE).zip(value.iter_mut().take(bytes)) {
            *byte = self.bytes[at];
        }
        u32::from_le_bytes(value)
    }

    /// Writes the low `bytes` bytes of `value`, four at most, from `offset` on, as the guest does: only writable bits change.
    pub fn write(&mut self, offset: usize, bytes: usize, value: u32) {
        let value = value.to_le_bytes().into_iter().take(bytes);
        for (at, byte) in (offset..SIZE).zip(value) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
        }
    }

    /// The sizes of the I/O BARs, with their numbers.
    pub(super) fn io_bars(&self) -> impl Iterator<Item = (usize, u16)> + use<> {
        let bars = self.io_bars.into_iter().enumerate();
        bars.filter_map(|(bar, ports)| Some((bar, ports?)))
    }

    /// Places an I/O BAR, as firmware does.
    pub(super) fn place_io_bar(&mut self, bar: usize, port: u16) {
        self.write(BAR_0 + 4 * bar, 4, port.into());
    }

    /// Tells software which line of the interrupt controllers the function drives, as firmware does.
    pub(super) fn set_interrupt_line(&mut self, irq: u8) {
        self.write(INTERRUPT_LINE, 1, irq.into());
    }

    /// The ports at which an I/O BAR answers: none while I/O is off, or the BAR is beyond the processor's ports.
    pub(super) fn ports(&self, bar: usize) -> Option<RangeInclusive<u16>> {
        let ports = self.io_bars.get(bar).copied().flatten()?;
        if self.bytes[COMMAND] & IO_SPACE == 0 {
            return None;
        }
        let base = self.read(BAR_0 + 4 * bar, 4) & !u32::from(ports - 1);
        let base = u16::try_from(base).ok()?;
        Some(base..=base | (ports - 1))
    }

    /// Whether the function may access memory.
    pub fn is_bus_master(&self) -> bool {
        self.bytes[COMMAND] & BUS_MASTER != 0
    }

    /// Whether the function may drive its interrupt line.
    pub(super) fn is_interrupt_enabled(&self) -> bool {
        self.bytes[COMMAND + 1] & INTERRUPT_DISABLE == 0
    }

    /// Shows in the status register whether an interrupt is pending.
    pub(super) fn set_interrupt_status(&mut self, pending: bool) {
        self.bytes[STATUS] &= !INTERRUPT_STATUS;
        if pending {
            self.bytes[STATUS] |= INTERRUPT_STATUS;
        }
    }

    /// The state to be saved: all registers.
    pub(super) fn save(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// Restores saved registers of a function with the same identity, BARs and capabilities.
    ///
    /// # Errors
    /// If a bit differs that the guest cannot write.
    pub(super) fn restore(&mut self, saved: &[u8]) -> Result<(), DeviceStateError> {
        let impossible = DeviceStateError::Impossible("PCI configuration registers");
        let bytes = <[u8; SIZE]>::try_from(saved).map_err(|_| impossible.clone())?;
        let mut fixed = bytes
            .iter()
            .zip(&self.bytes)
            .zip(&self.writable)
            .enumerate();
        let same = fixed.all(|(at, ((new, old), mask))| {
            let changing = if at == STATUS { INTERRUPT_STATUS } else { 0 };
            (new ^ old) & !mask & !changing == 0
        });
        if !same {
            return Err(impossible);
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 9,
        class: 0x01_02_03,
        subsystem: (0xabcd, 0xef01),
    };

    fn config() -> ConfigSpace {
        let mut config = ConfigSpace::new(IDENTITY).io_bar(1, 128).interrupt_pin();
        config.add_capability(9, &[4, 0xaa]);
        config.add_capability(9, &[5, 0xbb, 0xcc]);
        config
    }

    #[test]
    fn the_header_is_where_the_specification_has_it() {
        let config = config();
        assert_eq!(config.read(0, 4), 0x5678_1234);
        assert_eq!(config.read(8, 4), 0x01_02_03_09);
        assert_eq!(config.read(0x2c, 4), 0xef01_abcd);
        assert_eq!(config.read(0x0e, 1) as u8, 0, "header type 0, one function");
        assert_eq!(config.read(0x3d, 1) as u8, 1, "INTA#");
    }

    #[test]
    fn capabilities_are_a_list() {
        let config = config();
        assert_eq!(config.read(6, 2) as u16, 0x10, "there is a list");
        let first = config.read(0x34, 1) as u8;
        assert_eq!(config.read(first.into(), 4), 0xaa04_4409);
        assert_eq!(config.read(0x44, 4), 0xbb05_0009);
        assert_eq!(config.read(0x48, 1) as u8, 0xcc);
    }

    #[test]
    fn a_bar_tells_its_size_and_moves() {
        let mut config = config();
        config.write(0x14, 4, u32::MAX);
        assert_eq!(config.read(0x14, 4), 0xffff_ff81, "128 ports");
        config.write(4, 2, 1);
        assert_eq!(config.ports(1), None, "beyond the processor's ports");
        config.write(0x14, 4, 0xc0ff);
        assert_eq!(config.ports(1), Some(0xc080..=0xc0ff));
        config.write(0x14, 4, 0xff80);
        assert_eq!(config.ports(1), Some(0xff80..=0xffff));
        config.write(4, 2, 0);
        assert_eq!(config.ports(1), None, "off");
        assert_eq!(config.ports(0), None);
        config.write(0x10, 4, u32::MAX);
        assert_eq!(config.read(0x10, 4), 0, "no BAR");
    }

    proptest! {
        #[test]
        fn the_guest_changes_writable_bits_only(writes in proptest::collection::vec((0usize..300, 1usize..=4, any::<u32>()), 0..40)) {
            let fresh = config();
            let mut config = config();
            for (offset, bytes, value) in writes {
                config.write(offset, bytes, value);
                config.read(offset, bytes);
            }
            for at in 0..SIZE {
                prop_assert_eq!((config.bytes[at] ^ fresh.bytes[at]) & !fresh.writable[at], 0);
            }
            let mut other = fresh;
            other.restore(&config.save()).unwrap();
            prop_assert_eq!(other, config);
        }
    }

    #[test]
    fn hostile_registers_are_refused() {
        let mut config = config();
        let mut saved = config.save();
        assert!(config.restore(&saved[..255]).is_err());
        saved[0] ^= 1;
        assert!(config.restore(&saved).is_err());
        saved[0] ^= 1;
        saved[STATUS] ^= INTERRUPT_STATUS;
        config.restore(&saved).unwrap();
    }
}
