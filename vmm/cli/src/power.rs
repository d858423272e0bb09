//! The machine of the command line, switched on.

use std::path::Path;

use anyhow::{Context, Result};
use vmm::{
    KmodConfig, Start, VcpuConfig, VcpuError, Vm, VmConfig, VmError, loader::Rom, trace::Filter,
};

use crate::{
    args::{DebugArgs, MachineArgs},
    engine,
    trace::TraceFile,
    watch,
};

/// Makes a machine with `roms`, on the engine that the user named, or else on the best that the host can run. `what` is to start in
/// it, for errors.
///
/// # Errors
/// If the host does not grant what the machine needs, or what is to start does not fit.
pub fn power_on(
    machine: &MachineArgs,
    debug: &DebugArgs,
    roms: &[Rom<'_>],
    start: &Start<'_>,
    what: impl Fn() -> String,
) -> Result<Vm> {
    let model = machine.cpu.unwrap_or_else(|| start.default_model());
    let power_on = |engine| {
        let config = VmConfig {
            memory: machine.mem,
            vcpu: VcpuConfig {
                model,
                engine,
                code_cache: machine.code_cache,
                windows: machine.windows,
                verify_code: debug.verify_code,
                record_code: !debug.dump_code.is_empty(),
                measure_code: machine.stats,
                jitdump: debug.jitdump.clone(),
            },
            kmod: KmodConfig {
                usage: machine.kmod,
                ..KmodConfig::default()
            },
        };
        Vm::power_on(&config, roms, start)
    };
    match (engine::choose(machine.engine, power_on), &debug.jitdump) {
        (Err(VmError::Processor(VcpuError::Jitdump(error))), Some(folder)) => {
            Err(error).with_context(|| format!("--jitdump {}", folder.display()))
        }
        (Err(error @ VmError::Kmod(_)), _) => {
            Err(error).with_context(|| format!("--kmod {}", machine.kmod))
        }
        (vm, _) => vm.with_context(what),
    }
}

/// Lets the machine tell what `debug` asks for.
///
/// # Errors
/// If the file of `--trace` cannot be created.
pub fn observe(debug: &DebugArgs, vm: &mut Vm) -> Result<()> {
    vm.set_policy(watch::policy(debug));
    if let Some(path) = &debug.trace {
        let file =
            TraceFile::create(path).with_context(|| format!("--trace {}", path.display()))?;
        let filter = Filter::new(debug.trace_only.clone());
        vm.trace(filter, Box::new(file));
    }
    Ok(())
}

/// Names the kernel at `path` on this machine, for errors.
pub fn kernel_on(path: &Path, machine: &MachineArgs) -> String {
    format!(
        "kernel {} with --mem {}M",
        path.display(),
        machine.mem >> 20
    )
}
