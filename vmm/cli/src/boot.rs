//! `replex boot`: from arguments to a running machine.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::{
    Guest, RootChanges, added_archives, clock_archive, exec_archive, winsize_archive,
};
use vmm::{
    Start, Vm,
    loader::{BootSource, Protocol, Rom, linux_cmdline},
    tsc::{TscClock, TscMeter},
};

use crate::{
    architecture::Programs,
    args::BootArgs,
    confinement::{self, Sandbox},
    devices, images, initrd,
    message::complain,
    net::Network,
    power,
    rom::RomFile,
    session,
    share::Shares,
    signals::exit_on_signals,
    stdio::{Stdio, Wiring},
    terminal::{RawMode, restore_on_sudden_end, window_size},
};

/// Part of the kernel command line with --exec: the console shares standard error with the command, so the kernel prints only
/// critical messages.
const CMDLINE_EXEC: &str = "quiet loglevel=3";

/// Boots the machine that `args` describe and returns the program's exit status.
///
/// # Errors
/// If the arguments, or the files that they name, cannot be used.
pub fn boot(args: &BootArgs) -> Result<u8> {
    let roms = read_roms(args)?;
    let network = args.devices.net.clone().unwrap_or(Network::None);
    let shares = shares(args);
    let devices = devices::open(&args.devices, &network, &shares)?;
    let mut vm = match args.kernel.kernel.is_none() && !args.rom.is_empty() {
        true => start_in_rom(args, &roms)?,
        false => boot_kernel(args, &roms, &devices::drivers(&devices), &shares)?,
    };
    drop(roms);
    power::observe(&args.debug, &mut vm)?;
    // All that the machine needs of the host is open.
    let needed = confinement::needed(&shares, &network, args.debug.gdb.as_ref());
    let sandbox = Sandbox::enter(args.machine.sandbox, &needed)?;
    devices::attach(devices, &mut vm, &sandbox.threads())?;
    run(args, &mut vm, sandbox)
}

/// The directories that the guest gets.
fn shares(args: &BootArgs) -> Shares {
    let changes = match args.rw {
        true => RootChanges::Kept,
        false => RootChanges::Dropped,
    };
    Shares {
        root: args.root.clone().map(|dir| (dir, changes)),
        volatile: args.volatile,
        volumes: args.devices.volume.clone(),
    }
}

/// Makes a machine that is about to execute the kernel's first instruction. A guest that was fetched gets its modules `drivers`.
fn boot_kernel(args: &BootArgs, roms: &[Vec<u8>], drivers: &[&str], shares: &Shares) -> Result<Vm> {
    let guest = guest(args)?;
    let modules = images::modules(&args.kernel, guest, drivers)?;
    let (kernel_path, initrd_path) = images(args, guest)?;
    let tsc = TscMeter::start();
    let kernel = images::read_kernel(&kernel_path)?;
    check(args, initrd_path.as_deref(), kernel.protocol())?;
    let added = added_archives(&args.add, args.machine.mem).context("--add")?;
    let mut archives = match (kernel.protocol(), &initrd_path) {
        (Protocol::Linux, Some(_)) => vec![session_archive(args), shares.archive()],
        _ => Vec::new(),
    };
    archives.push(modules);
    let mut initrd = initrd::read(initrd_path.as_deref(), &args.machine, added, archives)?;
    let TscClock { tsc, unix, khz } = tsc.clock();
    // An initrd of the user's own may be no archive of Linux's.
    if args.initrd.is_none() && initrd_path.is_some() {
        initrd::append(&mut initrd, &clock_archive(tsc, unix, khz));
    }
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &cmdline(args, kernel.protocol(), khz),
    };
    let start = Start::Kernel(source);
    power::power_on(
        &args.machine,
        &args.debug,
        &placed(args, roms),
        &start,
        || power::kernel_on(&kernel_path, &args.machine),
    )
}

/// The guest that the user names, or else one that runs the programs of the root.
fn guest(args: &BootArgs) -> Result<Guest> {
    let root = args.root.as_deref();
    let programs = root.map_or_else(Programs::default, Programs::of_shell);
    programs
        .guest(args.kernel.guest)
        .with_context(|| args.kernel.what())
}

/// Returns the paths of the kernel and its initrd. Fetches them from `guest` if need be.
fn images(args: &BootArgs, guest: Guest) -> Result<(PathBuf, Option<PathBuf>)> {
    if let Some(kernel) = &args.kernel.kernel {
        return Ok((kernel.clone(), args.initrd.clone()));
    }
    let images = images::fetch(guest)?;
    let initrd = args.initrd.clone().unwrap_or(images.initrd);
    Ok((images.kernel, Some(initrd)))
}

/// Refuses options that nobody would read.
fn check(args: &BootArgs, initrd: Option<&Path>, protocol: Protocol) -> Result<()> {
    let given = [
        ("--exec", args.exec.is_some()),
        ("--add", !args.add.is_empty()),
    ];
    let given = given.into_iter().find(|&(_, given)| given);
    match (protocol, given) {
        (Protocol::Multiboot, Some((option, _))) => {
            bail!("{option}: the kernel is one for Multiboot, which has no initramfs of Linux")
        }
        (_, Some(("--exec", _))) if initrd.is_none() => {
            bail!("--exec: needs an initrd; with --kernel, give --initrd")
        }
        _ => Ok(()),
    }
}

/// Makes the archive that tells init what to do, empty if that is nothing special.
fn session_archive(args: &BootArgs) -> Vec<u8> {
    match &args.exec {
        Some(command) => exec_archive(command, None),
        None => window_size(io::stdin()).map_or_else(Vec::new, winsize_archive),
    }
}

/// Makes a machine that is about to execute the first instruction of a ROM.
fn start_in_rom(args: &BootArgs, roms: &[Vec<u8>]) -> Result<Vm> {
    let for_kernels = [
        ("--initrd", args.initrd.is_some()),
        ("--append", args.kernel.append.is_some()),
        ("--exec", args.exec.is_some()),
        ("--add", !args.add.is_empty()),
    ];
    if let Some((option, _)) = for_kernels.iter().find(|(_, given)| *given) {
        bail!("{option}: needs a kernel; with --rom, give --kernel");
    }
    let start = Start::Entry(args.entry.unwrap_or_default());
    power::power_on(
        &args.machine,
        &args.debug,
        &placed(args, roms),
        &start,
        || "--rom".into(),
    )
}

/// Runs the machine on the standard streams until it stops.
fn run(args: &BootArgs, vm: &mut Vm, sandbox: Sandbox) -> Result<u8> {
    let wiring = match &args.exec {
        Some(_) => Wiring::Exec,
        None if io::stdin().is_terminal() => Wiring::Terminal,
        None => Wiring::Streams,
    };
    let raw = match wiring {
        Wiring::Terminal => Some(RawMode::enter(io::stdin()).context("terminal")?),
        Wiring::Streams | Wiring::Exec => None,
    };
    exit_on_signals(raw.as_ref().map(RawMode::saved), None, &sandbox.threads())
        .context("signals")?;
    if let Some(raw) = &raw {
        restore_on_sudden_end(raw);
    }
    let stop = session::run_to_end(&args.debug, vm, &mut Stdio::new(wiring), sandbox)?;
    drop(raw);
    if stop.is_abnormal() {
        complain(&session::explained(&stop));
    }
    session::report(&args.machine, &args.debug, vm);
    Ok(stop.exit_status())
}

/// Reads the ROMs.
fn read_roms(args: &BootArgs) -> Result<Vec<Vec<u8>>> {
    args.rom.iter().map(RomFile::read).collect()
}

/// The ROMs with their places.
fn placed<'a>(args: &BootArgs, roms: &'a [Vec<u8>]) -> Vec<Rom<'a>> {
    let files = args.rom.iter().zip(roms);
    files.map(|(file, bytes)| file.rom(bytes)).collect()
}

/// Puts the kernel command line together. A Multiboot kernel gets the user's part only.
fn cmdline(args: &BootArgs, protocol: Protocol, tsc_khz: u64) -> String {
    let append = args.kernel.append.as_deref();
    if protocol == Protocol::Multiboot {
        return append.unwrap_or_default().into();
    }
    let linux = linux_cmdline(tsc_khz);
    let exec = args.exec.as_ref().map(|_| CMDLINE_EXEC);
    let parts = [Some(&*linux), exec, append];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
