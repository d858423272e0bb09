//! A serial port on the bus, and its backend, the host's end of the cable.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::uart::{Uart, UartState};
use crate::bus::{Device, DeviceContext, DeviceStateError, IoAccess, decode_state, encode_state};

/// A serial port as a device with eight I/O ports and an interrupt line.
#[derive(Debug)]
pub struct SerialPort(Arc<Shared>);

/// The backend of a serial port: the host's end of its cable.
#[derive(Clone, Debug)]
pub struct SerialBackend(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    uart: Mutex<Uart>,
    /// Whether bytes were sent since the device was last advanced.
    sent: AtomicBool,
}

const LINE: usize = 0;

impl SerialPort {
    /// Creates a serial port and its backend.
    pub fn new() -> (Self, SerialBackend) {
        let shared = Arc::<Shared>::default();
        (Self(Arc::clone(&shared)), SerialBackend(shared))
    }

    /// Calls `action` with the UART, then drives the line.
    fn with_uart<R>(
        &self,
        context: &mut DeviceContext<'_>,
        action: impl FnOnce(&mut Uart) -> R,
    ) -> R {
        let mut uart = self.0.uart.lock();
        let result = action(&mut uart);
        let level = uart.interrupt();
        drop(uart);
        context.set_line(LINE, level);
        result
    }
}

impl SerialBackend {
    /// The number of bytes that [`Self::send`] takes at present.
    pub fn room(&self) -> usize {
        self.0.uart.lock().room()
    }

    /// Sends `bytes`, at most [`Self::room`] of them, to the guest. Its interrupt line follows when the device is advanced.
    pub fn send(&self, bytes: &[u8]) {
        self.0.uart.lock().send(bytes);
        self.0.sent.store(true, Ordering::Release);
    }

    /// Takes what the guest has transmitted since the last call.
    pub fn take_transmitted(&self) -> Vec<u8> {
        self.0.uart.lock().take_transmitted()
    }
}

impl Device for SerialPort {
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64 {
        self.with_uart(context, |uart| uart.read(access.offset as u8))
            .into()
    }

    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        self.with_uart(context, |uart| {
            uart.write(access.offset as u8, value as u8);
        });
    }

    fn advance(&mut self, context: &mut DeviceContext<'_>) {
        if self.0.sent.load(Ordering::Relaxed) && self.0.sent.swap(false, Ordering::Acquire) {
            self.with_uart(context, |_| ());
        }
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&self.0.uart.lock().save())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        let uart = Uart::restore(decode_state::<UartState>(state)?)?;
        *self.0.uart.lock() = uart;
        self.0.sent.store(true, Ordering::Release);
        Ok(())
    }
}
