//! `replex run`: one command in a machine, with streams of its own.
//!
//! 1. [`root`] finds the command's root, [`command`] puts the command together, [`streams`] makes the ports that it is connected by.
//! 2. The guest's init gets all that in archives behind its own, and starts the command (`guest_kernels::run_archive`).
//! 3. [`end`] waits for the command's status, and ends the machine. [`log`] keeps the guest's console, for when there is none.

mod command;
mod end;
mod environment;
mod image;
mod log;
mod root;
mod streams;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use guest_kernels::{
    AddedArchives, Architecture, FAILED, Guest, GuestCommand, GuestNetwork, GuestRoot,
    clock_archive, run_archive,
};
use vmm::{
    Kernel, Start, StopReason, Vm,
    devices::virtio::{ConsoleHandle, Disk, DiskConfig, DiskFormat},
    loader::{BootSource, Mode, Protocol, linux_cmdline},
    stop::status,
    tsc::{TscClock, TscMeter},
};

use self::{
    end::{End, Ending},
    log::Log,
    root::RootSource,
    streams::{Source, Streams},
};
use crate::{
    args::RunArgs,
    confinement::{self, Sandbox},
    devices::{self, Wanted},
    images, initrd,
    message::complain,
    net::Network,
    power, session,
    share::Shares,
    signals::exit_on_signals,
    terminal::{RawMode, restore_on_sudden_end, window_size},
    volume::Volume,
};

/// Part of the kernel command line, unless the console is shown: messages that nobody sees take time.
const CMDLINE_QUIET: &str = "quiet loglevel=3";
/// The network, unless `--net` says otherwise.
const NETWORK: Network = Network::User {
    host_loopback: false,
};
/// How long output may take that the command had not written when the machine was ended.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a program that waits for slow readers looks at whether it is still to wait.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the command that `args` describe and returns the program's exit status.
///
/// # Errors
/// If the arguments, or the files that they name, cannot be used.
pub fn run(args: &RunArgs) -> Result<u8> {
    let own = own_kernel(args)?;
    let named = own.as_ref().map(guest_of).or(args.kernel.guest);
    let architectures = named.map_or(&Architecture::ALL[..], Guest::runs);
    let root = RootSource::find(args, architectures)?;
    let shares = Shares {
        root: root.shared(),
        volumes: volumes(args)?,
        ..Shares::default()
    };
    let command = command::guest_command(args, &root.config(), &shares)?;
    let programs = root.programs(&command::places(&command));
    let guest = programs.guest(named).with_context(|| args.kernel.what())?;
    let (console, streams) = match command.terminal {
        Some(_) => streams::on_terminal()?,
        None => streams::separate(Source::choose(args.interactive, false))?,
    };
    let handle = console.handle();
    let network = args.devices.net.clone().unwrap_or(NETWORK);
    let mut devices = devices::open(&args.devices, &network, &shares)?;
    let guest_root = match &root {
        RootSource::Squashfs { file, .. } => {
            devices.push(root_disk(file)?);
            let disk = disk_name(args.devices.disk.len());
            Some(GuestRoot::Squashfs { disk })
        }
        RootSource::Directory(_, changes) => Some(GuestRoot::Directory(*changes)),
        RootSource::Initramfs => None,
    };
    let drivers = &["virtio_console"];
    devices.push(Wanted::new("console".into(), drivers, console));
    let mut archives = vec![
        run_archive(&command, addresses(&network).as_ref()),
        shares.archive_with(guest_root),
    ];
    archives.push(images::modules(
        &args.kernel,
        guest,
        &devices::drivers(&devices),
    )?);
    let mut vm = boot(args, guest, own, archives)?;
    power::observe(&args.debug, &mut vm)?;
    // All that the machine needs of the host is open.
    let needed = confinement::needed(&shares, &network, args.debug.gdb.as_ref());
    let sandbox = Sandbox::enter(args.machine.sandbox, &needed)?;
    devices::attach(devices, &mut vm, &sandbox.threads())?;
    run_to_end(args, &command, &mut vm, &handle, streams, sandbox)
}

/// The kernel of the user's, if there is one.
fn own_kernel(args: &RunArgs) -> Result<Option<Kernel>> {
    let Some(path) = &args.kernel.kernel else {
        return Ok(None);
    };
    let kernel = images::read_kernel(path)?;
    if kernel.protocol() != Protocol::Linux {
        bail!(
            "kernel {}: not a Linux kernel, which commands need",
            path.display()
        );
    }
    Ok(Some(kernel))
}

/// The guest whose programs a kernel of the user's runs.
fn guest_of(kernel: &Kernel) -> Guest {
    Guest::of(match kernel.image().mode {
        Mode::Protected => Architecture::I386,
        Mode::Long => Architecture::Amd64,
    })
}

/// The directories of the host that the guest gets beside its root.
fn volumes(args: &RunArgs) -> Result<Vec<Volume>> {
    let mut volumes = args.devices.volume.clone();
    for (option, dirs, read_only) in [
        ("--rodir", &args.rodir, true),
        ("--rwdir", &args.rwdir, false),
    ] {
        for dir in dirs {
            match dir.volume(read_only) {
                Ok(volume) => volumes.push(volume),
                Err(error) => bail!("{option} {error}"),
            }
        }
    }
    Ok(volumes)
}

/// The disk with the root.
fn root_disk(file: &PathBuf) -> Result<Wanted> {
    let config = DiskConfig {
        format: Some(DiskFormat::Raw),
        read_only: true,
        ..DiskConfig::new(file)
    };
    let disk = Disk::open(&config).context("root")?;
    let drivers = &["virtio_blk", "squashfs", "overlay"];
    Ok(Wanted::new("root".into(), drivers, disk))
}

/// The name that Linux gives the disk behind `others`.
fn disk_name(others: usize) -> String {
    let mut name = String::new();
    let mut number = others + 1;
    while number > 0 {
        number -= 1;
        name.insert(0, char::from(b'a' + (number % 26) as u8));
        number /= 26;
    }
    format!("vd{name}")
}

/// The addresses of the network, if there is one, so that the guest need not ask for it.
fn addresses(network: &Network) -> Option<GuestNetwork> {
    match network {
        Network::None | Network::Passt(_) => None,
        Network::User { .. } => Some(GuestNetwork {
            address: [10, 0, 2, 15].into(),
            netmask: [255, 255, 255, 0].into(),
            router: [10, 0, 2, 2].into(),
            resolver: [10, 0, 2, 3].into(),
        }),
    }
}

/// Makes a machine that is about to execute the first instruction of the user's own kernel, or else of the guest's.
fn boot(args: &RunArgs, guest: Guest, own: Option<Kernel>, archives: Vec<Vec<u8>>) -> Result<Vm> {
    let images = images::fetch(guest)?;
    let kernel_path = args.kernel.kernel.as_ref().unwrap_or(&images.kernel);
    let tsc = TscMeter::start();
    let kernel = match own {
        Some(kernel) => kernel,
        None => images::read_kernel(kernel_path)?,
    };
    let added = AddedArchives::default();
    let mut initrd = initrd::read(Some(&images.initrd), &args.machine, added, archives)?;
    let TscClock { tsc, unix, khz } = tsc.clock();
    initrd::append(&mut initrd, &clock_archive(tsc, unix, khz));
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &cmdline(args, khz),
    };
    let start = Start::Kernel(source);
    power::power_on(&args.machine, &args.debug, &[], &start, || {
        power::kernel_on(kernel_path, &args.machine)
    })
}

fn cmdline(args: &RunArgs, tsc_khz: u64) -> String {
    let linux = linux_cmdline(tsc_khz);
    let quiet = (!args.console).then_some(CMDLINE_QUIET);
    let parts = [Some(&*linux), quiet, args.kernel.append.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Runs the machine until the command has ended, or something else has.
fn run_to_end(
    args: &RunArgs,
    command: &GuestCommand,
    vm: &mut Vm,
    console: &ConsoleHandle,
    streams: Streams,
    sandbox: Sandbox,
) -> Result<u8> {
    let raw = match (command.terminal, Source::choose(args.interactive, true)) {
        (Some(_), Source::Stdin) => Some(RawMode::enter(io::stdin()).context("terminal")?),
        _ => None,
    };
    let resized = command.terminal.map(|_| follow_window(console.clone()));
    let threads = sandbox.threads();
    exit_on_signals(raw.as_ref().map(RawMode::saved), resized, &threads).context("signals")?;
    if let Some(raw) = &raw {
        restore_on_sudden_end(raw);
    }
    let ending = Ending::new(vm.control(), raw.as_ref().map(RawMode::saved));
    let Streams { status, keys } = streams;
    ending
        .watch(status, args.timeout, &threads)
        .context("threads")?;
    if let (Some(keys), Some(_)) = (keys, &raw) {
        let ending = ending.clone();
        streams::pass_keys(keys, &threads, move || ending.force(End::Quit)).context("threads")?;
    }
    let mut log = Log::new(args.console);
    let stop = session::run_to_end(&args.debug, vm, &mut log, sandbox)?;
    drain(console, &ending);
    drop(raw);
    let exit_status = tell(ending.get(), console.take_output_error(), &stop, &log);
    session::report(&args.machine, &args.debug, vm);
    ending.set_told();
    Ok(exit_status)
}

/// Waits until what the guest has sent is written: without limit if the command has ended, and the time and the user do not end
/// that.
fn drain(console: &ConsoleHandle, ending: &Ending) {
    while matches!(ending.get(), Some(End::Command(_))) {
        if console.drain(LOOK) {
            return;
        }
    }
    console.drain(PATIENCE);
}

/// Returns what is to be done when the window's size has changed, and does it once.
fn follow_window(console: ConsoleHandle) -> Box<dyn Fn() + Send> {
    let follow = move || {
        let size = window_size(io::stdin()).or_else(|| window_size(io::stdout()));
        if let Some((rows, columns)) = size {
            console.resize(columns, rows);
        }
    };
    follow();
    Box::new(follow)
}

/// Tells the user what was lost, by an error of writing, and why the status is not the command's, if it is not. Returns the exit
/// status.
fn tell(end: Option<End>, lost: Option<io::Error>, stop: &StopReason, log: &Log) -> u8 {
    let is_lost = lost.is_some();
    if let Some(error) = lost {
        complain(&format!("output of the command is lost: {error}"));
    }
    let Some(end) = end else {
        return tell_stop(stop, log);
    };
    match end {
        End::Command(_) if is_lost => return status::STREAM,
        End::Command(_) => {}
        End::Lost => complain("the guest has not told the status of the command"),
        End::TimedOut(time) => complain(&format!(
            "the time of --timeout, {} s, is over",
            time.as_secs_f64()
        )),
        End::Quit => complain("ended by ctrl-]"),
    }
    end.exit_status()
}

/// Tells the user why the machine has stopped by itself, and returns the exit status.
fn tell_stop(stop: &StopReason, log: &Log) -> u8 {
    let (exit_status, message) = without_status(stop);
    // A guest that has powered off has nothing to tell.
    if !matches!(stop, StopReason::PowerOff) {
        for line in log.last_lines() {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
    complain(&message);
    exit_status
}

/// The exit status and the message for a machine that has stopped by itself.
fn without_status(stop: &StopReason) -> (u8, String) {
    match stop {
        StopReason::DebugExit(FAILED) => {
            let message = "the guest could not start the command";
            (FAILED, message.into())
        }
        StopReason::DebugExit(byte) => {
            let message = format!("the guest ended the machine by I/O port 0xf4, with {byte}");
            (status::HALTED, message)
        }
        StopReason::PowerOff => {
            let message = "the guest powered off, and the command had not ended";
            (status::HALTED, message.into())
        }
        _ => (stop.exit_status(), session::explained(stop)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_linuxs_names() {
        for (others, name) in [
            (0, "vda"),
            (1, "vdb"),
            (25, "vdz"),
            (26, "vdaa"),
            (52, "vdba"),
        ] {
            assert_eq!(disk_name(others), name);
        }
    }

    #[test]
    fn a_stop_without_a_status_is_told() {
        for (stop, expected) in [
            (StopReason::PowerOff, 120),
            (StopReason::Reboot, 121),
            (StopReason::Panic, 122),
            (StopReason::DebugExit(FAILED), 124),
            (StopReason::DebugExit(0), 120),
        ] {
            let (exit_status, message) = without_status(&stop);
            assert_eq!(exit_status, expected, "{stop}");
            assert!(!message.is_empty());
        }
    }
}
