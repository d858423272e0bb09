//! The scripts on our machine.

use std::time::Instant;

use sbe::{CpuModel, TranslationStats, Windows};
use tests::{
    report::report,
    torture::{Dialect, Script, Width},
    vm,
    watch::Watch,
};
use vmm::{BootSource, Engine, Kernel, StopReason, VcpuConfig, Vm, VmConfig};

use crate::{hashes, kernel, script, seed, steps};

/// Slices of a thousand instructions that a script may take at least, and those more for each step.
const SLICES: u32 = 100_000;
const SLICES_A_STEP: u32 = 2;

/// A processor that executes scripts.
#[derive(Clone, Copy, Debug)]
struct Processor {
    model: CpuModel,
    engine: Engine,
    windows: Windows,
}

/// The models that execute scripts of a width, with the choices of windows that make a difference.
const MODELS: [(Width, CpuModel, &[Windows]); 3] = [
    (
        Width::Narrow,
        CpuModel::Bonnell,
        &[Windows::Never, Windows::Always],
    ),
    (Width::Narrow, CpuModel::X86_64, &[Windows::Never]),
    (
        Width::Wide,
        CpuModel::X86_64,
        &[Windows::Never, Windows::Always],
    ),
];

impl Processor {
    /// The processors that execute scripts of a width.
    fn all(width: Width) -> Vec<Self> {
        let models = MODELS.into_iter().filter(|&(of, ..)| of == width);
        let processors = models.flat_map(|(_, model, windows)| {
            let translators = windows.iter().map(|&windows| (Engine::Translator, windows));
            [(Engine::Emulator, Windows::Never)]
                .into_iter()
                .chain(translators)
                .map(move |(engine, windows)| Self {
                    model,
                    engine,
                    windows,
                })
        });
        processors.collect()
    }

    /// Fails unless the translator has used windows if it should have, and only then.
    fn check(self, stats: Option<&TranslationStats>) {
        match (self.engine, stats) {
            (Engine::Emulator, stats) => assert!(stats.is_none(), "{self:?}"),
            (Engine::Translator, stats) => {
                let stats = stats.expect("the translator's");
                let uses = stats.windows > 0 && stats.exits.window > 0;
                assert_eq!(uses, self.windows == Windows::Always, "{self:?} {stats:?}");
            }
        }
    }
}

/// Runs the script of code of a width; returns the hashes.
fn run(script: &Script, width: Width, processor: Processor) -> Vec<String> {
    let Processor {
        model,
        engine,
        windows,
    } = processor;
    let what = format!(
        "{width:?} on {}, {engine:?}, windows {windows}",
        model.name()
    );
    let config = VmConfig {
        memory: Script::memory(steps()).into(),
        vcpu: VcpuConfig {
            model,
            engine,
            windows,
            verify_code: true,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &Kernel::read(kernel(width).elf.to_vec(), None, &mut |_| ()).unwrap(),
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
    let stats = machine.vcpu().translation();
    processor.check(stats);
    let left = machine.vcpu().cpu.retired;
    let served = vm::served(&machine.vcpu().mmu);
    assert!(
        !vm::is_vm() || windows == Windows::Never || served > 0,
        "the module serves no fault"
    );
    report(&format!(
        "{what}: {} steps in {time:.1} s, {left} instructions emulated, {served} faults served by the host's module, {}",
        steps(),
        stats.map_or(String::new(), |stats| format!(
            "{} windows, exits {:?}",
            stats.windows, stats.exits
        ))
    ));
    hashes
}

/// Runs a script of a width on all its processors, which must come to the same hashes.
fn compare(seed: u64, width: Width) {
    // In the virtual machine windows hear of faults from QEMU's processor.
    let dialect = match vm::is_vm() {
        true => Dialect::Qemu,
        false => Dialect::Whole,
    };
    let script = script(seed, width, dialect);
    report(&format!("{width:?}, seed {seed}: {:?}", script.counts));
    let mut first = None;
    for processor in Processor::all(width) {
        let hashes = run(&script, width, processor);
        let first = first.get_or_insert_with(|| hashes.clone());
        assert_eq!(*first, hashes, "hashes of {processor:?}");
    }
    let hashes = first.expect("processors");
    report(&format!(
        "{} checkpoints, the last: {:?}",
        hashes.len(),
        hashes.last()
    ));
}

#[test]
fn every_engine_does_what_the_manual_says_and_the_same() {
    compare(seed(0), Width::Narrow);
}

#[test]
fn every_engine_does_so_in_64_bit_code() {
    compare(seed(2), Width::Wide);
}
