//! Bytes from the host to the guest and back.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::guest::*;
use crate::devices::virtio::{ConsolePort, VirtioConsole};

/// Bytes each way.
const BYTES: usize = 8 << 20;

#[test]
fn input_arrives_in_full_and_ends() {
    let (reader, mut writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("in").input(reader)]);
    let mut guest = Guest::open(device);
    let sent = pattern(BYTES);
    let host = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
    });
    assert!(guest.read(0, BYTES) == pattern(BYTES));
    host.join().unwrap();
    assert_eq!(guest.wait_told(), (0, PORT_OPEN, 0, Vec::new()));
}

#[test]
fn output_arrives_in_full() {
    let (mut reader, writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("out").output(writer)]);
    let mut guest = Guest::open(device);
    let host = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    guest.write(0, &pattern(BYTES));
    guest.tell(0, PORT_OPEN, 0);
    assert!(host.join().unwrap() == pattern(BYTES));
}

/// As another process may have made them that shares them.
#[test]
fn files_can_be_non_blocking() {
    let (input, mut writer) = pipe();
    let (mut reader, output) = pipe();
    for file in [input.as_fd(), output.as_fd()] {
        fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("in").input(input),
        ConsolePort::generic("out").output(output),
    ]);
    let mut guest = Guest::open(device);
    writer.write_all(b"typed").unwrap();
    assert_eq!(guest.read(0, 5), b"typed");
    // More than the pipe holds, before anybody reads.
    let bytes = pattern(500_000);
    guest.write(1, &bytes);
    let mut received = vec![0; bytes.len()];
    reader.read_exact(&mut received).unwrap();
    assert!(received == bytes);
    drop(writer);
    assert_eq!(guest.wait_told(), (0, PORT_OPEN, 0, Vec::new()));
}

#[test]
fn input_waits_until_the_guest_opens_the_port() {
    let (reader, mut writer) = pipe();
    let mut other = reader.try_clone().unwrap();
    let device = VirtioConsole::new(vec![ConsolePort::generic("in").input(reader)]);
    writer.write_all(b"early").unwrap();
    let mut guest = Guest::start(device, F_MULTIPORT);
    guest.fill(TO_DRIVER, PAGE);
    guest.fill(receive(0), PAGE);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    guest.tell(0, PORT_READY, 1);
    drop(guest);
    let mut bytes = [0; 5];
    other.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"early", "nobody has read it");
}

#[test]
fn a_port_that_was_closed_goes_on_when_it_is_opened_again() {
    let (reader, mut writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("in").input(reader)]);
    let mut guest = Guest::open(device);
    writer.write_all(b"first").unwrap();
    assert_eq!(guest.read(0, 5), b"first");
    guest.tell(0, PORT_OPEN, 0);
    writer.write_all(b"again").unwrap();
    drop(writer);
    guest.tell(0, PORT_OPEN, 1);
    assert_eq!(guest.read(0, 5), b"again");
    assert_eq!(guest.wait_told(), (0, PORT_OPEN, 0, Vec::new()));
}

#[test]
fn a_reader_that_is_slow_stops_nobody_else() {
    let (mut slow, slow_writer) = pipe();
    let (mut quick, quick_writer) = pipe();
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("slow").output(slow_writer),
        ConsolePort::generic("quick").output(quick_writer),
    ]);
    let handle = device.handle();
    let mut guest = Guest::open(device);
    // More than pipe and device hold: the last ones stay in the ring.
    let bytes = pattern(16 * BUFFER as usize);
    let mut sent = 0;
    while guest.queues[usize::from(transmit(0))]
        .0
        .wrapping_sub(guest.queues[usize::from(transmit(0))].1)
        < 16
    {
        guest.send(0, &bytes[..BUFFER as usize]);
        sent += BUFFER as usize;
        while guest.used(transmit(0)).is_some() {}
        if sent > 2 * BYTES {
            panic!("the device takes everything");
        }
    }
    guest.send(1, b"quick");
    let mut text = [0; 5];
    quick.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"quick");
    assert!(!handle.drain(Duration::ZERO));
    let reader = thread::spawn(move || {
        let mut bytes = vec![0; sent];
        slow.read_exact(&mut bytes).unwrap();
        (slow, bytes)
    });
    assert!(handle.drain(Duration::MAX));
    let (_slow, received) = reader.join().unwrap();
    assert!(
        received
            .chunks(BUFFER as usize)
            .all(|chunk| chunk == &bytes[..BUFFER as usize])
    );
}

#[test]
fn a_device_is_dropped_while_its_reader_waits() {
    let (mut reader, writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("out").output(writer)]);
    let mut guest = Guest::open(device);
    let bytes = pattern(300_000);
    guest.write(0, &bytes);
    drop(guest);
    // What was taken is written all the same.
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    assert!(received == bytes);
}

/// Both may find the file readable, and only one gets the bytes.
#[test]
fn devices_that_read_the_same_file_can_be_dropped() {
    for _ in 0..50 {
        let (reader, mut writer) = pipe();
        let open = |reader| {
            Guest::open(VirtioConsole::new(vec![
                ConsolePort::generic("in").input(reader),
            ]))
        };
        let mut guests = [reader.try_clone().unwrap(), reader].map(open);
        writer.write_all(b"one").unwrap();
        let mut received = Vec::new();
        while received.is_empty() {
            for guest in &mut guests {
                received.extend(guest.used(receive(0)).into_iter().flat_map(|used| used.1));
            }
        }
        assert_eq!(received, b"one");
        drop(guests);
    }
}

#[test]
fn ports_without_files_take_and_give_nothing() {
    let device = VirtioConsole::new(vec![ConsolePort::generic("nothing")]);
    let handle = device.handle();
    let mut guest = Guest::open(device);
    guest.write(0, &pattern(BYTES));
    assert!(handle.drain(Duration::MAX));
    assert_eq!(guest.used(receive(0)), None);
}
