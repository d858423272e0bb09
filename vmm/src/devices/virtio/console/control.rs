//! [`Control`]: what device and driver have told each other about the ports (VIRTIO 1.2, 5.3.6.2 Multiport Device Operation).
//!
//! Messages to the driver are not queued. Each port has a set of those that are *due*, and a message is made of the state at the
//! time when the driver takes it. So a driver that asks and never listens costs nothing, and one that listens late is told the
//! last state only.

use serde::{Deserialize, Serialize};

use super::port::{ConsolePort, Kind};

/// The length of a message without what follows for its event: port number, event and value.
pub const HEADER: usize = 8;

/// The events of messages, VIRTIO_CONSOLE_*.
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_REMOVE: u16 = 2;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const RESIZE: u16 = 5;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// The messages that can be due, in the order in which a port's are sent. A guest that finds a port by its name finds it open,
/// so the name is last.
const MESSAGES: [u16; 6] = [
    event::PORT_ADD,
    event::CONSOLE_PORT,
    event::PORT_OPEN,
    event::RESIZE,
    event::PORT_NAME,
    event::PORT_REMOVE,
];

/// The size of a terminal in characters; 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    columns: u16,
    rows: u16,
}

/// The state of the ports as far as device and driver tell each other.
#[derive(Debug)]
pub struct Control {
    /// Names and kinds of the ports.
    ports: Vec<(String, Kind)>,
    state: ControlState,
}

/// The part of a [`Control`] that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// Whether the driver has negotiated MULTIPORT. Without, it knows port 0 only, and there are no messages.
    multiport: bool,
    size: Size,
    ports: Vec<PortState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PortState {
    /// Whether the driver has been told that the port exists.
    announced: bool,
    /// Whether the driver has said that it is ready to use the port.
    ready: bool,
    /// Whether the guest has the port open.
    guest_open: bool,
    /// Whether the host has the port open.
    host_open: bool,
    /// Whether the port is gone, for every driver to come.
    removed: bool,
    /// The messages that are due: a bit for each event.
    due: u8,
}

/// The change of a port that the driver has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The number of the port.
    pub port: usize,
    /// Whether the guest has opened the port, or closed it.
    pub open: bool,
}

/// A message to the driver that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    port: usize,
    event: u16,
    /// The message as it is sent.
    pub bytes: Vec<u8>,
}

impl Control {
    /// Creates the state before any driver was there, with the host's ends open.
    pub fn new(ports: &[ConsolePort]) -> Self {
        let closed = PortState {
            announced: false,
            ready: false,
            guest_open: false,
            host_open: true,
            removed: false,
            due: 0,
        };
        Self {
            ports: ports
                .iter()
                .map(|port| (port.name.clone(), port.kind))
                .collect(),
            state: ControlState {
                multiport: false,
                size: Size::default(),
                ports: vec![closed; ports.len()],
            },
        }
    }

    /// The bytes of the configuration structure (VIRTIO 1.2, 5.3.4 Device configuration layout): columns, rows, max_nr_ports
    /// and emerg_wr, which is not used.
    pub fn config(&self) -> Vec<u8> {
        let Size { columns, rows } = self.state.size;
        let ports = self.ports.len() as u32;
        [
            &columns.to_le_bytes()[..],
            &rows.to_le_bytes(),
            &ports.to_le_bytes(),
            &[0; 4],
        ]
        .concat()
    }

    /// Notes that the driver is ready.
    pub fn activate(&mut self, multiport: bool) {
        self.state.multiport = multiport;
        if let (false, Some(only)) = (multiport, self.state.ports.first_mut()) {
            only.guest_open = true;
        }
    }

    /// Forgets the driver. What has become of the host's ends stays.
    pub fn reset(&mut self) {
        for port in &mut self.state.ports {
            port.announced = false;
            port.ready = false;
            port.guest_open = false;
            port.due = 0;
        }
    }

    /// Takes a message of the driver's, and returns what it changes for the data. A message that makes no sense changes nothing.
    pub fn receive(&mut self, message: [u8; HEADER]) -> Option<Opening> {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let event = u16::from_le_bytes([e0, e1]);
        let success = u16::from_le_bytes([v0, v1]) != 0;
        if event == event::DEVICE_READY {
            self.announce(success);
            return None;
        }
        let port = id as usize;
        let state = self.state.ports.get_mut(port);
        let Some(state) = state.filter(|state| state.announced && !state.removed) else {
            log::debug!(
                "virtio-console: the driver sent event {event} for port {id}, which it does not have"
            );
            return None;
        };
        match event {
            event::PORT_READY if success => self.describe(port),
            event::PORT_READY => log::debug!("virtio-console: the guest cannot use port {id}"),
            event::PORT_OPEN => {
                state.guest_open = success;
                return Some(Opening {
                    port,
                    open: success,
                });
            }
            _ => log::debug!("virtio-console: the driver sent event {event}, which is none of its"),
        }
        None
    }

    /// Sets the size of all terminals, and returns whether it has changed.
    pub fn resize(&mut self, columns: u16, rows: u16) -> bool {
        let size = Size { columns, rows };
        if self.state.size == size {
            return false;
        }
        self.state.size = size;
        for (state, (_, kind)) in self.state.ports.iter_mut().zip(&self.ports) {
            if state.ready && *kind == Kind::Console {
                state.due |= bit(event::RESIZE);
            }
        }
        true
    }

    /// Notes that the host has closed its end of a port: there is no more input.
    pub fn close(&mut self, port: usize) {
        let state = &mut self.state.ports[port];
        if state.host_open && state.ready {
            state.due |= bit(event::PORT_OPEN);
        }
        state.host_open = false;
    }

    /// Takes a port away, for ever.
    pub fn remove(&mut self, port: usize) {
        let state = &mut self.state.ports[port];
        if !state.removed {
            state.removed = true;
            state.due = if state.announced {
                bit(event::PORT_REMOVE)
            } else {
                0
            };
        }
    }

    /// Whether the guest has the port open.
    pub fn is_open(&self, port: usize) -> bool {
        let state = &self.state.ports[port];
        state.guest_open && !state.removed
    }

    /// Whether the port was taken away.
    pub fn is_removed(&self, port: usize) -> bool {
        self.state.ports[port].removed
    }

    /// The next message that is due.
    pub fn next_message(&self) -> Option<Message> {
        if !self.state.multiport {
            return None;
        }
        let due = |state: &PortState| {
            let mut events = MESSAGES.into_iter();
            events.find(|&event| state.due & bit(event) != 0)
        };
        let mut ports = self.state.ports.iter().enumerate();
        let (port, event) = ports.find_map(|(port, state)| Some((port, due(state)?)))?;
        Some(self.message(port, event))
    }

    /// Notes that the driver has got a message.
    pub fn sent(&mut self, message: &Message) {
        let state = &mut self.state.ports[message.port];
        state.due &= !bit(message.event);
        match message.event {
            event::PORT_ADD => state.announced = true,
            event::PORT_REMOVE => {
                state.announced = false;
                state.ready = false;
                state.guest_open = false;
            }
            _ => {}
        }
    }

    /// The part that changes, to be saved.
    pub fn state(&self) -> &ControlState {
        &self.state
    }

    /// Restores a saved state, and returns whether it can be one of these ports.
    pub fn restore(&mut self, state: ControlState) -> bool {
        let possible = state.ports.len() == self.ports.len();
        if possible {
            self.state = state;
        }
        possible
    }

    /// Lets the driver know all ports, if it is ready.
    fn announce(&mut self, success: bool) {
        if !success {
            log::debug!("virtio-console: the guest cannot use the device");
            return;
        }
        for state in &mut self.state.ports {
            if !state.announced && !state.removed {
                state.due |= bit(event::PORT_ADD);
            }
        }
    }

    /// Tells the driver, which is ready for the port, what the port is.
    fn describe(&mut self, port: usize) {
        let (_, kind) = self.ports[port];
        let state = &mut self.state.ports[port];
        state.ready = true;
        state.due |= bit(event::PORT_NAME);
        if state.host_open {
            state.due |= bit(event::PORT_OPEN);
        }
        if kind == Kind::Console {
            state.due |= bit(event::CONSOLE_PORT);
            if self.state.size != Size::default() {
                state.due |= bit(event::RESIZE);
            }
        }
    }

    fn message(&self, port: usize, event: u16) -> Message {
        let value = match event {
            event::PORT_OPEN => u16::from(self.state.ports[port].host_open),
            _ => 1,
        };
        let mut bytes = (port as u32).to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        match event {
            event::PORT_NAME => bytes.extend(self.ports[port].0.as_bytes()),
            // Linux before its commit 5326ab737a47 takes them the other way round.
            event::RESIZE => {
                let Size { columns, rows } = self.state.size;
                bytes.extend(columns.to_le_bytes());
                bytes.extend(rows.to_le_bytes());
            }
            _ => {}
        }
        Message { port, event, bytes }
    }
}

/// The bit of an event among those that are due.
fn bit(event: u16) -> u8 {
    1 << event
}
