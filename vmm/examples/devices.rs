//! Boots Linux with a disk and a directory of the host: the guest copies from one to the other, and back.
//!
//! `cargo run --release --example devices`; `cargo test` runs it, too.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use guest_kernels::{ALIGNMENT, Guest, Mount, Stage, fetch, modules_archive, mounts_archive};
use vmm::{
    BootSource, Kernel, Machine, StopReason, Threads, Vm, VmConfig,
    console::pipe,
    devices::{
        pci::PciHost,
        virtio::{Disk, Fs, VirtioDevices},
    },
    fuse,
    loader::{Cache, linux_cmdline},
    tsc::TscMeter,
};

const PROMPT: &str = "root@replex:~# ";
/// A time many times as long as anything here takes on a slow host.
const PATIENCE: Duration = Duration::from_secs(600);

/// The name by which the guest mounts the directory, and the place.
const TAG: &str = "work";
const PLACE: &str = "/work";

/// The first bytes of the disk.
const BEFORE: &str = "written by the host\n";

fn main() -> Result<()> {
    let (copied, disk) = copy()?;
    println!("the directory has {copied:?}, the disk {disk:?}");
    Ok(())
}

/// Lets a guest copy the beginning of a disk into a directory, and put it on the disk in other letters. Returns what is then in
/// the directory and at the beginning of the disk.
fn copy() -> Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    let shared = folder.path().join("shared");
    fs::create_dir(&shared)?;
    let mut sectors = vec![0; 1 << 20];
    sectors[..BEFORE.len()].copy_from_slice(BEFORE.as_bytes());
    fs::write(&image, sectors)?;

    let vm = boot(devices(&image, &shared)?)?;
    let (line, mut terminal) = pipe()?;
    let (machine, _) = Machine::start(vm, line)?;
    let length = BEFORE.len();
    for command in [
        &*format!("head -c {length} /dev/vda > {PLACE}/copied"),
        &*format!("tr a-z A-Z < {PLACE}/copied | dd of=/dev/vda conv=notrunc,fsync"),
        &*format!("umount {PLACE}"),
        "poweroff -f",
    ] {
        terminal.read_until(PROMPT, PATIENCE)?;
        terminal.send(format!("{command}\r"));
    }
    let (_, stop) = machine.join()?;
    ensure!(matches!(stop, StopReason::PowerOff), "{stop}");

    let copied = fs::read_to_string(shared.join("copied"))?;
    let disk = fs::read(&image)?[..length].to_vec();
    Ok((copied, String::from_utf8(disk)?))
}

/// Opens the devices.
fn devices(image: &Path, shared: &Path) -> Result<VirtioDevices> {
    let disk = Disk::open(&image.display().to_string().parse()?)?;
    let server = fuse::Server::new(shared, fuse::Config::default())?;
    let mut devices = VirtioDevices::default();
    devices
        .add("disk", Box::new(disk))
        .add("directory", Box::new(Fs::new(TAG, server)?));
    Ok(devices)
}

/// Makes a machine with Debian's kernel and the devices, whose drivers its init loads.
fn boot(devices: VirtioDevices) -> Result<Vm> {
    let tsc = TscMeter::start();
    let mut progress = |stage: &Stage| eprintln!("{stage}");
    let guest = Guest::default();
    let modules = modules_archive(guest, &devices.linux_modules(), &mut progress)?;
    let images = fetch(guest, &mut progress)?;
    let kernel = fs::read(&images.kernel).context("kernel")?;
    let kernel = Kernel::read(kernel, Cache::of_user().as_ref(), &mut |_| ())?;
    let mount = Mount {
        tag: TAG.into(),
        path: PLACE.into(),
        read_only: false,
    };
    let mut initrd = fs::read(&images.initrd).context("initrd")?;
    for archive in [modules, mounts_archive(None, &[mount])] {
        initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
        initrd.extend(archive);
    }
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &linux_cmdline(tsc.khz()),
    };
    let mut vm = Vm::boot(&VmConfig::default(), &source)?;
    vm.attach(
        PciHost::resources(),
        devices.into_host(&Threads::default())?,
    )?;
    Ok(vm)
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{Write as _, stderr},
    };

    use super::*;

    #[test]
    fn the_guest_copies_from_disk_to_directory_and_back() -> Result<()> {
        let offline = env::var_os("REPLEX_OFFLINE").is_some_and(|value| value == "1");
        if let Err(error) = fetch(Guest::default(), &mut |_: &Stage| ())
            && offline
        {
            // Past the test runner's capture: a skipped test must not look like one that ran.
            let _ = writeln!(stderr(), "skipped, REPLEX_OFFLINE is set: {error}");
            return Ok(());
        }
        let after = "WRITTEN BY THE HOST\n";
        assert_eq!(copy()?, (BEFORE.to_owned(), after.to_owned()));
        Ok(())
    }
}
