//! [`Driver`]: a driver that does what it is told, right or wrong.

use std::sync::Arc;

use mmu::{GuestPhys, Memory};
use sbe::{Bus, Width};

use crate::{
    board::Board,
    clock::Clock,
    devices::{
        pc,
        pci::PciHost,
        virtio::{VirtioDevice, VirtioPci},
    },
};

/// A PC with one virtio device, and its driver.
pub struct Driver {
    pub board: Board,
    pub memory: Arc<Memory>,
    /// The index of the next available buffer.
    available: u16,
}

/// A descriptor: address, length, flags and the number of the next one.
pub type Descriptor = (u64, u32, u16, u16);

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT_DESC: u64 = 1 << 28;

/// Where the driver has its queue.
pub const TABLE: u64 = 0x10_0000;
pub const AVAILABLE: u64 = 0x10_1000;
pub const USED: u64 = 0x10_2000;
/// Free memory for buffers.
pub const BUFFER: u64 = 0x11_0000;
pub const RAM: u64 = 4 << 20;
/// The number of descriptors.
pub const SIZE: u16 = 16;

/// The registers in the BAR.
pub const BASE: u16 = 0xc000;
pub const ISR: u16 = 0x38;
pub const NOTIFY: u16 = 0x3c;
pub const CONFIG: u16 = 0x40;

pub const STATUS: u16 = 0x14;
pub const DRIVER_OK: u32 = 0x0f;
pub const NEEDS_RESET: u32 = 0x40;

impl Driver {
    /// A PC with `device`, which nobody has touched.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let memory = Memory::new(RAM).unwrap();
        Self::with(device, memory)
    }

    pub fn with(device: Box<dyn VirtioDevice>, memory: Arc<Memory>) -> Self {
        let (mut board, _) = pc(Clock::from_fn(|| 0), 0, Arc::clone(&memory));
        let mut pci = PciHost::new().unwrap();
        pci.add(VirtioPci::new(device, pci.doorbell()).unwrap())
            .unwrap();
        board.attach(&PciHost::resources(), Box::new(pci)).unwrap();
        let mut driver = Self {
            board,
            memory,
            available: 0,
        };
        driver.board.initialize_pics();
        driver
    }

    /// Configuration register of the device, a doubleword.
    pub fn pci_read(&mut self, register: u32) -> u32 {
        let address = 1 << 31 | 1 << 11 | register;
        self.board.port_write(0xcf8, Width::Dword, address);
        self.board.port_read(0xcfc, Width::Dword)
    }

    pub fn pci_write(&mut self, register: u32, value: u32) {
        let address = 1 << 31 | 1 << 11 | register;
        self.board.port_write(0xcf8, Width::Dword, address);
        self.board.port_write(0xcfc, Width::Dword, value);
    }

    pub fn read(&mut self, register: u16, width: Width) -> u32 {
        let value = self.board.port_read(BASE + register, width);
        value & u32::MAX >> (32 - 8 * width.bytes())
    }

    pub fn write(&mut self, register: u16, width: Width, value: u32) {
        self.board.port_write(BASE + register, width, value);
    }

    pub fn status(&mut self) -> u32 {
        self.read(STATUS, Width::Byte)
    }

    /// Resets the device and accepts `features`, up to FEATURES_OK. Returns whether the device agrees.
    pub fn negotiate(&mut self, features: u64) -> bool {
        // Ports and DMA on.
        self.pci_write(4, 5);
        self.available = 0;
        for status in [0, 1, 3] {
            self.write(STATUS, Width::Byte, status);
        }
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(0x08, Width::Dword, select);
            self.write(0x0c, Width::Dword, half);
        }
        self.write(STATUS, Width::Byte, 0x0b);
        self.status() & 8 != 0
    }

    /// Places queue `number` where the constants say, with cleared rings.
    pub fn place_queue(&mut self, number: u16) {
        for (address, len) in [(TABLE, 0x1000), (AVAILABLE, 0x1000), (USED, 0x1000)] {
            self.store(address, &vec![0; len]);
        }
        self.place_queue_at(number, SIZE, [TABLE, AVAILABLE, USED]);
    }

    pub fn place_queue_at(&mut self, number: u16, size: u16, addresses: [u64; 3]) {
        self.write(0x16, Width::Word, number.into());
        self.write(0x18, Width::Word, size.into());
        for (register, address) in [0x20, 0x28, 0x30].into_iter().zip(addresses) {
            self.write(register, Width::Dword, address as u32);
            self.write(register + 4, Width::Dword, (address >> 32) as u32);
        }
        self.write(0x1c, Width::Word, 1);
    }

    /// Brings the device up with `features` and queue `number` of it.
    pub fn start(&mut self, features: u64, number: u16) {
        assert!(self.negotiate(VERSION_1 | features));
        self.place_queue(number);
        self.write(STATUS, Width::Byte, DRIVER_OK);
        assert_eq!(self.status(), DRIVER_OK);
    }

    pub fn store(&self, address: u64, bytes: &[u8]) {
        self.memory.write(GuestPhys::new(address), bytes).unwrap();
    }

    pub fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read(GuestPhys::new(address), &mut bytes)
            .unwrap();
        bytes
    }

    pub fn u16_at(&self, address: u64) -> u16 {
        self.memory.load(GuestPhys::new(address)).unwrap()
    }

    /// Stores descriptors as a table at `address`.
    pub fn table(&self, address: u64, descriptors: &[Descriptor]) {
        let encoded = descriptors.iter().flat_map(|(buffer, len, flags, next)| {
            let parts = [
                &buffer.to_le_bytes()[..],
                &len.to_le_bytes(),
                &flags.to_le_bytes(),
                &next.to_le_bytes(),
            ];
            parts.concat()
        });
        self.store(address, &encoded.collect::<Vec<u8>>());
    }

    /// Makes the chain that begins at descriptor `head` available, without a notification.
    pub fn offer(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + 2 * u64::from(self.available % SIZE);
        self.store(slot, &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.store(AVAILABLE + 2, &self.available.to_le_bytes());
    }

    pub fn notify(&mut self, queue: u16) {
        self.write(NOTIFY, Width::Word, queue.into());
    }

    /// Makes `descriptors` the table, offers the first, and notifies queue 0.
    pub fn request(&mut self, descriptors: &[Descriptor]) {
        self.table(TABLE, descriptors);
        self.offer(0);
        self.notify(0);
    }

    /// The number of used buffers.
    pub fn used(&self) -> u16 {
        self.u16_at(USED + 2)
    }

    /// The head and the length of used buffer `index`.
    pub fn used_element(&self, index: u16) -> (u32, u32) {
        let at = USED + 4 + 8 * u64::from(index % SIZE);
        let load = |at| self.memory.load::<u32>(GuestPhys::new(at)).unwrap();
        (load(at), load(at + 4))
    }

    /// Whether the interrupt line is high, as the controllers tell the processor.
    pub fn is_interrupted(&mut self) -> bool {
        self.board.advance_devices();
        self.board.intr()
    }
}
