//! A serial port on the bus, and its backend, the host's end of the cable.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use irq::Level;
use parking_lot::Mutex;

use super::uart::Uart;
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
    /// The time at which the device is to be advanced: [`NOW`], [`NEVER`], or a time of the UART's. Written by those who hold
    /// the lock.
    due: AtomicU64,
}

const LINE: usize = 0;
/// The times of what is to be done at once, and of nothing.
const NOW: u64 = 0;
const NEVER: u64 = u64::MAX;

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
        let (level, dipped) = (uart.interrupt(), uart.take_dip());
        self.0.due.store(uart.due(), Ordering::Release);
        drop(uart);
        if dipped {
            context.set_line(LINE, Level::Low);
        }
        context.set_line(LINE, level);
        result
    }
}

impl SerialBackend {
    /// The number of bytes that [`Self::send`] should be given at present.
    pub fn room(&self) -> usize {
        self.0.uart.lock().room()
    }

    /// Sends `bytes` to the guest. Those above [`Self::room`] wait like the others. The guest's interrupt line follows when
    /// the device is advanced.
    pub fn send(&self, bytes: &[u8]) {
        self.send_by(|uart| uart.send(bytes));
    }

    /// Sends a break to the guest, after all bytes sent before.
    pub fn send_break(&self) {
        self.send_by(Uart::send_break);
    }

    fn send_by(&self, send: impl FnOnce(&mut Uart)) {
        let mut uart = self.0.uart.lock();
        send(&mut uart);
        self.0.due.store(NOW, Ordering::Release);
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
        let due = self.0.due.load(Ordering::Acquire);
        if due != NEVER && due <= context.now() {
            let now = context.now();
            self.with_uart(context, |uart| uart.advance(now));
        }
    }

    fn next_deadline(&self, _: u64) -> Option<u64> {
        let due = self.0.due.load(Ordering::Acquire);
        (due != NEVER).then_some(due)
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&*self.0.uart.lock())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        let restored = decode_state::<Uart>(state)?;
        restored.check()?;
        let mut uart = self.0.uart.lock();
        *uart = restored;
        self.0.due.store(NOW, Ordering::Release);
        Ok(())
    }
}
