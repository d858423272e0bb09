//! [`Device`]: the interface of everything on the bus, whether a PC's own or a program's.

use std::os::fd::BorrowedFd;

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::context::DeviceContext;

/// A device on the bus.
///
/// ```
/// use vmm::{
///     BootSource, Device, DeviceContext, IoAccess, Kernel, Resources, StopReason, Vm, VmConfig,
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
///     0xe4, 0x50, // in al, 0x50
///     0xe4, 0x50, // in al, 0x50
///     0xe6, 0xf4, // out 0xf4, al  ; ends the machine
/// ]);
/// let source = BootSource {
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
/// The machine calls a device on the thread that it runs on, and hands it a [`DeviceContext`]. A device with a
/// part on other threads shares its state with them. After a change they call [`crate::Control::wake`] or make
/// [`Self::wakeup`] readable, and [`Self::advance`] acts on it. A device must hold no lock while it calls the context.
pub trait Device: Send {
    /// Reads a register. Bits above the access's width are ignored.
    fn read(&mut self, access: IoAccess, context: &mut DeviceContext<'_>) -> u64;

    /// Writes a register. Bits of `value` above the access's width are zero.
    fn write(&mut self, access: IoAccess, value: u64, context: &mut DeviceContext<'_>);

    /// Brings the device up to the present. Called before each slice of the guest, about every 250 µs; after each wait in HLT,
    /// so also when [`Self::wakeup`] is readable; and before each access to the interrupt controllers.
    fn advance(&mut self, _context: &mut DeviceContext<'_>) {}

    /// The time in nanoseconds at which [`Self::advance`] next has something to do, if any. A halted processor sleeps no
    /// longer than that.
    fn next_deadline(&self, _now: u64) -> Option<u64> {
        None
    }

    /// A file descriptor that becomes readable when [`Self::advance`] has something to do, and so wakes a halted processor.
    /// `advance` must read from it until it is readable no more. One whose other end is closed stays readable, and keeps the
    /// halted machine busy until this returns `None`.
    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Saves the state at time `now`. [`encode_state`] turns a structure into bytes.
    ///
    /// # Errors
    /// [`DeviceStateError::Unsupported`] unless the device implements this.
    fn save(&self, _now: u64) -> Result<Vec<u8>, DeviceStateError> {
        Err(DeviceStateError::Unsupported)
    }

    /// Restores a saved state, which may come from an untrusted source, in a device that was attached with the same
    /// resources. The levels of its lines are restored by the bus; regions that were mapped by [`DeviceContext::map`] must be
    /// mapped again. [`decode_state`] is the inverse of `encode_state`.
    ///
    /// # Errors
    /// If the state cannot be one of this device.
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
    /// The device cannot save its state.
    #[error("its state cannot be saved")]
    Unsupported,
    /// The bytes are not an encoded state.
    #[error("malformed state: {0}")]
    Malformed(postcard::Error),
    /// A field has an impossible value.
    #[error("impossible value of {0}")]
    Impossible(&'static str),
}

impl From<postcard::Error> for DeviceStateError {
    fn from(error: postcard::Error) -> Self {
        Self::Malformed(error)
    }
}

/// Encodes a saved state.
///
/// # Errors
/// If postcard cannot encode the structure.
pub fn encode_state(state: &impl Serialize) -> Result<Vec<u8>, DeviceStateError> {
    Ok(postcard::to_stdvec(state)?)
}

/// Decodes a saved state from all of `bytes`.
///
/// # Errors
/// If the bytes are not an encoded `T`.
pub fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DeviceStateError> {
    match postcard::take_from_bytes(bytes)? {
        (state, []) => Ok(state),
        _ => Err(DeviceStateError::Impossible("the length")),
    }
}
