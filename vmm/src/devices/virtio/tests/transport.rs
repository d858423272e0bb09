//! The transport: discovery, negotiation, status, reset, state.

use std::sync::Arc;

use parking_lot::Mutex;
use sbe::Width;

use super::{
    driver::*,
    echo::{Echo, wait_for_used},
};
use crate::devices::virtio::{Interrupt, Rng};

/// The capabilities of the device: their offsets with the first four bytes.
fn capabilities(driver: &mut Driver) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    let mut at = driver.pci_read(0x34) & 0xff;
    while at != 0 {
        let header = driver.pci_read(at);
        found.push((at, header));
        at = header >> 8 & 0xff;
    }
    found
}

#[test]
fn a_driver_finds_all_structures() {
    let device = Echo::default();
    *device.config.lock() = vec![0; 5];
    let mut driver = Driver::new(Box::new(device));
    assert_eq!(driver.pci_read(0), 0x106a_1af4);
    assert_eq!(driver.pci_read(8) & 0xff, 1, "revision");
    let found: Vec<_> = capabilities(&mut driver)
        .into_iter()
        .map(|(at, header)| {
            assert_eq!(header & 0xff, 9, "vendor specific");
            let rest = [4, 8, 12].map(|offset| driver.pci_read(at + offset));
            (header >> 24, rest)
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, [0, 0x00, 0x38]),
            (2, [0, 0x3c, 2]),
            (3, [0, 0x38, 1]),
            (4, [0, 0x40, 8]),
            (5, [0, 0, 0]),
        ]
    );
    let mut rng = Driver::new(Box::<Rng>::default());
    assert_eq!(capabilities(&mut rng).len(), 4, "no configuration");
}

#[test]
fn features_are_agreed_on() {
    let mut driver = Driver::new(Box::<Echo>::default());
    driver.pci_write(4, 5);
    let mut offered = 0;
    for select in [1, 0] {
        driver.write(0x00, Width::Dword, select);
        offered = offered << 32 | u64::from(driver.read(0x04, Width::Dword));
    }
    assert_eq!(offered, VERSION_1 | EVENT_IDX | INDIRECT_DESC | 1 << 3);
    driver.write(0x00, Width::Dword, 2);
    assert_eq!(driver.read(0x04, Width::Dword), 0);
    assert!(!driver.negotiate(0), "a legacy driver");
    assert!(!driver.negotiate(VERSION_1 | 1 << 4), "not offered");
    driver.write(STATUS, Width::Byte, DRIVER_OK);
    assert_eq!(driver.status() & 4, 0, "not without features");
    assert!(driver.negotiate(VERSION_1 | 1 << 3));
    driver.write(0x0c, Width::Dword, 0);
    assert_eq!(driver.read(0x0c, Width::Dword), 1, "they stay");
}

#[test]
fn registers_of_a_queue_are_its_own() {
    let mut driver = Driver::new(Box::<Echo>::default());
    driver.negotiate(VERSION_1);
    assert_eq!(driver.read(0x12, Width::Word), 2);
    for (queue, size) in [(0, 64), (1, 16), (2, 0), (0xffff, 0)] {
        driver.write(0x16, Width::Word, queue);
        assert_eq!(driver.read(0x18, Width::Word), size);
        assert_eq!(driver.read(0x1e, Width::Word), 0, "notification offset");
    }
    driver.place_queue(1);
    assert_eq!(driver.read(0x1c, Width::Word), 1);
    driver.write(0x20, Width::Dword, 0);
    driver.write(0x18, Width::Word, 8);
    assert_eq!(driver.read(0x20, Width::Dword), TABLE as u32, "in use");
    assert_eq!(driver.read(0x18, Width::Word), u32::from(SIZE));
    driver.write(0x16, Width::Word, 0);
    assert_eq!(driver.read(0x1c, Width::Word), 0);
    driver.write(STATUS, Width::Byte, 0);
    driver.write(0x16, Width::Word, 1);
    assert_eq!(driver.read(0x1c, Width::Word), 0, "reset");
    assert_eq!(driver.status(), 0);
}

#[test]
fn the_bar_is_reached_through_configuration_space() {
    let mut driver = Driver::new(Box::<Rng>::default());
    let (at, _) = capabilities(&mut driver).pop().unwrap();
    driver.pci_write(at + 8, 0x18);
    driver.pci_write(at + 12, 2);
    assert_eq!(driver.pci_read(at + 16) & 0xffff, 64, "size of queue 0");
    driver.pci_write(at + 16, 32);
    driver.pci_write(4, 1);
    assert_eq!(driver.read(0x18, Width::Word), 32);
    for (offset, length) in [(0x19, 2), (0x18, 3), (0x100, 4), (u32::MAX, 1)] {
        driver.pci_write(at + 8, offset);
        driver.pci_write(at + 12, length);
        driver.pci_write(at + 16, 1);
        driver.pci_read(at + 16);
    }
    assert_eq!(driver.read(0x18, Width::Word), 32);
}

#[test]
fn requests_wait_while_dma_is_off() {
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.start(0, 0);
    driver.pci_write(4, 1);
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert_eq!(driver.used(), 0);
    driver.pci_write(4, 5);
    assert_eq!(driver.used(), 1);
}

#[test]
fn nothing_is_served_before_the_driver_is_ready_or_after_a_reset() {
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.negotiate(VERSION_1);
    driver.place_queue(0);
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert_eq!(driver.used(), 0);
    driver.write(STATUS, Width::Byte, DRIVER_OK);
    assert_eq!(driver.used(), 1, "what was there already");
    driver.write(STATUS, Width::Byte, 0);
    driver.offer(0);
    driver.notify(0);
    assert_eq!(driver.used(), 1);
    assert!(!driver.is_interrupted());
}

#[test]
fn a_driver_is_interrupted_only_while_it_is_ready() {
    let device = Echo::default();
    let interrupt = Arc::clone(&device.interrupt);
    let mut driver = Driver::new(Box::new(device));
    driver.pci_write(4, 5);
    let interrupts = |driver: &mut Driver| {
        interrupt.lock().as_ref().unwrap().configuration_changed();
        let is_interrupted = driver.is_interrupted();
        let isr = driver.read(ISR, Width::Byte);
        assert_eq!(is_interrupted, isr != 0);
        isr
    };
    assert_eq!(interrupts(&mut driver), 0, "nobody is there");
    assert!(driver.negotiate(VERSION_1));
    driver.place_queue(0);
    assert_eq!(interrupts(&mut driver), 0, "before DRIVER_OK");
    let generation = driver.read(0x15, Width::Byte);
    driver.write(STATUS, Width::Byte, DRIVER_OK);
    assert_eq!(interrupts(&mut driver), 2);
    assert_ne!(driver.read(0x15, Width::Byte), generation);
    driver.write(STATUS, Width::Byte, 0);
    assert_eq!(interrupts(&mut driver), 0, "after a reset");
}

#[test]
fn a_restored_driver_is_interrupted_as_before() {
    let changed = |interrupt: &Arc<Mutex<Option<Interrupt>>>| {
        interrupt.lock().as_ref().unwrap().configuration_changed();
    };
    let device = Echo::default();
    let interrupt = Arc::clone(&device.interrupt);
    let mut first = Driver::new(Box::new(device));
    first.start(0, 0);
    changed(&interrupt);
    let state = first.board.save().unwrap();
    let device = Echo::default();
    let interrupt = Arc::clone(&device.interrupt);
    let mut second = Driver::with(Box::new(device), Arc::clone(&first.memory));
    drop(first);
    second.board.restore(state).unwrap();
    for _ in 0..2 {
        assert!(second.is_interrupted());
        assert_eq!(second.read(ISR, Width::Byte), 2);
        assert!(!second.is_interrupted());
        changed(&interrupt);
    }
}

#[test]
fn a_saved_device_goes_on_where_it_was() {
    let device = Echo::default();
    *device.config.lock() = vec![7];
    let mut first = Driver::new(Box::new(device));
    first.start(0, 0);
    let descriptors = [(BUFFER, 1, NEXT, 1), (BUFFER + 8, 1, WRITE, 0)];
    for round in 1..=20 {
        first.request(&descriptors);
        wait_for_used(&mut first, round);
    }
    let state = first.board.save().unwrap();
    // The machine that was saved stands still, and leaves the memory to the other.
    first.offer(0);
    first.notify(0);
    let memory = Arc::clone(&first.memory);
    drop(first);
    let device = Echo::default();
    *device.config.lock() = vec![0];
    let mut second = Driver::with(Box::new(device), memory);
    second.board.restore(state).unwrap();
    assert_eq!(second.read(CONFIG, Width::Byte), 7);
    assert_eq!(second.status(), DRIVER_OK);
    wait_for_used(&mut second, 21);
    assert_eq!(second.used_element(20), (0, 1));
}

#[test]
fn a_machine_that_was_saved_can_go_on_itself() {
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.start(0, 0);
    driver.board.save().unwrap();
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert_eq!(driver.used(), 0);
    driver.board.advance_devices();
    assert_eq!(driver.used(), 1);
}

#[test]
fn registers_survive_anything() {
    let mut seed = 1u64;
    let mut next = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let mut driver = Driver::new(Box::<Rng>::default());
    driver.pci_write(4, 5);
    for _ in 0..20_000 {
        let width = [Width::Byte, Width::Word, Width::Dword][next() as usize % 3];
        let register = (next() & 0xff) as u16;
        let value = match next() % 4 {
            0 => next(),
            1 => next() & 0x1f,
            2 => 0x10_0000 + (next() & 0x3_fff0),
            _ => 1 << (next() % 32),
        };
        match next() % 3 {
            0 => {
                driver.read(register, width);
            }
            _ => driver.write(register, width, value),
        }
    }
    driver.start(0, 0);
    driver.request(&[(BUFFER, 8, WRITE, 0)]);
    assert_eq!(driver.used(), 1);
}
