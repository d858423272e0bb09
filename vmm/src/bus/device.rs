//! [`Device`]: what is on the bus, whether this library's or a program's.

use std::os::fd::BorrowedFd;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::context::DeviceContext;

/// A device on the bus.
///
/// ```
/// use vmm::{
///     IoAccess, Device, DeviceContext, Kernel, Resources, Source, StopReason, Vm, VmConfig,
///     console::pipe,
/// };
///
/// /// Reads as a number that goes up by one each time.
/// struct Counter(u8);
///
/// impl Device for Counter {
///     fn read(&mut self, _: IoAccess, _: &mut DeviceContext<'_>) -> u64 {
///         self.0 += 1;
///         self.0.into()
///     }
///
///     fn write(&mut self, _: IoAccess, value: u64, _: &mut DeviceContext<'_>) {
///         self.0 = value as u8;
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = Kernel::flat(vec![
///     0xe4, 0x50, // in al, 50h
///     0xe4, 0x50, // in al, 50h
///     0xe6, 0xf4, // out F4h, al  ; ends the machine
/// ]);
/// let source = Source {
///     kernel: &kernel,
///     initrd: &[],
///     cmdline: "",
/// };
/// let mut vm = Vm::boot(&VmConfig::default(), &source)?;
/// vm.attach(Resources::new("counter").ports(0x50..=0x50), Counter(40))?;
/// let (mut line, _) = pipe()?;
/// assert!(matches!(vm.run(&mut line), StopReason::DebugExit(42)));
/// # Ok(())
/// # }
/// ```
///
/// The machine calls a device on the thread that it runs on, and hands it what the device may use in a [`DeviceContext`]. A
/// device that other threads have a part in shares its state with them. When they have changed it they call
/// [`crate::Control::wake`] or make [`Self::wakeup`] readable; [`Self::advance`] then takes notice of it. No device may hold
/// a lock while it calls the context.
pub trait Device: Send {
    /// Reads a register. Bits above the access's width are ignored.
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64;

    /// Writes a register. Bits of `value` above the access's width are zero.
    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>);

    /// Brings the device to the present. Called before each slice of the guest, about every 250 µs; after each wait in HLT,
    /// so also when [`Self::wakeup`] is readable; and before each access to the interrupt controllers.
    fn advance(&mut self, _context: &mut DeviceContext<'_>) {}

    /// The next time in nanoseconds at which [`Self::advance`] has something to do, if any: a halted processor does not
    /// sleep longer.
    fn next_deadline(&self, _now: u64) -> Option<u64> {
        None
    }

    /// A file descriptor that is readable when [`Self::advance`] has something to do: a halted processor sleeps no longer.
    /// `advance` has to read it until it is not readable any more.
    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The state that [`Self::restore`] takes, at time `now`. [`encode_state`] makes bytes of a structure.
    ///
    /// # Errors
    /// [`DeviceStateError::Unsupported`] unless the device implements this.
    fn save(&self, _now: u64) -> Result<Vec<u8>, DeviceStateError> {
        Err(DeviceStateError::Unsupported)
    }

    /// Takes over a saved state, which may have come from anywhere, into a device that was attached like the one saved. The
    /// levels of its lines are restored without it; regions mapped by [`DeviceContext::map`] are the device's to map
    /// again. [`decode_state`] takes what `encode_state` gave.
    ///
    /// # Errors
    /// If the state is none of this device's.
    fn restore(
        &mut self,
        _state: &[u8],
        _context: &mut DeviceContext<'_>,
    ) -> Result<(), DeviceStateError> {
        Err(DeviceStateError::Unsupported)
    }
}

/// One access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The number of the region in the device's [`super::Resources`].
    pub region: usize,
    /// Distance from the beginning of the region.
    pub offset: u64,
    /// Width in bytes: 1, 2 or 4 at ports; 1, 2, 4 or 8 in memory.
    pub bytes: u8,
}

/// The error of saving or restoring a device's state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceStateError {
    /// The device has no state that can be saved.
    #[error("its state cannot be saved")]
    Unsupported,
    /// The bytes are not those of such a structure.
    #[error("malformed state: {0}")]
    Malformed(#[from] postcard::Error),
    /// A field has a value that the device cannot have.
    #[error("impossible value of {0}")]
    Impossible(&'static str),
}

/// Makes bytes of a saved state.
///
/// # Errors
/// If the structure has parts that postcard cannot write.
pub fn encode_state(state: &impl Serialize) -> Result<Vec<u8>, DeviceStateError> {
    Ok(postcard::to_stdvec(state)?)
}

/// Reads a saved state, all of `bytes`.
///
/// # Errors
/// If the bytes are not those of a `T`.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DeviceStateError> {
    match postcard::take_from_bytes(bytes)? {
        (state, []) => Ok(state),
        _ => Err(DeviceStateError::Impossible("the length")),
    }
}
