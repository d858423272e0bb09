//! [`Guest`]: a driver of the console device that has all queues, and does what it is told.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::fd::OwnedFd,
    sync::Arc,
};

use mmu::Memory;

use crate::devices::virtio::{
    VirtioConsole,
    tests::{
        driver::{Driver, EVENT_IDX, SIZE, STATUS, VERSION_1, WRITE},
        echo::wait,
    },
};
use sbe::Width;

/// The events of control messages.
pub const DEVICE_READY: u16 = 0;
pub const PORT_ADD: u16 = 1;
pub const PORT_REMOVE: u16 = 2;
pub const PORT_READY: u16 = 3;
pub const CONSOLE_PORT: u16 = 4;
pub const RESIZE: u16 = 5;
pub const PORT_OPEN: u16 = 6;
pub const PORT_NAME: u16 = 7;

pub const F_SIZE: u64 = 1 << 0;
pub const F_MULTIPORT: u64 = 1 << 1;

/// The control queues.
pub const TO_DRIVER: u16 = 2;
pub const TO_DEVICE: u16 = 3;

pub const RAM: u64 = 32 << 20;
/// The rings of queue N, the table first, begin at the N-th multiple of `RING` from here.
const RINGS: u64 = 0x10_0000;
const RING: u64 = 0x3000;
/// The buffers of queue N, one for each descriptor, begin at the N-th multiple of `BUFFERS` from here.
const ALL_BUFFERS: u64 = 0x40_0000;
const BUFFERS: u64 = SIZE as u64 * BUFFER;
/// The room of a buffer in bytes.
pub const BUFFER: u64 = 32 << 10;
/// The length of a receive buffer, as Linux's are.
pub const PAGE: u32 = 4096;

/// A message of the device's: port, event, value, and what follows.
pub type Told = (u32, u16, u16, Vec<u8>);

/// A guest with a console device.
pub struct Guest {
    pub driver: Driver,
    /// For each queue, how many buffers were offered, and how many used ones were seen.
    pub queues: Vec<(u16, u16)>,
}

/// The receive queue of a port.
pub fn receive(port: u16) -> u16 {
    if port == 0 { 0 } else { 2 * port + 2 }
}

/// The transmit queue of a port.
pub fn transmit(port: u16) -> u16 {
    receive(port) + 1
}

/// A pipe whose one end is to be the device's.
pub fn pipe() -> (PipeReader, PipeWriter) {
    io::pipe().unwrap()
}

/// Bytes that differ from those at most other places.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 3 + at / 509 + at / 65_521) as u8)
        .collect()
}

/// A file with `bytes`, to be read.
pub fn file(bytes: &[u8]) -> OwnedFd {
    use std::io::{Seek, Write};
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file.into()
}

impl Guest {
    /// A guest whose driver has negotiated `features` and given no buffers.
    pub fn start(device: VirtioConsole, features: u64) -> Self {
        let memory = Memory::new(RAM).unwrap();
        let mut guest = Self::with(Driver::with(Box::new(device), memory));
        guest.probe(features);
        guest
    }

    /// A guest whose driver has seen all ports, opened them and given buffers.
    pub fn open(device: VirtioConsole) -> Self {
        let mut guest = Self::start(device, F_MULTIPORT | F_SIZE | EVENT_IDX);
        guest.open_all();
        guest
    }

    pub fn with(driver: Driver) -> Self {
        let mut guest = Self {
            driver,
            queues: Vec::new(),
        };
        guest.driver.pci_write(4, 5);
        let count = guest.driver.read(0x12, Width::Word);
        guest.queues = vec![(0, 0); count as usize];
        guest
    }

    /// Resets the device and brings it up again.
    pub fn probe(&mut self, features: u64) {
        assert!(self.driver.negotiate(VERSION_1 | features));
        for queue in 0..self.queues.len() as u16 {
            let at = RINGS + u64::from(queue) * RING;
            self.driver.store(at, &vec![0; RING as usize]);
            let rings = [at, at + 0x1000, at + 0x2000];
            self.driver.place_queue_at(queue, SIZE, rings);
            self.queues[usize::from(queue)] = (0, 0);
        }
        self.driver.write(STATUS, Width::Byte, 0xf);
    }

    pub fn ports(&self) -> u16 {
        self.queues.len() as u16 / 2 - 1
    }

    /// Greets the device, and opens all ports that it tells of, with buffers for input.
    pub fn open_all(&mut self) {
        self.fill(TO_DRIVER, PAGE);
        self.tell(u32::MAX, DEVICE_READY, 1);
        for (port, event, ..) in self.told() {
            assert_eq!(event, PORT_ADD);
            self.tell(port, PORT_READY, 1);
            self.tell(port, PORT_OPEN, 1);
            self.fill(receive(port as u16), PAGE);
        }
        self.told();
    }

    fn ring(queue: u16) -> u64 {
        RINGS + u64::from(queue) * RING
    }

    pub fn buffer(queue: u16, slot: u16) -> u64 {
        ALL_BUFFERS + u64::from(queue) * BUFFERS + u64::from(slot) * BUFFER
    }

    /// Makes the buffer `slot` of a queue available with a length and flags.
    pub fn offer(&mut self, queue: u16, slot: u16, len: u32, flags: u16) {
        let ring = Self::ring(queue);
        let descriptor = (Self::buffer(queue, slot), len, flags, 0);
        self.driver
            .table(ring + 16 * u64::from(slot), &[descriptor]);
        let (offered, _) = &mut self.queues[usize::from(queue)];
        let at = ring + 0x1000 + 4 + 2 * u64::from(*offered % SIZE);
        *offered = offered.wrapping_add(1);
        let offered = *offered;
        self.driver.store(at, &slot.to_le_bytes());
        self.driver.store(ring + 0x1002, &offered.to_le_bytes());
        // An interrupt for each used buffer, from the next one on.
        let (_, seen) = self.queues[usize::from(queue)];
        self.driver
            .store(ring + 0x1004 + 2 * u64::from(SIZE), &seen.to_le_bytes());
    }

    /// Gives all buffers of a receive queue.
    pub fn fill(&mut self, queue: u16, len: u32) {
        for slot in 0..SIZE {
            self.offer(queue, slot, len, WRITE);
        }
        self.driver.notify(queue);
    }

    /// The next used buffer of a queue: its number, and the bytes that the device has written.
    pub fn used(&mut self, queue: u16) -> Option<(u16, Vec<u8>)> {
        let ring = Self::ring(queue);
        let (_, seen) = &mut self.queues[usize::from(queue)];
        if self.driver.u16_at(ring + 0x2002) == *seen {
            return None;
        }
        let at = ring + 0x2004 + 8 * u64::from(*seen % SIZE);
        *seen = seen.wrapping_add(1);
        let seen = *seen;
        self.driver
            .store(ring + 0x1004 + 2 * u64::from(SIZE), &seen.to_le_bytes());
        let slot = self.driver.u16_at(at);
        let len = self.driver.bytes(at + 4, 4);
        let len = u32::from_le_bytes(len.try_into().unwrap());
        Some((
            slot,
            self.driver.bytes(Self::buffer(queue, slot), len as usize),
        ))
    }

    /// Passes over all used buffers of a queue, whatever they say, and returns how many there were.
    pub fn skip_used(&mut self, queue: u16) -> u16 {
        let used = self.driver.u16_at(Self::ring(queue) + 0x2002);
        let (_, seen) = &mut self.queues[usize::from(queue)];
        used.wrapping_sub(std::mem::replace(seen, used))
    }

    /// Waits for the next used buffer of a queue.
    pub fn wait_used(&mut self, queue: u16) -> (u16, Vec<u8>) {
        loop {
            if let Some(used) = self.used(queue) {
                return used;
            }
            wait(&mut self.driver);
        }
    }

    /// Sends a control message.
    pub fn tell(&mut self, port: u32, event: u16, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        self.tell_bytes(&message);
    }

    /// Sends bytes as a control message.
    pub fn tell_bytes(&mut self, message: &[u8]) {
        let slot = self.queues[usize::from(TO_DEVICE)].0 % SIZE;
        self.driver.store(Self::buffer(TO_DEVICE, slot), message);
        self.offer(TO_DEVICE, slot, message.len() as u32, 0);
        self.driver.notify(TO_DEVICE);
        assert!(self.used(TO_DEVICE).is_some(), "answered at once");
    }

    /// The control messages that have come, whose buffers go back to the device.
    pub fn told(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some((slot, bytes)) = self.used(TO_DRIVER) {
            told.push(parse(&bytes));
            self.offer(TO_DRIVER, slot, PAGE, WRITE);
            self.driver.notify(TO_DRIVER);
        }
        told
    }

    /// Waits for the next control message.
    pub fn wait_told(&mut self) -> Told {
        let (slot, bytes) = self.wait_used(TO_DRIVER);
        self.offer(TO_DRIVER, slot, PAGE, WRITE);
        self.driver.notify(TO_DRIVER);
        parse(&bytes)
    }

    /// Reads `len` bytes from a port, and gives the buffers back.
    pub fn read(&mut self, port: u16, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let (slot, more) = self.wait_used(receive(port));
            bytes.extend(more);
            self.offer(receive(port), slot, PAGE, WRITE);
            self.driver.notify(receive(port));
        }
        assert_eq!(bytes.len(), len);
        bytes
    }

    /// Makes bytes available in the next buffer of a port's transmit queue, without waiting.
    pub fn send(&mut self, port: u16, bytes: &[u8]) {
        let queue = transmit(port);
        let slot = self.queues[usize::from(queue)].0 % SIZE;
        self.driver.store(Self::buffer(queue, slot), bytes);
        self.offer(queue, slot, bytes.len() as u32, 0);
        self.driver.notify(queue);
    }

    /// Writes bytes to a port, as fast as the device takes them.
    pub fn write(&mut self, port: u16, bytes: &[u8]) {
        for chunk in bytes.chunks(BUFFER as usize) {
            self.send(port, chunk);
            let queue = transmit(port);
            let (offered, seen) = self.queues[usize::from(queue)];
            if offered.wrapping_sub(seen) == SIZE {
                self.wait_used(queue);
            }
        }
    }

    pub fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.driver.memory)
    }
}

fn parse(bytes: &[u8]) -> Told {
    let (header, rest) = bytes.split_at(8);
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let port = u32::from(half(0)) | u32::from(half(2)) << 16;
    (port, half(4), half(6), rest.to_vec())
}
