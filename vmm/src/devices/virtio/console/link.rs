//! [`ControlLink`]: the control queue to the driver, shared by the threads that have something to tell.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;

use super::{
    super::{
        interrupt::Interrupt,
        queue::{Malformed, VirtQueue, Writer},
    },
    control::Control,
};

/// The [`Control`] of a device, with the way to the driver.
#[derive(Clone)]
pub struct ControlLink(Arc<Shared>);

struct Shared {
    control: Mutex<Control>,
    /// The queue that takes messages to the driver, and the interrupt.
    driver: OnceLock<(VirtQueue, Interrupt)>,
}

impl ControlLink {
    pub fn new(control: Control) -> Self {
        Self(Arc::new(Shared {
            control: Mutex::new(control),
            driver: OnceLock::new(),
        }))
    }

    /// Takes the control receive queue and the interrupt, once.
    pub fn connect(&self, queue: &VirtQueue, interrupt: &Interrupt) {
        let _ = self.0.driver.set((queue.clone(), interrupt.clone()));
    }

    /// Carries out `change`, and sends the messages that are due as far as the driver has given buffers.
    pub fn update<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let mut control = self.0.control.lock();
        let result = change(&mut control);
        if let Some((queue, _)) = self.0.driver.get() {
            send(&mut control, queue);
        }
        result
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&Control) -> R) -> R {
        look(&self.0.control.lock())
    }

    /// Sets the size of all terminals.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.update(|control| {
            if let (true, Some((_, interrupt))) =
                (control.resize(columns, rows), self.0.driver.get())
            {
                interrupt.configuration_changed();
            }
        });
    }
}

/// Sends the messages that are due, and wants to know of new buffers if there are not enough.
fn send(control: &mut Control, queue: &VirtQueue) {
    while let Some(message) = control.next_message() {
        if queue.serve_next(|_, room| put(&message.bytes, room)) {
            control.sent(&message);
        } else if !queue.set_notifications(true) {
            return;
        }
    }
}

/// Puts a message into a buffer of the driver's, which has to be large enough.
fn put(message: &[u8], mut room: Writer<'_>) -> Result<u32, Malformed> {
    if room.available_bytes() < message.len() {
        return Err(Malformed);
    }
    room.write_all(message)?;
    Ok(message.len() as u32)
}
