//! [`Echo`]: a device with a queue and a configuration structure, served by a thread.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use sbe::Width;

use super::driver::{BUFFER, CONFIG, Driver, NEXT, WRITE};
use crate::{
    bus::DeviceStateError,
    devices::virtio::{Interrupt, Malformed, Reader, VirtQueue, VirtioDevice, Worker, Writer},
    threads::{ThreadKind, Threads},
};

/// Answers each request by its bytes, one higher.
#[derive(Default)]
pub struct Echo {
    pub config: Arc<Mutex<Vec<u8>>>,
    pub interrupt: Arc<Mutex<Option<Interrupt>>>,
    worker: Option<Worker>,
}

pub fn echo(mut request: Reader<'_>, mut room: Writer<'_>) -> Result<u32, Malformed> {
    let mut bytes = Vec::new();
    request.read_to_end(&mut bytes)?;
    for byte in &mut bytes {
        *byte = byte.wrapping_add(1);
    }
    room.write_all(&bytes)?;
    Ok(bytes.len() as u32)
}

impl VirtioDevice for Echo {
    fn device_type(&self) -> u16 {
        42
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 16]
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn config(&self) -> Vec<u8> {
        self.config.lock().clone()
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8]) {
        self.config.lock()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        interrupt: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        *self.interrupt.lock() = Some(interrupt.clone());
        let queues = queues.to_vec();
        let worker = Worker::start(threads, ThreadKind::Other("echo"), move |queue| {
            queues[queue].serve_all(echo)
        })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn notify(&mut self, queue: usize) {
        if let Some(worker) = &self.worker {
            worker.notify(queue);
        }
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        Ok(self.config())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceStateError> {
        *self.config.lock() = state.to_vec();
        Ok(())
    }
}

/// Waits until a thread of a device rings.
pub fn wait(driver: &mut Driver) {
    {
        let mut fds: Vec<_> = driver
            .board
            .wakeups()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        assert_eq!(poll(&mut fds, PollTimeout::NONE), Ok(1));
    }
    driver.board.advance_devices();
}

/// Waits until the device has used `count` buffers.
pub fn wait_for_used(driver: &mut Driver, count: u16) {
    while driver.used() != count {
        wait(driver);
    }
}

#[test]
fn a_thread_serves_the_queue_and_wakes_the_machine() {
    let mut driver = Driver::new(Box::<Echo>::default());
    driver.start(0, 0);
    driver.store(BUFFER, b"abc");
    for round in 1..=100 {
        driver.request(&[(BUFFER, 3, NEXT, 1), (BUFFER + 0x1000, 3, WRITE, 0)]);
        wait_for_used(&mut driver, round);
        while !driver.is_interrupted() {
            wait(&mut driver);
        }
        assert_eq!(driver.used_element(round - 1), (0, 3));
        assert_eq!(driver.bytes(BUFFER + 0x1000, 3), b"bcd");
        assert_eq!(driver.read(super::driver::ISR, Width::Byte) & 1, 1);
    }
}

#[test]
fn the_configuration_structure_is_read_written_and_changed() {
    let device = Echo::default();
    *device.config.lock() = vec![1, 2, 3, 4, 5];
    let (config, interrupt) = (Arc::clone(&device.config), Arc::clone(&device.interrupt));
    let mut driver = Driver::new(Box::new(device));
    driver.start(0, 1);
    assert_eq!(driver.read(CONFIG, Width::Dword), 0x0403_0201);
    assert_eq!(driver.read(CONFIG + 4, Width::Dword), 5, "the end");
    driver.write(CONFIG + 1, Width::Word, 0xabcd);
    driver.write(CONFIG + 4, Width::Dword, 0);
    driver.write(CONFIG + 0xbc, Width::Dword, 0);
    assert_eq!(*config.lock(), [1, 0xcd, 0xab, 4, 5]);
    let generation = driver.read(0x15, Width::Byte);
    assert!(!driver.is_interrupted());
    interrupt.lock().as_ref().unwrap().configuration_changed();
    assert!(driver.is_interrupted());
    assert_ne!(driver.read(0x15, Width::Byte), generation);
    assert_eq!(driver.read(super::driver::ISR, Width::Byte), 2);
    assert!(!driver.is_interrupted());
}
