//! A machine from its start to its end, with gdb if that is asked for, and what is told afterwards.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use anyhow::{Context, Result};
use sandbox::Policy;
use vmm::{
    Console, LinearAddr, StopReason, Threads, Vm,
    console::Channel,
    gdb::{self, Address, Gdb},
    linear::Linear,
    mmu::PAGE_SIZE,
};

use crate::{
    args::{DebugArgs, MachineArgs},
    confinement::Sandbox,
    message::complain,
};

/// Returns the message about an abnormal stop, with what would help.
pub fn explained(stop: &StopReason) -> String {
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

/// Runs the machine, by a thread that is confined from then on, until it stops for good. Without gdb, each intercepted event is
/// shown and then handed to the guest.
///
/// # Errors
/// If gdb cannot be listened for, or this thread cannot be confined.
pub fn run_to_end(
    debug: &DebugArgs,
    vm: &mut Vm,
    console: &mut dyn Console,
    sandbox: Sandbox,
) -> Result<StopReason> {
    let mut gdb = match &debug.gdb {
        Some(address) => Some(listen(debug, address, vm, &sandbox.threads())?),
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
fn listen(debug: &DebugArgs, address: &Address, vm: &Vm, threads: &Threads) -> Result<Gdb> {
    let start = match debug.gdb_wait {
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

/// Tells the user what `machine` and `debug` ask for at the end.
pub fn report(machine: &MachineArgs, debug: &DebugArgs, vm: &Vm) {
    if debug.verify_code {
        report_verified(vm);
    }
    dump_code(vm, &debug.dump_code);
    if machine.stats {
        let _ = write!(io::stderr(), "{}", vm.stats());
    }
}

/// Reports how many fragments of code were verified.
fn report_verified(vm: &Vm) {
    match vm.vcpu().verified() {
        Some(count) => complain(&format!("{count} fragments of code verified")),
        None => complain("no code to verify: the emulator runs the guest"),
    }
}

/// Shows the pages that hold `addresses`, each once.
fn dump_code(vm: &Vm, addresses: &[LinearAddr]) {
    let pages = addresses
        .iter()
        .map(|address| address.get() / PAGE_SIZE as u64 * PAGE_SIZE as u64);
    for page in pages.map(LinearAddr::new).collect::<BTreeSet<_>>() {
        match vm.vcpu().dump_code(page) {
            Ok(text) => drop(write!(io::stderr(), "{text}")),
            Err(error) => complain(&format!("--dump-code: page {}: {error}", Linear(page))),
        }
    }
}
