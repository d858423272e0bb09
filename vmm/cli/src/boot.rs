//! `replex boot`: from arguments to a running machine.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    panic,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use guest_kernels::Stage;
use sandbox::{Policy, before_exit};
use vmm::{
    Console, Kernel, KmodConfig, Start, StopReason, Threads, VcpuConfig, VcpuError, Vm, VmConfig,
    VmError,
    console::Channel,
    gdb::{self, Address, Gdb},
    loader::{BootSource, Cache, Protocol, linux_cmdline},
    mmu::PAGE_SIZE,
    trace::Filter,
    tsc::TscMeter,
};

use crate::{
    args::BootArgs,
    confinement::{self, Sandbox},
    devices, engine, file, initrd,
    message::{complain, report_progress},
    progress::Unpacking,
    rom::RomFile,
    signals::exit_on_signals,
    stdio::{Stdio, Wiring},
    terminal::RawMode,
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
    let roms = read_roms(args)?;
    let devices = devices::open(args)?;
    let mut vm = match args.kernel.is_none() && !args.rom.is_empty() {
        true => start_in_rom(args, &roms)?,
        false => boot_kernel(args, &roms, &devices::drivers(&devices))?,
    };
    drop(roms);
    vm.set_policy(watch::policy(args));
    if let Some(path) = &args.trace {
        let file =
            TraceFile::create(path).with_context(|| format!("--trace {}", path.display()))?;
        let filter = Filter::new(args.trace_only.clone());
        vm.trace(filter, Box::new(file));
    }
    // All that the machine needs of the host is open.
    let sandbox = Sandbox::enter(args.sandbox, &confinement::shared(args))?;
    devices::attach(devices, &mut vm, &sandbox.threads())?;
    run(args, &mut vm, sandbox)
}

/// Makes a machine that is about to execute the kernel's first instruction. A guest that was fetched gets its modules `drivers`.
fn boot_kernel(args: &BootArgs, roms: &[Vec<u8>], drivers: &[&str]) -> Result<Vm> {
    // They may replace an incomplete guest in the cache, so they come before its images.
    let modules = modules(args, drivers)?;
    let (kernel_path, initrd_path) = images(args)?;
    let tsc = TscMeter::start();
    let kernel = read_kernel(&kernel_path)?;
    let initrd = initrd::read(args, initrd_path.as_deref(), kernel.protocol(), modules)?;
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: &cmdline(args, kernel.protocol(), tsc.khz()),
    };
    power_on(args, roms, &Start::Kernel(source), || {
        format!(
            "kernel {} with --mem {}M",
            kernel_path.display(),
            args.mem >> 20
        )
    })
}

/// Makes a machine that is about to execute the first instruction of a ROM.
fn start_in_rom(args: &BootArgs, roms: &[Vec<u8>]) -> Result<Vm> {
    let for_kernels = [
        ("--initrd", args.initrd.is_some()),
        ("--append", args.append.is_some()),
        ("--exec", args.exec.is_some()),
        ("--add", !args.add.is_empty()),
    ];
    if let Some((option, _)) = for_kernels.iter().find(|(_, given)| *given) {
        bail!("{option}: needs a kernel; with --rom, give --kernel");
    }
    let start = Start::Entry(args.entry.unwrap_or_default());
    power_on(args, roms, &start, || "--rom".into())
}

/// Makes a machine on the engine that the user named, or else on the best that the host can run.
fn power_on(
    args: &BootArgs,
    roms: &[Vec<u8>],
    start: &Start<'_>,
    what: impl Fn() -> String,
) -> Result<Vm> {
    let roms: Vec<_> = args
        .rom
        .iter()
        .zip(roms)
        .map(|(file, bytes)| file.rom(bytes))
        .collect();
    let power_on = |engine| {
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
            kmod: KmodConfig {
                usage: args.kmod,
                ..KmodConfig::default()
            },
        };
        Vm::power_on(&config, &roms, start)
    };
    match (engine::choose(args.engine, power_on), &args.jitdump) {
        (Err(VmError::Processor(VcpuError::Jitdump(error))), Some(folder)) => {
            Err(error).with_context(|| format!("--jitdump {}", folder.display()))
        }
        (Err(error @ VmError::Kmod(_)), _) => {
            Err(error).with_context(|| format!("--kmod {}", args.kmod))
        }
        (vm, _) => vm.with_context(what),
    }
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
    exit_on_signals(raw.as_ref().map(RawMode::saved), &sandbox.threads()).context("signals")?;
    if let Some(raw) = &raw {
        restore_before_panic_message(raw);
        let saved = raw.saved();
        before_exit(move || saved.restore());
    }
    let stop = run_to_end(args, vm, &mut Stdio::new(wiring), sandbox)?;
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
fn run_to_end(
    args: &BootArgs,
    vm: &mut Vm,
    console: &mut dyn Console,
    sandbox: Sandbox,
) -> Result<StopReason> {
    let mut gdb = match &args.gdb {
        Some(address) => Some(listen(args, address, vm, &sandbox.threads())?),
        None => None,
    };
    if let Some(gdb) = &gdb {
        show(console, &invitation(gdb.address()))?;
    }
    sandbox.confine(&Policy::VCPU).context("--sandbox")?;
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
fn listen(args: &BootArgs, address: &Address, vm: &Vm, threads: &Threads) -> Result<Gdb> {
    let start = match args.gdb_wait {
        true => gdb::Start::Wait,
        false => gdb::Start::Run,
    };
    Gdb::with_threads(address, vm.control(), start, threads)
        .with_context(|| format!("--gdb {address}"))
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

/// Returns the archive with the modules `drivers` of the guest that is fetched. Fetches it if need be. A kernel of the user's is
/// to have its drivers.
fn modules(args: &BootArgs, drivers: &[&str]) -> Result<Vec<u8>> {
    if args.kernel.is_some() || drivers.is_empty() {
        return Ok(Vec::new());
    }
    guest_kernels::modules_archive(args.guest, drivers, &mut |stage: &Stage| {
        report_progress(&stage.to_string())
    })
    .with_context(|| format!("modules of guest {}", args.guest))
}

/// The size in bytes of the largest kernel file that is read. One with debugging information has some hundred MiB.
const MOST_KERNEL: u64 = 1 << 30;

/// Reads the kernel at `path` and unpacks it.
fn read_kernel(path: &Path) -> Result<Kernel> {
    let name = || format!("kernel {}", path.display());
    let Ok(file) = file::read(path, MOST_KERNEL).with_context(name)? else {
        bail!("{}: larger than {} GiB", name(), MOST_KERNEL >> 30);
    };
    let mut unpacking = Unpacking::of(path);
    Kernel::read(file, Cache::of_user().as_ref(), &mut |bytes| {
        unpacking.done(bytes)
    })
    .with_context(name)
}

/// Reads the ROMs.
fn read_roms(args: &BootArgs) -> Result<Vec<Vec<u8>>> {
    args.rom.iter().map(RomFile::read).collect()
}

/// Puts the kernel command line together. A Multiboot kernel gets the user's part only.
fn cmdline(args: &BootArgs, protocol: Protocol, tsc_khz: u64) -> String {
    let append = args.append.as_deref();
    if protocol == Protocol::Multiboot {
        return append.unwrap_or_default().into();
    }
    let linux = linux_cmdline(tsc_khz);
    let exec = args.exec.as_ref().map(|_| CMDLINE_EXEC);
    let parts = [Some(&*linux), exec, append];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
