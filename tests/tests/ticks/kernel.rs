//! The test kernels `ticks` and `ticks64`: a guest with a timer of 1000 Hz, idle and computing, on the host's clock.
//!
//! Whatever the host's scheduler does to the machine, three things hold: the guest has counted each tick that the monitor says is
//! delivered, none is lost or doubled, and together with those still owed they are as many as the time has. The long run,
//!
//! ```text
//! REPLEX_TICKS_SECONDS=60 cargo test --release -p tests --test ticks -- --ignored --nocapture
//! ```
//!
//! takes so many seconds for each half of each kernel on each engine.

use std::{
    env,
    io::{self, Write as _},
    os::fd::BorrowedFd,
    thread,
    time::Duration,
};

use guest_kernels::test_kernel::{self, TestKernel, Verdict};
use vmm::{
    Console, Engine, Stats, StopReason, VcpuConfig, Vm, VmConfig,
    console::{Channel, Input},
    loader::{BootSource, Kernel},
};

use crate::rig::{Processor, model};

/// Seconds of each half of the long run, in the environment.
const SECONDS: &str = "REPLEX_TICKS_SECONDS";
/// Seconds if the variable is not set.
const DEFAULT: u8 = 60;
/// Period of the kernel's timer in clock pulses, and how many of these a second has.
const PERIOD: u64 = 1_193;
const PULSES_PER_SECOND: u64 = 1_193_182;

/// The console of the kernel: tells it how long to run, and stalls the machine.
struct Host {
    printed: Vec<u8>,
    /// The byte that the kernel finds at COM1.
    seconds: Option<u8>,
    /// Looks at the console from one stall to the next, if the host stalls.
    stalls: Option<u32>,
    looks: u32,
}

impl Host {
    fn new(seconds: u8, stalls: Option<u32>) -> Self {
        Self {
            printed: Vec::new(),
            seconds: Some(seconds),
            stalls,
            looks: 0,
        }
    }

    /// The number behind `name` in what the kernel printed.
    fn remark(&self, name: &str) -> u64 {
        let printed = String::from_utf8_lossy(&self.printed);
        printed
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {printed}"))
    }
}

impl Console for Host {
    fn input(&mut self, _room: usize) -> io::Result<Input> {
        self.looks += 1;
        if self
            .stalls
            .is_some_and(|every| self.looks.is_multiple_of(every))
        {
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Input::Bytes(self.seconds.take().into_iter().collect()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        if channel == Channel::Debug {
            self.printed.extend(bytes);
        }
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The kernels, each with its processor on both engines.
fn all() -> Vec<(&'static TestKernel, Processor)> {
    let kernels = test_kernel::all().iter();
    kernels
        .filter(|kernel| ["ticks", "ticks64"].contains(&kernel.name))
        .flat_map(|kernel| {
            [Engine::Emulator, Engine::Translator].map(|engine| {
                let bits = kernel.bits;
                (kernel, Processor { engine, bits })
            })
        })
        .collect()
}

/// Runs the kernel for the seconds that `host` tells it, idle and as many computing.
fn run(kernel: &TestKernel, processor: Processor, host: &mut Host) -> Stats {
    let kernel = Kernel::read(kernel.elf.to_vec(), None, &mut |_| ()).unwrap();
    let config = VmConfig {
        memory: 16 << 20,
        vcpu: VcpuConfig {
            engine: processor.engine,
            model: model(processor.bits),
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    let mut vm = Vm::boot(&config, &source).unwrap();
    let stop = vm.run(host);
    assert!(matches!(stop, StopReason::DebugExit(0)), "{stop}");
    let verdict = Verdict::parse(&String::from_utf8_lossy(&host.printed)).unwrap();
    assert_eq!(verdict.failures, []);
    assert!(verdict.cases > 0, "{processor:?}");
    vm.stats()
}

/// Runs the kernel for `seconds` a half, and checks guest and account against each other. Returns the ticks that were late.
fn check(kernel: &TestKernel, processor: Processor, seconds: u8, stalls: Option<u32>) -> u64 {
    let mut host = Host::new(seconds, stalls);
    let stats = run(kernel, processor, &mut host);
    let what = format!("{}, {:?}", kernel.name, processor.engine);
    let [idle, busy, all] = ["idle", "busy", "all"].map(|name| host.remark(name));
    let timer = stats.timer;
    // Past the test runner's capture: the counts are to be seen in every run.
    let _ = writeln!(
        io::stderr(),
        "{what}, {seconds} s a half, stalls {stalls:?}: guest {idle} idle, {busy} computing, {all} in all; monitor {timer:?}"
    );
    assert_eq!(all, timer.delivered, "{what}");
    assert_eq!(all, stats.interrupts, "{what}");
    assert_eq!((timer.lost, timer.doubled), (0, 0), "{what}");
    assert_eq!(timer.ticks, timer.delivered + timer.waiting, "{what}");
    // The seconds may be seen late, so that there are more ticks, but not fewer.
    let least = 2 * u64::from(seconds) * PULSES_PER_SECOND / PERIOD;
    assert!(timer.ticks >= least, "{what}: {least}");
    timer.late
}

#[test]
fn a_guest_counts_every_tick() {
    for (kernel, processor) in all() {
        check(kernel, processor, 1, None);
    }
}

#[test]
fn a_guest_counts_every_tick_on_a_host_that_stalls() {
    for (kernel, processor) in all() {
        let late = check(kernel, processor, 1, Some(500));
        assert!(late >= 99, "{processor:?}: {late}");
    }
}

#[test]
#[ignore = "long: see the head of this file"]
fn a_guest_counts_every_tick_for_long() {
    let seconds = env::var(SECONDS).map_or(DEFAULT, |seconds| seconds.parse().expect(SECONDS));
    for (kernel, processor) in all() {
        check(kernel, processor, seconds, None);
    }
}
