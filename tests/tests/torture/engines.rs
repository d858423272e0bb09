//! The scripts on our machine.

use std::time::Instant;

use sbe::{TranslationStats, Windows};
use tests::{
    report::report,
    torture::{Dialect, Script},
    vm,
    watch::Watch,
};
use vmm::{BootSource, Engine, Kernel, StopReason, VcpuConfig, Vm, VmConfig};

use crate::{hashes, kernel, script, seed, steps};

/// Slices of a thousand instructions that a script may take at least, and those more for each step.
const SLICES: u32 = 100_000;
const SLICES_A_STEP: u32 = 2;

/// Runs the script; returns the hashes, and what the translator counted.
fn run(
    script: &Script,
    engine: Engine,
    windows: Windows,
) -> (Vec<String>, Option<TranslationStats>) {
    let what = format!("{engine:?}, windows {windows}");
    let config = VmConfig {
        memory: Script::memory(steps()).into(),
        vcpu: VcpuConfig {
            engine,
            windows,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &Kernel::read(kernel().elf.to_vec(), None, &mut |_| ()).unwrap(),
        initrd: &script.bytes,
        cmdline: "",
    };
    let mut machine = Vm::boot(&config, &source).unwrap();
    let mut watch = Watch {
        printed: Vec::new(),
        slices: SLICES + SLICES_A_STEP * steps(),
    };
    let start = Instant::now();
    let stop = machine.run(&mut watch);
    let time = start.elapsed().as_secs_f64();
    let hashes = hashes(&what, &String::from_utf8_lossy(&watch.printed), script);
    assert!(matches!(stop, StopReason::DebugExit(0)), "{what}: {stop}");
    let stats = machine.vcpu().translation().cloned();
    let left = machine.vcpu().cpu.retired;
    let served = vm::served(&machine.vcpu().mmu);
    assert!(
        !vm::is_vm() || windows == Windows::Never || served > 0,
        "the module serves no fault"
    );
    report(&format!(
        "{what}: {} steps in {time:.1} s, {left} instructions emulated, {served} faults served by the host's module, {}",
        steps(),
        stats.as_ref().map_or(String::new(), |stats| format!(
            "{} windows, exits {:?}",
            stats.windows, stats.exits
        ))
    ));
    (hashes, stats)
}

#[test]
fn every_engine_does_what_the_manual_says_and_the_same() {
    // In the virtual machine windows hear of faults from QEMU's processor.
    let dialect = match vm::is_vm() {
        true => Dialect::Qemu,
        false => Dialect::Whole,
    };
    let script = script(seed(0), dialect);
    report(&format!("seed {}: {:?}", seed(0), script.counts));
    let (emulated, _) = run(&script, Engine::Emulator, Windows::Never);
    let (by_tables, stats) = run(&script, Engine::Translator, Windows::Never);
    assert_eq!(stats.expect("the translator's").windows, 0);
    let (by_windows, stats) = run(&script, Engine::Translator, Windows::Always);
    let stats = stats.expect("the translator's");
    assert!(stats.windows > 0 && stats.exits.window > 0, "{stats:?}");
    report(&format!("last hashes: {:?}", emulated.last()));
    assert_eq!(emulated, by_tables, "hashes of emulator and tables");
    assert_eq!(emulated, by_windows, "hashes of emulator and windows");
}
