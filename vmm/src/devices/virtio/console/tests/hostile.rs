//! Drivers that break the rules.

use std::{fs::File, os::fd::OwnedFd};

use super::guest::*;
use crate::devices::virtio::{
    ConsolePort, VirtioConsole,
    tests::{
        driver::{INDIRECT, INDIRECT_DESC, NEEDS_RESET, NEXT, WRITE},
        echo::wait,
    },
};

fn zeroes() -> OwnedFd {
    File::open("/dev/zero").unwrap().into()
}

fn sink() -> OwnedFd {
    let file = File::options().write(true).open("/dev/null");
    file.unwrap().into()
}

fn device() -> VirtioConsole {
    VirtioConsole::new(vec![
        ConsolePort::console("tty").input(zeroes()).output(sink()),
        ConsolePort::generic("in").input(zeroes()),
        ConsolePort::generic("out").output(sink()),
    ])
}

/// Waits until the device is in its error state, which a reset ends.
fn assert_needs_reset(mut guest: Guest) {
    while guest.driver.status() & NEEDS_RESET == 0 {
        wait(&mut guest.driver);
    }
    guest.probe(F_MULTIPORT);
    guest.open_all();
    guest.read(1, 2 * PAGE as usize);
}

#[test]
fn messages_that_make_no_sense_are_ignored() {
    let mut guest = Guest::open(device());
    for length in 1..8 {
        guest.tell_bytes(&vec![0; length]);
    }
    for (port, event, value) in [
        (3, PORT_READY, 1),
        (u32::MAX, PORT_OPEN, 1),
        (0, PORT_READY, 0),
        (0, PORT_ADD, 1),
        (0, 8, 1),
        (0, u16::MAX, u16::MAX),
        (9, DEVICE_READY, 0),
    ] {
        guest.tell(port, event, value);
    }
    assert_eq!(guest.told(), []);
    assert_eq!(guest.driver.status() & NEEDS_RESET, 0);
    // Only the header of a message counts.
    let mut long = vec![0; 20_000];
    long[..8].copy_from_slice(&[1, 0, 0, 0, PORT_READY as u8, 0, 1, 0]);
    guest.tell_bytes(&long);
    assert_eq!(guest.told().len(), 2, "open and name");
}

#[test]
fn a_buffer_without_room_is_malformed() {
    let mut guest = Guest::open(device());
    // In place of the buffers that were given: one that the device is to read.
    guest.probe(F_MULTIPORT);
    guest.fill(TO_DRIVER, PAGE);
    guest.tell(0, DEVICE_READY, 1);
    guest.tell(1, PORT_READY, 1);
    guest.tell(1, PORT_OPEN, 1);
    guest.offer(receive(1), 0, PAGE, 0);
    guest.driver.notify(receive(1));
    assert_needs_reset(guest);
}

#[test]
fn a_buffer_that_is_too_short_for_a_message_is_malformed() {
    let mut guest = Guest::start(device(), F_MULTIPORT);
    guest.fill(TO_DRIVER, 7);
    guest.tell(0, DEVICE_READY, 1);
    assert_needs_reset(guest);
}

#[test]
fn a_request_that_is_too_long_is_malformed() {
    let mut guest = Guest::open(device());
    guest.offer(transmit(2), 0, (4 << 20) + 1, 0);
    guest.driver.notify(transmit(2));
    assert_needs_reset(guest);
}

#[test]
fn anything_is_survived() {
    let mut seed = 13_u64;
    let mut next = move || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let mut guest = Guest::open(device());
    let (mut used, mut resets) = (0, 0);
    for _ in 0..20_000 {
        let queue = (next() % 8) as u16;
        let slot = (next() % 16) as u16;
        let at = Guest::buffer(queue, slot);
        match next() % 16 {
            0..6 => {
                // A message, mostly one of the protocol's.
                let (port, event) = (next() % 4, next() % 9);
                let message = [port, event | (next() % 2) << 16].map(u32::to_le_bytes);
                let at = Guest::buffer(TO_DEVICE, slot);
                guest.driver.store(at, &message.concat());
                guest.offer(TO_DEVICE, slot, 8, 0);
                guest.driver.notify(TO_DEVICE);
            }
            6..10 => {
                let flags = [WRITE, 0, WRITE, NEXT, WRITE | NEXT, INDIRECT][next() as usize % 6];
                let len = match next() % 8 {
                    0 => next(),
                    1 => 0,
                    _ => next() % 5000,
                };
                guest.driver.store(at, &next().to_le_bytes());
                guest.offer(queue, slot, len, flags);
                guest.driver.notify(queue);
            }
            10..13 => used += usize::from(guest.skip_used(queue)),
            13 => guest.driver.notify(next() as u16 % 16),
            14 => {
                // Anything, anywhere among the rings.
                let at = 0x10_0000 + u64::from(next() % 0x1_8000);
                guest.driver.store(at, &next().to_le_bytes());
            }
            _ if next().is_multiple_of(4) => {
                guest.probe(F_MULTIPORT | INDIRECT_DESC);
                guest.fill(TO_DRIVER, PAGE);
                guest.tell(0, DEVICE_READY, 1);
            }
            _ => guest.driver.board.advance_devices(),
        }
        if guest.driver.status() & NEEDS_RESET != 0 {
            resets += 1;
            guest.probe(F_MULTIPORT | INDIRECT_DESC);
            guest.fill(TO_DRIVER, PAGE);
            guest.tell(0, DEVICE_READY, 1);
        }
    }
    assert!(used > 100 && resets > 10, "{used} {resets}");
    guest.probe(F_MULTIPORT);
    guest.open_all();
    guest.read(1, 2 * PAGE as usize);
}
