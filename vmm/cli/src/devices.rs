//! The devices that the command line adds to a PC: virtio devices behind a host bridge of PCI, which is there only with them.

use anyhow::{Context, Result};
use vmm::{
    Vm,
    devices::{
        pci::PciHost,
        virtio::{Disk, Rng, VirtioDevice, VirtioDevices},
    },
};

use crate::{args::BootArgs, net, share};

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

/// Opens what the devices need that `args` ask for.
///
/// # Errors
/// If the host does not grant it, or a file cannot be used.
pub fn open(args: &BootArgs) -> Result<Vec<Wanted>> {
    let mut devices = Vec::new();
    for config in &args.disk {
        devices.push(Wanted {
            option: format!("--disk {}", config.path.display()),
            drivers: &["virtio_blk", "crc32c_generic", "ext4"],
            device: Box::new(Disk::open(config).context("--disk")?),
        });
    }
    if args.rng {
        devices.push(Wanted {
            option: "--rng".into(),
            drivers: &["virtio-rng"],
            device: Box::new(Rng::default()),
        });
    }
    for shared in share::open(args)? {
        devices.push(Wanted {
            option: shared.option.into(),
            drivers: shared.drivers,
            device: Box::new(shared.device),
        });
    }
    if let Some(card) = net::card(&args.net, &args.publish)? {
        devices.push(Wanted {
            option: "--net".into(),
            drivers: &["virtio_net"],
            device: Box::new(card),
        });
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

/// Attaches `devices` to the machine.
///
/// # Errors
/// If the host does not grant what a device needs, or there are too many.
pub fn attach(devices: Vec<Wanted>, vm: &mut Vm) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut virtio = VirtioDevices::default();
    for Wanted { option, device, .. } in devices {
        virtio.add(option, device);
    }
    let pci = virtio.into_host()?;
    vm.attach(PciHost::resources(), pci).context("PCI")
}
