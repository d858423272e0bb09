//! [`VirtioConsole`]: a console device with several ports (VIRTIO 1.2, 5.3 Console Device): terminals and streams of bytes
//! between the guest and files of the host.
//!
//! ```text
//!   receiveq  ◄── Input ◄── file        each with a thread of its own
//!   transmitq ──► Output ──► file
//!   control queues ◄──► ControlLink: which ports there are, names, open, closed, the size of the terminals
//! ```
//!
//! The driver's messages are answered on the machine's thread, as Linux spins until they are. Bytes are neither lost nor
//! reordered; what Linux has taken for a port that is then closed there it drops.
//!
//! | what happens | what the other side sees |
//! |---|---|
//! | the input ends, and all of it is in the driver's buffers | the port is closed: readers in the guest get the end of file |
//! | the guest closes a generic port | what it has sent is written, the output file is closed, and the port goes |
//! | the output has no reader any more, or cannot be written | the port goes: writers in the guest get an error, ENODEV on Linux; terminals hang up |
//! | the driver resets the device | the ports are closed; a driver that comes later finds them again |
//!
//! That a port is closed does not end Linux's writers: they wait until it is open. So a port that has broken is taken away, and
//! a generic port is best used in one direction. A program in the guest that waits for a port by its name
//! (`/sys/class/virtio-ports/*/name`) finds it open when the name is there.

mod control;
mod input;
mod link;
mod output;
mod port;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Read},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use self::{
    control::{Control, ControlState, HEADER},
    input::{Input, InputState},
    link::ControlLink,
    output::{Drain, Output},
    port::Kind,
};
use super::{
    device::VirtioDevice,
    interrupt::Interrupt,
    queue::{Malformed, Reader, VirtQueue},
};
use crate::{
    bus::{DeviceStateError, decode_state, encode_state},
    threads::Threads,
};
pub use port::ConsolePort;

/// The feature bits (VIRTIO 1.2, 5.3.3 Feature bits).
const F_SIZE: u64 = 1 << 0;
const F_MULTIPORT: u64 = 1 << 1;

/// The numbers of the control queues (VIRTIO 1.2, 5.3.2 Virtqueues).
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;

/// The sizes of a port's queues and of the control queues. Linux gives a page for each receive buffer.
const DATA_QUEUE: u16 = 64;
const CONTROL_QUEUE: u16 = 32;

/// The most ports.
const MOST_PORTS: usize = 256;

/// A console device.
///
/// ```
/// use std::{fs::File, io, time::Duration};
/// use vmm::devices::virtio::{ConsolePort, VirtioConsole};
///
/// let (mut record, status) = io::pipe()?;
/// let device = VirtioConsole::new(vec![
///     ConsolePort::console("tty").input(File::open("/dev/null")?),
///     ConsolePort::generic("status").output(status),
/// ]);
/// let handle = device.handle();
/// // The machine gets the device (`VirtioPci::new`); meanwhile another thread tells it the size of the terminal.
/// handle.resize(80, 25);
/// // After the end of the machine, nothing that the guest has sent is lost.
/// assert!(handle.drain(Duration::MAX));
/// # Ok::<(), io::Error>(())
/// ```
pub struct VirtioConsole {
    /// The ports, until the device is connected.
    described: Vec<ConsolePort>,
    queue_sizes: Vec<u16>,
    ports: Vec<Port>,
    link: ControlLink,
    control_transmit: Option<VirtQueue>,
    drains: Arc<OnceLock<Vec<Drain>>>,
}

/// A connected port.
struct Port {
    kind: Kind,
    input: Option<Input>,
    output: Output,
}

/// The way to a console device for other threads than the machine's.
#[derive(Clone)]
pub struct ConsoleHandle {
    link: ControlLink,
    drains: Arc<OnceLock<Vec<Drain>>>,
}

/// The saved state.
#[derive(Serialize, Deserialize)]
struct State {
    control: ControlState,
    /// The state of each port's input, if it has one.
    inputs: Vec<Option<InputState>>,
    /// Whether the guest has closed each port.
    closing: Vec<bool>,
}

impl VirtioConsole {
    /// Creates a device with `ports`, whose numbers in the guest are their places here.
    ///
    /// # Panics
    /// If there is no port, or there are more than 256.
    pub fn new(ports: Vec<ConsolePort>) -> Self {
        assert!((1..=MOST_PORTS).contains(&ports.len()));
        let queue_sizes = (0..2 * (ports.len() + 1)).map(|queue| match queue {
            CONTROL_RECEIVE | CONTROL_TRANSMIT => CONTROL_QUEUE,
            _ => DATA_QUEUE,
        });
        Self {
            queue_sizes: queue_sizes.collect(),
            ports: Vec::new(),
            link: ControlLink::new(Control::new(&ports)),
            described: ports,
            control_transmit: None,
            drains: Arc::default(),
        }
    }

    /// Returns the way to the device for other threads.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle {
            link: self.link.clone(),
            drains: Arc::clone(&self.drains),
        }
    }

    /// Takes the messages that the driver has sent.
    fn receive(&self) {
        if let Some(queue) = &self.control_transmit {
            queue.serve_all(|sent, _| {
                if let Some(message) = header(sent)? {
                    self.handle_message(message);
                }
                Ok(0)
            });
        }
    }

    fn handle_message(&self, message: [u8; HEADER]) {
        let Some(opening) = self.link.update(|control| control.receive(message)) else {
            return;
        };
        let port = &self.ports[opening.port];
        if let Some(input) = &port.input {
            input.set_open(opening.open);
        }
        if !opening.open && port.kind == Kind::Generic {
            port.output.close();
        }
    }

    /// Lets the inputs know which ports the guest has open.
    fn show_openings(&self) {
        for (number, port) in self.ports.iter().enumerate() {
            if let Some(input) = &port.input {
                input.set_open(self.link.look(|control| control.is_open(number)));
            }
        }
    }
}

impl ConsoleHandle {
    /// Sets the size of all terminals in characters, also before the machine runs.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.link.resize(columns, rows);
    }

    /// Waits until all that the guest has sent is written, for `patience` at most, and returns whether it is.
    ///
    /// A program that ends loses what is not written. A machine that goes on in another process after it was saved may write
    /// there before this one has written the rest.
    pub fn drain(&self, patience: Duration) -> bool {
        let deadline = Instant::now().checked_add(patience);
        let drains = self.drains.get();
        drains
            .into_iter()
            .flatten()
            .all(|drain| drain.wait(deadline))
    }

    /// Takes the error by which output of the guest was lost, if there was one. That nobody reads a pipe any more is none.
    pub fn take_output_error(&self) -> Option<io::Error> {
        let drains = self.drains.get();
        drains.into_iter().flatten().find_map(Drain::take_error)
    }
}

impl VirtioDevice for VirtioConsole {
    fn device_type(&self) -> u16 {
        VIRTIO_ID_CONSOLE as u16
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        F_SIZE | F_MULTIPORT
    }

    fn config(&self) -> Vec<u8> {
        self.link.look(Control::config)
    }

    fn connect(
        &mut self,
        queues: &[VirtQueue],
        interrupt: &Interrupt,
        threads: &Threads,
    ) -> io::Result<()> {
        self.link.connect(&queues[CONTROL_RECEIVE], interrupt);
        self.control_transmit = Some(queues[CONTROL_TRANSMIT].clone());
        for (number, port) in std::mem::take(&mut self.described).into_iter().enumerate() {
            let receive = receive_queue(number);
            let input = port
                .input
                .map(|file| Input::start(number, &queues[receive], file, &self.link, threads))
                .transpose()?;
            let link = self.link.clone();
            let stopper = input.as_ref().map(Input::stopper);
            let output = Output::start(&queues[receive + 1], port.output, threads, move || {
                link.update(|control| control.remove(number));
                if let Some(stopper) = stopper {
                    stopper.stop();
                }
            })?;
            self.ports.push(Port {
                kind: port.kind,
                input,
                output,
            });
        }
        let drains = self.ports.iter().map(|port| port.output.drain());
        let _ = self.drains.set(drains.collect());
        Ok(())
    }

    fn activate(&mut self, features: u64) {
        let multiport = features & F_MULTIPORT != 0;
        self.link.update(|control| control.activate(multiport));
        self.show_openings();
    }

    fn notify(&mut self, queue: usize) {
        match queue {
            CONTROL_RECEIVE => self.link.update(|_| ()),
            CONTROL_TRANSMIT => self.receive(),
            _ => {
                let port = &self.ports[port_of(queue)];
                match (queue.is_multiple_of(2), &port.input) {
                    (true, Some(input)) => input.wake(),
                    (true, None) => {}
                    (false, _) => port.output.take(),
                }
            }
        }
    }

    fn reset(&mut self) {
        self.link.update(Control::reset);
        self.show_openings();
    }

    fn save(&self) -> Result<Vec<u8>, DeviceStateError> {
        // What the guest has sent, and was taken, is written by this process.
        let inputs = self.ports.iter().map(|port| {
            let input = port.input.as_ref();
            input.map(|input| input.save().ok_or(DeviceStateError::Unsupported))
        });
        let inputs: Result<Vec<_>, _> = inputs.map(Option::transpose).collect();
        let closing = self.ports.iter().map(|port| port.output.is_closing());
        encode_state(&State {
            inputs: inputs?,
            control: self.link.look(|control| control.state().clone()),
            closing: closing.collect(),
        })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), DeviceStateError> {
        let State {
            control,
            inputs,
            closing,
        } = decode_state(state)?;
        let ports = self.ports.len();
        let impossible = Err(DeviceStateError::Impossible("the ports of a console"));
        if inputs.len() != ports
            || closing.len() != ports
            || !self.link.update(|state| state.restore(control))
        {
            return impossible;
        }
        for (number, (port, (saved, closing))) in self
            .ports
            .iter()
            .zip(inputs.into_iter().zip(closing))
            .enumerate()
        {
            let restored = match (&port.input, saved) {
                (None, None) => true,
                (Some(input), Some(saved)) => input.restore(saved),
                _ => false,
            };
            if !restored {
                return impossible;
            }
            let removed = self.link.look(|control| control.is_removed(number));
            if closing || removed {
                port.output.close();
            }
            if let (true, Some(input)) = (removed, &port.input) {
                input.stopper().stop();
            }
        }
        Ok(())
    }
}

/// The header of a message, or `None` if it is too short to have one.
fn header(mut sent: Reader<'_>) -> Result<Option<[u8; HEADER]>, Malformed> {
    let mut header = [0; HEADER];
    if sent.available_bytes() < HEADER {
        log::debug!("virtio-console: the driver sent a message that is too short");
        return Ok(None);
    }
    sent.read_exact(&mut header)?;
    Ok(Some(header))
}

/// The number of a port's receive queue, before its transmit queue. The control queues come after those of port 0.
fn receive_queue(port: usize) -> usize {
    match port {
        0 => 0,
        port => 2 * (port + 1),
    }
}

/// The port that has a queue.
fn port_of(queue: usize) -> usize {
    (queue / 2).saturating_sub(1)
}
