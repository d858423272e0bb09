//! `replex boot`: from arguments to a running machine.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, IsTerminal, Write},
    panic,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::{ALIGNMENT, Stage, exec_archive, winsize_archive};
use vmm::{
    Console, Kernel, StopReason, VcpuConfig, VcpuError, Vm, VmConfig, VmError,
    console::Channel,
    gdb::{Address, Gdb, Start},
    loader::{BootSource, Cache, linux_cmdline},
    mmu::PAGE_SIZE,
    trace::Filter,
    tsc::TscMeter,
};

use crate::{
    args::BootArgs,
    engine,
    message::{complain, report_progress},
    progress::Unpacking,
    signals::exit_on_signals,
    stdio::{Stdio, Wiring},
    terminal::{RawMode, window_size},
    trace::TraceFile,
    watch,
};

/// Part of the kernel command line with --exec: the console shares standard error with the command, so the kernel prints only
/// critical messages.
const CMDLINE_EXEC: &str = "quiet loglevel=3";

/// Boots the machine that `args` describe and returns the program's exit status.
///
/// # Errors
/// If the arguments, or the files that they name, cannot be used.
pub fn boot(args: &BootArgs) -> Result<u8> {
    let (kernel_path, initrd_path) = images(args)?;
    let tsc = TscMeter::start();
    let kernel = read_kernel(&kernel_path)?;
    let initrd = read_initrd(args, initrd_path.as_deref())?;
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &cmdline(args, tsc.khz()),
    };
    let boot = |engine| {
        let config = VmConfig {
            memory: args.mem,
            vcpu: VcpuConfig {
                model: args.cpu,
                engine,
                code_cache: args.code_cache,
                windows: args.windows,
                verify_code: args.verify_code,
                record_code: !args.dump_code.is_empty(),
                measure_code: args.stats,
                jitdump: args.jitdump.clone(),
            },
        };
        Vm::boot(&config, &source)
    };
    let mut vm = match (engine::choose(args.engine, boot), &args.jitdump) {
        (Err(VmError::Processor(VcpuError::Jitdump(error))), Some(folder)) => {
            return Err(error).with_context(|| format!("--jitdump {}", folder.display()));
        }
        (vm, _) => vm.with_context(|| {
            format!(
                "kernel {} with --mem {}M",
                kernel_path.display(),
                args.mem >> 20
            )
        })?,
    };
    drop((kernel, initrd));
    vm.set_policy(watch::policy(args));
    if let Some(path) = &args.trace {
        let file =
            TraceFile::create(path).with_context(|| format!("--trace {}", path.display()))?;
        let filter = Filter::new(args.trace_only.clone());
        vm.trace(filter, Box::new(file));
    }
    run(args, &mut vm)
}

/// Runs the machine on the standard streams until it stops.
fn run(args: &BootArgs, vm: &mut Vm) -> Result<u8> {
    let wiring = match &args.exec {
        Some(_) => Wiring::Exec,
        None if io::stdin().is_terminal() => Wiring::Terminal,
        None => Wiring::Streams,
    };
    let raw = match wiring {
        Wiring::Terminal => Some(RawMode::enter(io::stdin()).context("terminal")?),
        Wiring::Streams | Wiring::Exec => None,
    };
    exit_on_signals(raw.as_ref().map(RawMode::saved)).context("signals")?;
    if let Some(raw) = &raw {
        restore_before_panic_message(raw);
    }
    let stop = run_to_end(args, vm, &mut Stdio::new(wiring))?;
    drop(raw);
    if stop.is_abnormal() {
        complain(&explained(&stop));
    }
    if args.verify_code {
        report_verified(vm);
    }
    dump_code(vm, &args.dump_code);
    if args.stats {
        let _ = write!(io::stderr(), "{}", vm.stats());
    }
    Ok(stop.exit_status())
}

/// The message about an abnormal stop, with what would help.
fn explained(stop: &StopReason) -> String {
    let help = match stop {
        StopReason::TripleFault(_) => {
            "--trace-irq logs what interrupts and exceptions came before, --gdb stops here"
        }
        StopReason::Halted(_) => {
            "nothing can wake the guest; --gdb stops here, --trace FILE logs what came before"
        }
        _ => return stop.to_string(),
    };
    format!("{stop} ({help})")
}

/// Runs the machine until it stops for good. Without gdb, each intercepted event is shown and then handed to the guest.
fn run_to_end(args: &BootArgs, vm: &mut Vm, console: &mut dyn Console) -> Result<StopReason> {
    let mut gdb = match &args.gdb {
        Some(address) => Some(listen(args, address, vm)?),
        None => None,
    };
    if let Some(gdb) = &gdb {
        show(console, &invitation(gdb.address()))?;
    }
    loop {
        let stop = match &mut gdb {
            Some(gdb) => gdb.run(vm, console),
            None => vm.run(console),
        };
        if !matches!(stop, StopReason::Intercepted(_)) {
            return Ok(stop);
        }
        if let Err(error) = show(console, &stop.to_string()) {
            return Ok(StopReason::Console(error.into()));
        }
    }
}

/// Shows the user a message while the machine has the terminal.
fn show(console: &mut dyn Console, message: &str) -> io::Result<()> {
    let line = format!("replex: {message}\n");
    console.output(Channel::Monitor, line.as_bytes())
}

/// Starts to listen for gdb.
fn listen(args: &BootArgs, address: &Address, vm: &Vm) -> Result<Gdb> {
    let start = match args.gdb_wait {
        true => Start::Wait,
        false => Start::Run,
    };
    Gdb::listen(address, vm.control(), start).with_context(|| format!("--gdb {address}"))
}

/// Returns the message that says how gdb connects.
fn invitation(address: &Address) -> String {
    // gdb takes a path as it is.
    let target = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    };
    let warning = match address.is_local() {
        true => "",
        false => "; whoever reaches this address controls the guest",
    };
    format!("gdb: target remote {target}{warning}")
}

/// Reports how many fragments of code were verified.
fn report_verified(vm: &Vm) {
    match vm.vcpu().verified() {
        Some(count) => complain(&format!("{count} fragments of code verified")),
        None => complain("no code to verify: the emulator runs the guest"),
    }
}

/// Shows the pages that hold `addresses`, each once.
fn dump_code(vm: &Vm, addresses: &[u32]) {
    let pages = addresses
        .iter()
        .map(|address| address & !(PAGE_SIZE as u32 - 1));
    for page in pages.collect::<BTreeSet<_>>() {
        match vm.vcpu().dump_code(page.into()) {
            Ok(text) => drop(write!(io::stderr(), "{text}")),
            Err(error) => complain(&format!("--dump-code: page {page:08x}: {error}")),
        }
    }
}

/// Restores the terminal before the message of a panic is printed.
fn restore_before_panic_message(raw: &RawMode) {
    let saved = raw.saved();
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        saved.restore();
        report(info);
    }));
}

/// Returns the paths of the kernel and its initrd. Fetches them if need be.
fn images(args: &BootArgs) -> Result<(PathBuf, Option<PathBuf>)> {
    if let Some(kernel) = &args.kernel {
        return Ok((kernel.clone(), args.initrd.clone()));
    }
    let images = guest_kernels::fetch(args.guest, &mut |stage: &Stage| {
        report_progress(&stage.to_string())
    })
    .with_context(|| format!("guest {}", args.guest))?;
    Ok((
        images.kernel,
        Some(args.initrd.clone().unwrap_or(images.initrd)),
    ))
}

/// Reads the kernel at `path` and unpacks it.
fn read_kernel(path: &Path) -> Result<Kernel> {
    let name = || format!("kernel {}", path.display());
    let file = fs::read(path).with_context(name)?;
    let mut unpacking = Unpacking::of(path);
    Kernel::read(file, Cache::of_user().as_ref(), &mut |bytes| {
        unpacking.done(bytes)
    })
    .with_context(name)
}

/// Reads the initrd at `path` and appends an archive that tells its init what this boot is for.
fn read_initrd(args: &BootArgs, path: Option<&Path>) -> Result<Vec<u8>> {
    let winsize = match args.exec {
        Some(_) => None,
        None => window_size(io::stdin()),
    };
    let session = match (&args.exec, winsize) {
        (Some(_), _) if path.is_none() => {
            bail!("--exec: needs an initrd; with --kernel, give --initrd")
        }
        (Some(command), winsize) => Some(exec_archive(command, winsize)),
        (None, Some(winsize)) => Some(winsize_archive(winsize)),
        (None, None) => None,
    };
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let name = || format!("initrd {}", path.display());
    let len = fs::metadata(path).with_context(name)?.len();
    if len > args.mem {
        bail!(
            "{}: {len} bytes do not fit in --mem {}M",
            name(),
            args.mem >> 20
        );
    }
    let mut initrd = fs::read(path).with_context(name)?;
    if let Some(session) = session {
        initrd.resize(initrd.len().next_multiple_of(ALIGNMENT), 0);
        initrd.extend(session);
    }
    Ok(initrd)
}

/// Puts the kernel command line together.
fn cmdline(args: &BootArgs, tsc_khz: u64) -> String {
    let linux = linux_cmdline(tsc_khz);
    let exec = args.exec.as_ref().map(|_| CMDLINE_EXEC);
    let parts = [Some(&*linux), exec, args.append.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
