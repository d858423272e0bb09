//! [`Control`] under any order of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::control::*, guest::*};
use crate::devices::virtio::ConsolePort;

#[derive(Clone, Debug)]
enum Act {
    Receive(u32, u16, u16),
    Close(usize),
    Remove(usize),
    Resize(u16, u16),
    Reset,
    Activate,
    /// The driver takes so many messages.
    Take(usize),
}

const PORTS: usize = 3;

fn act() -> impl Strategy<Value = Act> {
    let port = 0..PORTS;
    prop_oneof![
        8 => (0..PORTS as u32 + 1, 0..9_u16, 0..3_u16).prop_map(|(id, event, value)| Act::Receive(id, event, value)),
        1 => any::<(u32, u16, u16)>().prop_map(|(id, event, value)| Act::Receive(id, event, value)),
        1 => port.clone().prop_map(Act::Close),
        1 => port.prop_map(Act::Remove),
        1 => (0..3_u16, 0..3_u16).prop_map(|(columns, rows)| Act::Resize(columns, rows)),
        1 => Just(Act::Reset),
        1 => Just(Act::Activate),
        4 => (0..8_usize).prop_map(Act::Take),
    ]
}

/// What a driver knows of the ports, and the rules that messages keep.
#[derive(Default)]
struct Model {
    known: BTreeSet<u32>,
    removed: BTreeSet<u32>,
}

impl Model {
    fn take(&mut self, message: &[u8]) {
        let id = u32::from_le_bytes(message[..4].try_into().unwrap());
        let event = u16::from_le_bytes(message[4..6].try_into().unwrap());
        match event {
            PORT_ADD => {
                assert!(self.known.insert(id), "a port that exists");
                assert!(!self.removed.contains(&id), "a port that is gone");
            }
            PORT_REMOVE => {
                assert!(self.known.remove(&id), "a port that does not exist");
                assert!(self.removed.contains(&id));
            }
            RESIZE => assert_eq!(message.len(), 12),
            PORT_NAME => assert_eq!(message[8..], *b"name"),
            CONSOLE_PORT | PORT_OPEN => assert_eq!(message.len(), 8),
            _ => panic!("event {event} is not the device's"),
        }
        assert!(event == PORT_REMOVE || self.known.contains(&id));
    }
}

/// Lets the driver take up to `most` messages, and returns how many there were.
fn take(control: &mut Control, model: &mut Model, most: usize) -> usize {
    for taken in 0..most {
        let Some(message) = control.next_message() else {
            return taken;
        };
        model.take(&message.bytes);
        control.sent(&message);
    }
    most
}

proptest! {
    #[test]
    fn messages_keep_the_rules(acts in prop::collection::vec(act(), 0..100)) {
        let ports = [
            ConsolePort::console("name"),
            ConsolePort::generic("name"),
            ConsolePort::console("name"),
        ];
        let mut control = Control::new(&ports);
        let mut model = Model::default();
        control.activate(true);
        for act in acts {
            match act {
                Act::Receive(id, event, value) => {
                    let mut message = [0; HEADER];
                    message[..4].copy_from_slice(&id.to_le_bytes());
                    message[4..6].copy_from_slice(&event.to_le_bytes());
                    message[6..].copy_from_slice(&value.to_le_bytes());
                    if let Some(opening) = control.receive(message) {
                        prop_assert!(model.known.contains(&(opening.port as u32)));
                        prop_assert_eq!((event, opening.open), (PORT_OPEN, value != 0));
                        prop_assert_eq!(control.is_open(opening.port), opening.open);
                    }
                }
                Act::Close(port) => control.close(port),
                Act::Remove(port) => {
                    control.remove(port);
                    model.removed.insert(port as u32);
                }
                Act::Resize(columns, rows) => {
                    control.resize(columns, rows);
                    let size = u32::from(columns) | u32::from(rows) << 16;
                    prop_assert_eq!(&control.config()[..4], size.to_le_bytes());
                }
                Act::Reset => {
                    control.reset();
                    model.known.clear();
                }
                Act::Activate => control.activate(true),
                Act::Take(most) => {
                    take(&mut control, &mut model, most);
                }
            }
        }
        // Whatever the driver has asked for, there are few messages.
        prop_assert!(take(&mut control, &mut model, 1000) <= 6 * PORTS);
        // Nothing stays out: the driver finds all ports but those that are gone.
        control.reset();
        model.known.clear();
        control.receive([0, 0, 0, 0, 0, 0, 1, 0]);
        take(&mut control, &mut model, 1000);
        let there = (0..PORTS as u32).filter(|port| !model.removed.contains(port));
        prop_assert!(model.known.iter().copied().eq(there));
    }
}

#[test]
fn a_port_that_closes_before_the_driver_is_ready_for_it_is_not_open() {
    let mut control = Control::new(&[ConsolePort::generic("name")]);
    let mut model = Model::default();
    control.activate(true);
    control.receive([0, 0, 0, 0, 0, 0, 1, 0]);
    take(&mut control, &mut model, 1);
    control.close(0);
    control.receive([0, 0, 0, 0, 3, 0, 1, 0]);
    let message = control.next_message().unwrap();
    assert_eq!(message.bytes[4], PORT_NAME as u8);
    control.sent(&message);
    assert_eq!(control.next_message(), None);
}
