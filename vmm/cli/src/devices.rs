//! The devices that the command line adds to a PC: virtio devices behind a host bridge of PCI, which is there only with them.

use anyhow::{Context, Result};
use vmm::{
    Threads, Vm,
    devices::{
        pci::PciHost,
        virtio::{Disk, Rng, VirtioDevice, VirtioPci},
    },
};

use crate::{
    args::DeviceArgs,
    net::{self, Network},
    share::Shares,
};

/// A device that the command line asks for.
pub struct Wanted {
    /// The option, for errors.
    option: String,
    /// Linux's modules with the driver, and with what its users need.
    drivers: &'static [&'static str],
    device: Box<dyn VirtioDevice>,
}

/// Linux's module with the transport of all virtio devices.
const TRANSPORT: &str = "virtio_pci";

impl Wanted {
    /// Returns the device that `option` asks for.
    pub fn new(
        option: String,
        drivers: &'static [&'static str],
        device: impl VirtioDevice + 'static,
    ) -> Self {
        let device = Box::new(device);
        Self {
            option,
            drivers,
            device,
        }
    }
}

/// Opens what the devices need that `args`, `network` and `shares` ask for.
///
/// # Errors
/// If the host does not grant it, or a file cannot be used.
pub fn open(args: &DeviceArgs, network: Network, shares: &Shares) -> Result<Vec<Wanted>> {
    let mut devices = Vec::new();
    for config in &args.disk {
        let option = format!("--disk {}", config.path.display());
        let drivers = &["virtio_blk", "crc32c_generic", "ext4"];
        let disk = Disk::open(config).context("--disk")?;
        devices.push(Wanted::new(option, drivers, disk));
    }
    if args.rng {
        let rng = Rng::default();
        devices.push(Wanted::new("--rng".into(), &["virtio-rng"], rng));
    }
    for shared in shares.open()? {
        let option = shared.option.into();
        devices.push(Wanted::new(option, shared.drivers, shared.device));
    }
    if let Some(card) = net::card(network, &args.publish)? {
        devices.push(Wanted::new("--net".into(), &["virtio_net"], card));
    }
    Ok(devices)
}

/// Linux's modules for `devices`.
pub fn drivers(devices: &[Wanted]) -> Vec<&'static str> {
    if devices.is_empty() {
        return Vec::new();
    }
    let drivers = devices.iter().flat_map(|wanted| wanted.drivers);
    [TRANSPORT].iter().chain(drivers).copied().collect()
}

/// Attaches `devices` to the machine. Their threads begin as `threads` says.
///
/// # Errors
/// If the host does not grant what a device needs, or there are too many.
pub fn attach(devices: Vec<Wanted>, vm: &mut Vm, threads: &Threads) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut pci = PciHost::new().context("PCI")?;
    for Wanted { option, device, .. } in devices {
        let function = VirtioPci::with_threads(device, pci.doorbell(), threads)
            .with_context(|| option.clone())?;
        pci.add(function).context(option)?;
    }
    vm.attach(PciHost::resources(), pci).context("PCI")
}
