//! What the driver is told of the ports.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::fd::OwnedFd,
    time::Duration,
};

use super::guest::*;
use crate::devices::virtio::{
    ConsolePort, VirtioConsole,
    tests::driver::{CONFIG, ISR, STATUS, WRITE},
};
use sbe::Width;

fn device() -> VirtioConsole {
    VirtioConsole::new(vec![
        ConsolePort::console("tty"),
        ConsolePort::generic("replex.stdin"),
    ])
}

#[test]
fn the_configuration_has_the_size_and_the_number_of_ports() {
    let device = device();
    let handle = device.handle();
    handle.resize(132, 50);
    let mut guest = Guest::start(device, F_MULTIPORT | F_SIZE);
    assert_eq!(guest.ports(), 2);
    assert_eq!(guest.driver.read(CONFIG, Width::Word), 132);
    assert_eq!(guest.driver.read(CONFIG + 2, Width::Word), 50);
    assert_eq!(guest.driver.read(CONFIG + 4, Width::Dword), 2);
}

#[test]
fn a_driver_that_is_ready_is_told_of_the_ports() {
    let device = device();
    device.handle().resize(80, 25);
    let mut guest = Guest::start(device, F_MULTIPORT | F_SIZE);
    guest.fill(TO_DRIVER, PAGE);
    assert_eq!(guest.told(), []);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    let add = |port| (port, PORT_ADD, 1, Vec::new());
    assert_eq!(guest.told(), [add(0), add(1)]);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    assert_eq!(guest.told(), [], "no port is added twice");
    guest.tell(0, PORT_READY, 1);
    assert_eq!(
        guest.told(),
        [
            (0, CONSOLE_PORT, 1, Vec::new()),
            (0, PORT_OPEN, 1, Vec::new()),
            (0, RESIZE, 1, vec![80, 0, 25, 0]),
            (0, PORT_NAME, 1, b"tty".to_vec()),
        ]
    );
    guest.tell(1, PORT_READY, 1);
    assert_eq!(
        guest.told(),
        [
            (1, PORT_OPEN, 1, Vec::new()),
            (1, PORT_NAME, 1, b"replex.stdin".to_vec()),
        ]
    );
}

#[test]
fn messages_wait_for_buffers() {
    let mut guest = Guest::start(device(), F_MULTIPORT);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    guest.offer(TO_DRIVER, 0, PAGE, WRITE);
    guest.driver.notify(TO_DRIVER);
    assert_eq!(
        guest.told(),
        [(0, PORT_ADD, 1, Vec::new()), (1, PORT_ADD, 1, Vec::new())]
    );
}

#[test]
fn terminals_are_told_their_size() {
    let device = device();
    let handle = device.handle();
    let mut guest = Guest::open(device);
    guest.driver.read(ISR, Width::Byte);
    let other = std::thread::spawn(move || handle.resize(100, 30));
    assert_eq!(guest.wait_told(), (0, RESIZE, 1, vec![100, 0, 30, 0]));
    other.join().unwrap();
    assert_eq!(guest.driver.read(CONFIG, Width::Dword), 100 | 30 << 16);
    let isr = guest.driver.read(ISR, Width::Byte);
    assert_eq!(isr & 2, 2, "the configuration has changed");
}

#[test]
fn nobody_is_interrupted_before_the_driver_is_ready() {
    let device = device();
    let handle = device.handle();
    let mut guest = Guest::open(device);
    guest.driver.write(STATUS, Width::Byte, 0);
    handle.resize(100, 30);
    assert_eq!(guest.driver.read(ISR, Width::Byte), 0);
}

#[test]
fn a_port_that_the_guest_closes_ends_its_output() {
    let (mut reader, writer) = pipe();
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("out").output(writer),
        ConsolePort::generic("other"),
    ]);
    let mut guest = Guest::open(device);
    guest.send(0, b"last words");
    guest.tell(0, PORT_OPEN, 0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    assert_eq!(guest.wait_told(), (0, PORT_REMOVE, 1, Vec::new()));
    guest.tell(1, PORT_OPEN, 0);
    guest.tell(1, PORT_OPEN, 1);
    assert_eq!(guest.told(), [], "a port without output stays");
}

#[test]
fn a_terminal_that_the_guest_closes_keeps_its_output() {
    let (mut reader, writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::console("tty").output(writer)]);
    let mut guest = Guest::open(device);
    for text in ["first", "again"] {
        guest.send(0, text.as_bytes());
        guest.tell(0, PORT_OPEN, 0);
        guest.tell(0, PORT_OPEN, 1);
        let mut bytes = [0; 5];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, text.as_bytes());
    }
}

#[test]
fn a_port_whose_reader_is_gone_is_taken_away() {
    let (reader, writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("out").output(writer)]);
    let mut guest = Guest::open(device);
    drop(reader);
    guest.write(0, &pattern(100));
    assert_eq!(guest.wait_told(), (0, PORT_REMOVE, 1, Vec::new()));
    // What Linux's writer sends before it is told is taken all the same.
    guest.write(0, &pattern(4 << 20));
    assert_eq!(guest.told(), []);
    guest.probe(F_MULTIPORT);
    guest.fill(TO_DRIVER, PAGE);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    assert_eq!(guest.told(), [], "for ever");
}

#[test]
fn an_error_of_writing_is_told_unless_there_is_nobody_to_read() {
    let (reader, writer) = pipe();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (output, expected) in [
        (OwnedFd::from(writer), None),
        (full.into(), Some(ErrorKind::StorageFull)),
    ] {
        let device = VirtioConsole::new(vec![ConsolePort::generic("out").output(output)]);
        let handle = device.handle();
        assert!(handle.take_output_error().is_none());
        let mut guest = Guest::open(device);
        guest.write(0, b"lost");
        assert_eq!(guest.wait_told(), (0, PORT_REMOVE, 1, Vec::new()));
        assert!(handle.drain(Duration::MAX));
        let error = handle.take_output_error();
        assert_eq!(error.map(|error| error.kind()), expected);
    }
}

#[test]
fn a_driver_that_comes_later_finds_the_ports_again() {
    let (mut reader, writer) = pipe();
    let input = pattern(300_000);
    let device = VirtioConsole::new(vec![
        ConsolePort::generic("in").input(file(&input)),
        ConsolePort::generic("out").output(writer),
    ]);
    let mut guest = Guest::open(device);
    // The device reads more than the driver has given room for.
    let mut given = guest.wait_used(receive(0)).1;
    guest.send(1, b"a");
    guest.driver.write(STATUS, Width::Byte, 0);
    while let Some((_, more)) = guest.used(receive(0)) {
        given.extend(more);
    }
    assert!(input.starts_with(&given));
    let given = given.len();
    guest.probe(F_MULTIPORT | F_SIZE);
    guest.open_all();
    assert_eq!(guest.read(0, input.len() - given), input[given..]);
    assert_eq!(guest.wait_told(), (0, PORT_OPEN, 0, Vec::new()));
    guest.probe(F_MULTIPORT);
    guest.fill(TO_DRIVER, PAGE);
    guest.tell(u32::MAX, DEVICE_READY, 1);
    guest.told();
    guest.tell(0, PORT_READY, 1);
    assert_eq!(guest.told(), [(0, PORT_NAME, 1, b"in".to_vec())], "closed");
    guest.send(1, b"b");
    let mut bytes = [0; 2];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ab");
}

#[test]
fn a_driver_without_multiport_has_port_0() {
    let (mut reader, writer) = pipe();
    let device = VirtioConsole::new(vec![
        ConsolePort::console("tty")
            .input(file(b"typed"))
            .output(writer),
    ]);
    let handle = device.handle();
    let mut guest = Guest::start(device, F_SIZE);
    guest.fill(receive(0), PAGE);
    assert_eq!(guest.read(0, 5), b"typed");
    guest.send(0, b"shown");
    let mut shown = [0; 5];
    reader.read_exact(&mut shown).unwrap();
    assert_eq!(&shown, b"shown");
    guest.driver.read(ISR, Width::Byte);
    handle.resize(90, 40);
    assert_eq!(guest.driver.read(ISR, Width::Byte) & 2, 2);
    guest.fill(TO_DRIVER, PAGE);
    assert_eq!(guest.told(), [], "no messages");
}
