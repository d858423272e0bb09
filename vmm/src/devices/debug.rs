//! Ports for software that is being developed: POST code (0x80), debug console (0xe9) and debug exit (0xf4).

use std::{mem, sync::Arc};

use parking_lot::Mutex;

use crate::bus::{
    Device, DeviceContext, DeviceStateError, IoAccess, Stop, decode_state, encode_state,
};

/// The POST code port, which ignores writes and reads as ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostCode;

/// The debug console, a port that takes text without flow control.
#[derive(Debug)]
pub struct DebugConsole(Arc<Mutex<Vec<u8>>>);

/// The backend of the debug console: the host's end.
#[derive(Clone, Debug)]
pub struct DebugBackend(Arc<Mutex<Vec<u8>>>);

/// The debug exit port, which ends the machine when written and reads as ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugExit;

/// The value of a read of the debug console, by which software detects it.
const DEBUG_CONSOLE_PRESENT: u8 = 0xe9;

impl DebugConsole {
    /// Creates a debug console and its backend.
    pub fn new() -> (Self, DebugBackend) {
        let output = Arc::<Mutex<Vec<u8>>>::default();
        (Self(Arc::clone(&output)), DebugBackend(output))
    }
}

impl DebugBackend {
    /// Takes what the guest has written since the last call.
    pub fn take_output(&self) -> Vec<u8> {
        mem::take(&mut self.0.lock())
    }
}

impl Device for PostCode {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: IoAccess, _: u64, _: &mut DeviceContext<'_>) {}

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        decode_state(state)
    }
}

impl Device for DebugConsole {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        DEBUG_CONSOLE_PRESENT.into()
    }

    fn write(&mut self, _: IoAccess, value: u64, _: &mut DeviceContext<'_>) {
        self.0.lock().push(value as u8);
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&*self.0.lock())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        *self.0.lock() = decode_state(state)?;
        Ok(())
    }
}

impl Device for DebugExit {
    fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: IoAccess, value: u64, context: &mut DeviceContext<'_>) {
        context.stop(Stop::DebugExit(value as u8));
    }

    fn save(&self, _: u64) -> Result<Vec<u8>, DeviceStateError> {
        encode_state(&())
    }

    fn restore(&mut self, state: &[u8], _: &mut DeviceContext<'_>) -> Result<(), DeviceStateError> {
        decode_state(state)
    }
}
