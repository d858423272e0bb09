//! The test kernels on our machine: paging, exceptions, interrupts, segmentation and modes as a kernel sees them.
//!
//! A kernel passes if it ends with status 0 and a verdict in which every case it counts passed. One that never ends is cut
//! off by the number of instructions, not by time, so a slow host changes no result.

mod forms;

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use guest_kernels::{
    test_kernel::{self, Failure, Verdict, VerdictError},
    tiny::elf,
};
use sbe::{CpuModel, Windows};
use tests::{report::report, watch::Watch};
use thiserror::Error;
use vmm::{
    Engine, StopReason, VcpuConfig, Vm, VmConfig,
    loader::{BootSource, Kernel},
};

/// Memory that the kernels need, in bytes.
const MEMORY: u64 = 16 << 20;
/// Slices that a kernel may take. A slice is at least a thousand instructions unless the processor halts in it, so a
/// kernel of less than a hundred million instructions is never cut off.
const SLICES: u32 = 100_000;

/// The interval at which a kernel that halts is woken, which costs it a slice: so one that nothing else can wake is cut off,
/// too.
const WAKE: Duration = Duration::from_millis(1);

/// A reason why a kernel did not pass.
#[derive(Debug, Error)]
enum Failed {
    #[error("ended with {0}")]
    Ended(StopReason),
    #[error(transparent)]
    Verdict(#[from] VerdictError),
    #[error("failed {0:?}")]
    Cases(Vec<Failure>),
}

/// Runs `vm` to its end, waking it meanwhile.
fn run_awake(mut vm: Vm, watch: &mut Watch) -> StopReason {
    let control = vm.control();
    let (running, ended) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(WAKE) == Err(RecvTimeoutError::Timeout) {
                control.wake();
            }
        });
        let stop = vm.run(watch);
        drop(running);
        stop
    })
}

/// Runs `elf` for at most `slices` and returns the number of its cases, all of which passed.
fn run(
    elf: &[u8],
    cpu: CpuModel,
    engine: Engine,
    windows: Windows,
    slices: u32,
) -> Result<usize, Failed> {
    let kernel = Kernel::read(elf.to_vec(), None, &mut |_| ()).unwrap();
    let config = VmConfig {
        memory: MEMORY,
        vcpu: VcpuConfig {
            model: cpu,
            engine,
            windows,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    verdict(Vm::boot(&config, &source).unwrap(), slices)
}

/// Runs a machine with a test kernel for at most `slices` and returns the number of its cases, all of which passed.
fn verdict(vm: Vm, slices: u32) -> Result<usize, Failed> {
    let mut watch = Watch {
        printed: Vec::new(),
        slices,
    };
    let stop = run_awake(vm, &mut watch);
    // The cases that failed say more than how the kernel ended.
    let verdict = Verdict::parse(&String::from_utf8_lossy(&watch.printed));
    if let Ok(Verdict { failures, .. }) = &verdict
        && !failures.is_empty()
    {
        return Err(Failed::Cases(failures.clone()));
    }
    match stop {
        StopReason::DebugExit(0) => Ok(verdict?.cases),
        stop => Err(Failed::Ended(stop)),
    }
}

/// Kernels that take seconds, need devices or a script: they have tests of their own.
const OF_OTHERS: [&str; 5] = ["ticks", "ticks64", "devices", "torture", "torture64"];

#[test]
fn every_kernel_passes() {
    let mut failed = Vec::new();
    let (models, lacking): (Vec<_>, Vec<_>) = CpuModel::ALL
        .into_iter()
        .partition(|model| model.level().missing_on_host().is_none());
    for model in lacking {
        report(&format!(
            "skipped: the host has not what {} has",
            model.name()
        ));
    }
    let engines = [
        (Engine::Emulator, Windows::Never),
        (Engine::Translator, Windows::Never),
        (Engine::Translator, Windows::Always),
    ];
    for ((engine, windows), cpu) in engines
        .into_iter()
        .flat_map(|engine| models.iter().map(move |&cpu| (engine, cpu)))
    {
        for kernel in test_kernel::all()
            .iter()
            .filter(|kernel| !OF_OTHERS.contains(&kernel.name))
        {
            let what = format!(
                "{} on {}, {engine:?}, windows {windows}",
                kernel.name,
                cpu.name()
            );
            match run(kernel.elf, cpu, engine, windows, SLICES) {
                Ok(cases) => report(&format!("{what}: {cases} cases passed")),
                Err(error) => failed.push(format!("{what}: {error}")),
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A kernel that prints `text`, then executes `end`.
fn printing(text: &str, end: &[u8]) -> Vec<u8> {
    // mov al, byte; out 0xe9, al
    let print = text.bytes().flat_map(|byte| [0xb0, byte, 0xe6, 0xe9]);
    elf(&print.chain(end.iter().copied()).collect::<Vec<_>>())
}

/// mov al, 0; out 0xf4, al
const EXIT_0: &[u8] = &[0xb0, 0, 0xe6, 0xf4];
/// mov al, 1; out 0xf4, al
const EXIT_1: &[u8] = &[0xb0, 1, 0xe6, 0xf4];
/// jmp to itself
const LOOP: &[u8] = &[0xeb, 0xfe];
/// cli; hlt
const HANG: &[u8] = &[0xfa, 0xf4];
/// sti; hlt; jmp to the hlt
const HALT: &[u8] = &[0xfb, 0xf4, 0xeb, 0xfd];

/// Judges a kernel that prints `text` and executes `end`, given few slices.
fn judged(text: &str, end: &[u8]) -> Result<usize, Failed> {
    run(
        &printing(text, end),
        CpuModel::default(),
        Engine::default(),
        Windows::default(),
        100,
    )
}

#[test]
fn a_kernel_that_says_so_and_exits_with_0_passes() {
    assert!(matches!(judged("ok a\nok b\nPASS 2/2\n", EXIT_0), Ok(2)));
}

#[test]
fn failed_cases_are_failures() {
    let text = "ok a\nFAIL b got=00000001 want=00000002\nFAIL 1/2\n";
    for end in [EXIT_0, EXIT_1, LOOP] {
        let error = judged(text, end).unwrap_err();
        assert!(
            matches!(&error, Failed::Cases(cases) if cases.len() == 1),
            "{error}"
        );
    }
}

#[test]
fn a_good_verdict_with_another_end_is_a_failure() {
    for end in [EXIT_1, HANG, LOOP, HALT] {
        let error = judged("ok a\nPASS 1/1\n", end).unwrap_err();
        assert!(matches!(error, Failed::Ended(_)), "{error}");
    }
}

#[test]
fn exiting_without_a_verdict_is_a_failure() {
    for text in ["", "ok a\n", "ok a\nPASS 2/2\n"] {
        let error = judged(text, EXIT_0).unwrap_err();
        assert!(matches!(error, Failed::Verdict(_)), "{error}");
    }
}

#[test]
fn a_kernel_that_never_ends_is_cut_off() {
    for end in [LOOP, HALT] {
        let error = judged("ok a\n", end).unwrap_err();
        assert!(matches!(error, Failed::Ended(StopReason::Quit)), "{error}");
    }
}
