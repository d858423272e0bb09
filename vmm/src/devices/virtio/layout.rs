//! The layout of a virtio function: its identity, its capabilities, and the structures in its I/O BAR (VIRTIO 1.2, 4.1.2 PCI
//! Device Discovery and 4.1.4 Virtio Structure PCI Capabilities).
//!
//! ```text
//!   BAR 0:  0x00 common configuration   0x38 ISR   0x3c notification   0x40 device configuration
//! ```

use std::ops::Range;

use crate::devices::pci::{ConfigSpace, Identity};

/// The BAR that holds all structures.
pub const BAR: usize = 0;
/// The size of the BAR in ports: the most that an I/O BAR can have.
pub const BAR_SIZE: u16 = 0x100;

/// The common configuration structure.
pub const COMMON: Range<u64> = 0x00..0x38;
/// The ISR status byte.
pub const ISR: u64 = 0x38;
/// The notification register, one for all queues: the driver writes the number of the queue.
pub const NOTIFY: u64 = 0x3c;
/// The device configuration structure.
pub const DEVICE: u64 = 0x40;
/// The largest device configuration structure.
pub const MOST_CONFIG: usize = BAR_SIZE as usize - DEVICE as usize;

/// The capability ID of vendors' own capabilities.
const VENDOR_SPECIFIC: u8 = 0x09;

const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// The length of a capability without what follows for its type.
const CAP: u8 = 16;

/// The offsets in the PCI configuration access capability.
const CAP_BAR: usize = 4;
const CAP_OFFSET: usize = 8;
const CAP_LENGTH: usize = 12;
const CAP_DATA: usize = 16;

/// PCI vendor ID of virtio, and the device ID of type 0.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// A subsystem ID that says no more than that the device is not a transitional one.
const SUBSYSTEM: (u16, u16) = (VENDOR, 0x1100);

/// The PCI configuration access capability, by which a driver reaches the BAR without its ports.
#[derive(Clone, Copy, Debug)]
pub struct Access(usize);

/// Creates the configuration registers of a function for a device of `device_type` with `config` bytes of configuration.
pub fn registers(device_type: u16, config: usize) -> (ConfigSpace, Access) {
    let identity = Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + device_type,
        revision: 1,
        class: class(device_type),
        subsystem: SUBSYSTEM,
    };
    let mut registers = ConfigSpace::new(identity)
        .io_bar(BAR, BAR_SIZE)
        .interrupt_pin();
    let mut add = |kind, offset: u64, length: u32, rest: &[u8]| {
        let header = [CAP + rest.len() as u8, kind, BAR as u8, 0, 0, 0];
        let (offset, length) = ((offset as u32).to_le_bytes(), length.to_le_bytes());
        let body = [&header[..], &offset, &length, rest].concat();
        registers.add_capability(VENDOR_SPECIFIC, &body)
    };
    add(COMMON_CFG, COMMON.start, COMMON.end as u32, &[]);
    // A multiplier of 0: all queues have the same register.
    add(NOTIFY_CFG, NOTIFY, 2, &[0; 4]);
    add(ISR_CFG, ISR, 1, &[]);
    if config > 0 {
        add(DEVICE_CFG, DEVICE, config.next_multiple_of(4) as u32, &[]);
    }
    let access = add(PCI_CFG, 0, 0, &[0; 4]);
    registers.set_writable(access + CAP_BAR, &[u8::MAX]);
    registers.set_writable(access + CAP_OFFSET, &[u8::MAX; CAP_DATA + 4 - CAP_OFFSET]);
    (registers, Access(access))
}

/// The class code of a device type.
fn class(device_type: u16) -> u32 {
    match device_type {
        1 => 0x02_00_00, // Ethernet controller
        2 => 0x01_80_00, // other mass storage
        3 => 0x07_80_00, // other communication
        _ => 0xff_00_00, // none of the classes
    }
}

impl Access {
    /// The offset of the data register in configuration space.
    pub fn data(self) -> usize {
        self.0 + CAP_DATA
    }

    /// Whether an access to configuration space touches the data register.
    pub fn is_touched(self, offset: usize, bytes: usize) -> bool {
        offset < self.data() + 4 && self.data() < offset + bytes
    }

    /// The offset in the BAR and the width of the access that the driver has described, if it is one that the device has to
    /// carry out (VIRTIO 1.2, 4.1.4.9 PCI configuration access capability).
    pub fn target(self, registers: &ConfigSpace) -> Option<(u64, u8)> {
        let bar = registers.read(self.0 + CAP_BAR, 1) as u8;
        let offset = registers.read(self.0 + CAP_OFFSET, 4);
        let length = registers.read(self.0 + CAP_LENGTH, 4);
        let carried_out = usize::from(bar) == BAR
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && offset < BAR_SIZE.into();
        carried_out.then_some((offset.into(), length as u8))
    }
}
