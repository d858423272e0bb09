//! Saving and restoring.

use std::{
    io::{PipeWriter, Read, Write},
    os::fd::OwnedFd,
};

use super::guest::*;
use crate::devices::virtio::{ConsolePort, VirtioConsole, tests::driver::Driver};

#[test]
fn a_saved_device_goes_on_in_another_machine() {
    let input = pattern(300_000);
    let file = file(&input);
    let (mut reader, writer) = pipe();
    let device = |input: OwnedFd, output: PipeWriter| {
        let device = VirtioConsole::new(vec![
            ConsolePort::generic("in").input(input),
            ConsolePort::generic("out").output(output),
        ]);
        device.handle().resize(80, 25);
        device
    };
    // Both machines read from where the other has stopped.
    let mut first = Guest::open(device(
        file.try_clone().unwrap(),
        writer.try_clone().unwrap(),
    ));
    // More is read than there are buffers for: some of it is pending.
    let mut received = first.wait_used(receive(0)).1;
    first.send(1, b"a");
    let mut text = [0; 1];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"a");
    let state = first.driver.board.save().unwrap();
    let (memory, queues) = (first.memory(), first.queues.clone());
    drop(first);

    let mut second = Guest::with(Driver::with(Box::new(device(file, writer)), memory));
    second.driver.board.restore(state).unwrap();
    second.queues = queues;
    received.extend(second.read(0, input.len() - received.len()));
    assert!(received == input);
    assert_eq!(second.wait_told(), (0, PORT_OPEN, 0, Vec::new()));
    second.send(1, b"b");
    second.tell(1, PORT_OPEN, 0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "b");
    assert_eq!(second.wait_told(), (1, PORT_REMOVE, 1, Vec::new()));
}

#[test]
fn a_machine_that_was_saved_can_go_on_itself() {
    let (reader, mut writer) = pipe();
    let device = VirtioConsole::new(vec![ConsolePort::generic("in").input(reader)]);
    let mut guest = Guest::open(device);
    guest.driver.board.save().unwrap();
    writer.write_all(b"later").unwrap();
    guest.driver.board.advance_devices();
    assert_eq!(guest.read(0, 5), b"later");
}

#[test]
fn the_state_of_other_ports_is_refused() {
    let one = || VirtioConsole::new(vec![ConsolePort::generic("in").input(file(b""))]);
    let other = VirtioConsole::new(vec![ConsolePort::generic("in")]);
    let state = Guest::open(one()).driver.board.save().unwrap();
    let mut driver = Driver::new(Box::new(other));
    assert!(driver.board.restore(state).is_err());
}
