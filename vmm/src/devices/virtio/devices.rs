//! [`VirtioDevices`]: the virtio devices of a machine, on their way behind a host bridge of PCI.

use std::io;

use thiserror::Error;
use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_FS, VIRTIO_ID_NET, VIRTIO_ID_RNG,
};

use super::{device::VirtioDevice, transport::VirtioPci};
use crate::{
    devices::pci::{NoSlot, PciHost},
    threads::Threads,
};

/// Linux's module with the transport of all virtio devices.
const TRANSPORT: &str = "virtio_pci";

/// The virtio devices that a machine is to have.
///
/// ```
/// use vmm::{
///     BootSource, Kernel, StopReason, Threads, Vm, VmConfig,
///     console::pipe,
///     devices::{
///         pci::PciHost,
///         virtio::{Disk, Fs, Net, Rng, VirtioDevices},
///     },
///     fuse, net,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # std::fs::write(folder.path().join("image"), [0; 4096])?;
/// # let image = folder.path().join("image").display().to_string();
/// let shared = fuse::Server::new(folder.path(), fuse::Config::default())?;
/// let mut devices = VirtioDevices::default();
/// devices
///     .add("disk", Box::new(Disk::open(&format!("{image},snapshot").parse()?)?))
///     .add("folder", Box::new(Fs::new("work", shared)?))
///     .add("network", Box::new(Net::new(&net::Config::default())?))
///     .add("entropy", Box::new(Rng::default()));
/// assert_eq!(
///     devices.linux_modules(),
///     ["virtio_pci", "virtio_blk", "virtiofs", "virtio_net", "virtio-rng"]
/// );
///
/// # let kernel = Kernel::flat(vec![0xb0, 0x2a, 0xe6, 0xf4]);
/// # let source = BootSource { kernel: &kernel, initrd: &[], cmdline: "" };
/// let mut vm = Vm::boot(&VmConfig::default(), &source)?;
/// vm.attach(PciHost::resources(), devices.into_host(&Threads::default())?)?;
/// # let (mut line, _) = pipe()?;
/// # assert!(matches!(vm.run(&mut line), StopReason::DebugExit(0x2a)));
/// # Ok(())
/// # }
/// ```
///
/// `examples/devices.rs` boots Linux with a disk and a shared directory.
#[derive(Default)]
pub struct VirtioDevices(Vec<(String, Box<dyn VirtioDevice>)>);

/// The error of a device that a machine cannot have.
#[derive(Debug, Error)]
pub enum VirtioDevicesError {
    /// The host does not grant what the host bridge needs.
    #[error("PCI")]
    Host(#[source] io::Error),
    /// The host does not grant what the device needs.
    #[error("{name}")]
    Start {
        /// The name that the device was added by.
        name: String,
        /// The host's reason.
        source: io::Error,
    },
    /// There are too many devices.
    #[error("{name}")]
    NoSlot {
        /// The name that the device was added by.
        name: String,
        /// The reason.
        source: NoSlot,
    },
}

impl VirtioDevices {
    /// Adds a device. Errors call it `name`; the guest finds the devices in the order in which they were added.
    pub fn add(&mut self, name: impl Into<String>, device: Box<dyn VirtioDevice>) -> &mut Self {
        self.0.push((name.into(), device));
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Linux's modules with the drivers, each once, in an order in which they can be loaded.
    pub fn linux_modules(&self) -> Vec<&'static str> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut modules = vec![TRANSPORT];
        for module in self.0.iter().filter_map(|(_, device)| driver(&**device)) {
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
        modules
    }

    /// Starts the devices, whose threads begin as `threads` says, and puts them behind a host bridge, which takes its place by
    /// [`crate::Vm::attach`] with [`PciHost::resources`], or goes to [`crate::Vm::restore`].
    ///
    /// # Errors
    /// If the host does not grant what a device needs, or there are too many.
    pub fn into_host(self, threads: &Threads) -> Result<PciHost, VirtioDevicesError> {
        let mut host = PciHost::new().map_err(VirtioDevicesError::Host)?;
        for (name, device) in self.0 {
            let function = match VirtioPci::with_threads(device, host.doorbell(), threads) {
                Ok(function) => function,
                Err(source) => return Err(VirtioDevicesError::Start { name, source }),
            };
            if let Err(source) = host.add(function) {
                return Err(VirtioDevicesError::NoSlot { name, source });
            }
        }
        Ok(host)
    }
}

/// Linux's module with the driver of a device, if it has one.
fn driver(device: &dyn VirtioDevice) -> Option<&'static str> {
    match u32::from(device.device_type()) {
        VIRTIO_ID_NET => Some("virtio_net"),
        VIRTIO_ID_BLOCK => Some("virtio_blk"),
        VIRTIO_ID_CONSOLE => Some("virtio_console"),
        VIRTIO_ID_RNG => Some("virtio-rng"),
        VIRTIO_ID_FS => Some("virtiofs"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::Rng;

    #[test]
    fn modules_are_named_once_and_only_for_devices() {
        let mut devices = VirtioDevices::default();
        assert_eq!(devices.linux_modules(), Vec::<&str>::new());
        for name in ["a", "b"] {
            devices.add(name, Box::<Rng>::default());
        }
        assert_eq!(devices.linux_modules(), [TRANSPORT, "virtio-rng"]);
    }

    #[test]
    fn the_device_for_which_there_is_no_room_is_named() {
        let mut devices = VirtioDevices::default();
        for number in 1..=32 {
            devices.add(format!("device {number}"), Box::<Rng>::default());
        }
        let Err(error) = devices.into_host(&Threads::default()) else {
            panic!("32 devices and a host bridge");
        };
        assert_eq!(error.to_string(), "device 32");
        assert!(matches!(error, VirtioDevicesError::NoSlot { .. }));
    }
}
