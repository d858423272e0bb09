//! Saving and restoring the devices on a bus.

use irq::Level;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Environment, SystemBus, device::DeviceStateError};

/// The saved state of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// The name of the device.
    pub name: String,
    /// Whether the device drives each of its lines high.
    pub lines: Vec<bool>,
    /// The bytes that the device encoded.
    pub state: Vec<u8>,
}

/// The error of saving or restoring the devices on a bus.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BusStateError {
    /// A device cannot be saved, or its saved state is impossible.
    #[error("device {name:?}: {error}")]
    Device {
        /// The name of the device.
        name: String,
        /// The device's error.
        error: DeviceStateError,
    },
    /// A state belongs to a device that is not attached.
    #[error("there is no device {0:?} to restore")]
    NoSuchDevice(String),
    /// An attached device has no state, or more than one.
    #[error("no state, or several, for device {0:?}")]
    NotOneState(String),
}

impl SystemBus {
    /// Saves all devices at time `now`.
    pub(crate) fn save(&self, now: u64) -> Result<Vec<DeviceState>, BusStateError> {
        let saved = self.attached().map(|attached| {
            let name = attached.name.clone();
            let lines = attached.lines.iter();
            match attached.device.save(now) {
                Ok(state) => Ok(DeviceState {
                    name,
                    lines: lines.map(|line| line.level().is_high()).collect(),
                    state,
                }),
                Err(error) => Err(BusStateError::Device { name, error }),
            }
        });
        saved.collect()
    }

    /// Restores all devices, after the chipset. On an error some of them are restored.
    pub(crate) fn restore(
        &mut self,
        states: &[DeviceState],
        environment: &mut Environment<'_>,
    ) -> Result<(), BusStateError> {
        for attached in self.attached() {
            let of_it = states.iter().filter(|state| state.name == attached.name);
            if of_it.count() != 1 {
                return Err(BusStateError::NotOneState(attached.name.clone()));
            }
        }
        for state in states {
            self.restore_device(state, environment)?;
        }
        Ok(())
    }

    fn restore_device(
        &mut self,
        state: &DeviceState,
        environment: &mut Environment<'_>,
    ) -> Result<(), BusStateError> {
        let number = self.find(&state.name);
        let number = number.ok_or_else(|| BusStateError::NoSuchDevice(state.name.clone()))?;
        let restored = self.call(number, environment, |device, context| {
            if context.lines.len() != state.lines.len() {
                return Err(DeviceStateError::Impossible("the number of lines"));
            }
            for (line, &high) in state.lines.iter().enumerate() {
                context.set_line(line, Level::from_active(high));
            }
            device.restore(&state.state, context)
        });
        match restored {
            Some(Err(error)) => Err(BusStateError::Device {
                name: state.name.clone(),
                error,
            }),
            _ => Ok(()),
        }
    }
}
