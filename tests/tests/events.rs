//! A kernel of ours that counts its page faults, INT 0x80 and timer interrupts, and sums up its own text, in the hands of a
//! monitor: what is intercepted, reflected and swallowed, and breakpoints that the guest cannot see.

use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

use guest_kernels::test_kernel::{self, Verdict};
use iced_x86::Decoder;
use mmu::{GuestPhys, LinearAddr};
use sbe::{Action, Decision, EventSource, GuestEvent, Policy};
use vmm::{
    Console, Engine, StopReason, VcpuConfig, Vm, VmConfig,
    console::{Channel, Input},
    loader::{BootSource, Kernel},
};

const ENGINES: [Engine; 2] = [Engine::Emulator, Engine::Translator];
const PAGE_FAULT: u8 = 14;
const SYSTEM_CALL: u8 = 0x80;
const TIMER: u8 = 0x20;

// As in events.S.
const DEMAND: u32 = 0x40_0000;
const PAGES: u32 = 8;
const CALLS: u32 = 5;
const TICKS: u32 = 10;

const PAGE: u32 = 0x1000;
/// Present and writable.
const MAPPED: u32 = 3;
/// Error code of a supervisor's store to a page that is absent (SDM Vol. 3A, 4.7 "Page-Fault Exceptions").
const ABSENT_WRITE: u32 = 2;

/// The kernel's output.
#[derive(Default)]
struct Printed(Vec<u8>);

impl Console for Printed {
    fn input(&mut self, _room: usize) -> io::Result<Input> {
        Ok(Input::Bytes(Vec::new()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        if channel == Channel::Debug {
            self.0.extend(bytes);
        }
        Ok(())
    }

    fn ready(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn image() -> &'static [u8] {
    let mut kernels = test_kernel::all().iter();
    kernels
        .find(|kernel| kernel.name == "events")
        .expect("events.S")
        .elf
}

/// A machine that is about to start the kernel.
fn machine(engine: Engine) -> Vm {
    let kernel = Kernel::read(image().to_vec(), None, &mut |_| ()).unwrap();
    let config = VmConfig {
        memory: 16 << 20,
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    let source = BootSource {
        kernel: &kernel,
        initrd: &[],
        cmdline: "",
    };
    Vm::boot(&config, &source).unwrap()
}

/// The outcome of a run.
struct Outcome {
    verdict: Verdict,
    /// The lines that are no verdicts.
    counts: BTreeMap<String, u32>,
}

impl Outcome {
    fn count(&self, name: &str) -> u32 {
        self.counts[name]
    }

    fn failed(&self) -> Vec<&str> {
        let failures = self.verdict.failures.iter();
        failures.map(|failure| failure.case.as_str()).collect()
    }

    #[track_caller]
    fn assert_passed(&self) {
        assert_eq!(self.failed(), [""; 0]);
    }
}

/// Runs `vm` to its end, `look`ing at it whenever it stops before.
fn run(vm: &mut Vm, mut look: impl FnMut(&mut Vm, StopReason)) -> Outcome {
    let mut console = Printed::default();
    loop {
        match vm.run(&mut console) {
            StopReason::DebugExit(_) => break,
            stop => look(vm, stop),
        }
    }
    let text = String::from_utf8(console.0).unwrap();
    let counts = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        let value = u32::from_str_radix(value, 16).ok()?;
        Some((name.to_owned(), value))
    });
    Outcome {
        verdict: Verdict::parse(&text).unwrap(),
        counts: counts.collect(),
    }
}

fn event(stop: StopReason) -> GuestEvent {
    match stop {
        StopReason::Intercepted(event) => event,
        stop => panic!("{stop}"),
    }
}

fn intercept(vm: &mut Vm, vector: u8, source: EventSource) {
    let mut policy = Policy::new();
    policy.set(vector, source, Action::Intercept);
    vm.set_policy(policy);
}

fn undisturbed(engine: Engine) -> Outcome {
    let outcome = run(&mut machine(engine), |_, stop| panic!("{stop}"));
    outcome.assert_passed();
    outcome
}

#[test]
fn the_kernel_counts() {
    for engine in ENGINES {
        let outcome = undisturbed(engine);
        assert_eq!(outcome.count("faults"), PAGES);
        assert_eq!(outcome.count("calls"), CALLS);
        assert!(outcome.count("ticks") >= TICKS);
    }
}

#[test]
fn a_page_fault_that_is_reflected_is_the_handlers() {
    for engine in ENGINES {
        let mut vm = machine(engine);
        intercept(&mut vm, PAGE_FAULT, EventSource::Exception);
        let mut seen = 0;
        let outcome = run(&mut vm, |vm, stop| {
            let event = event(stop);
            let address = DEMAND + seen * PAGE;
            assert_eq!(event.vector, PAGE_FAULT);
            assert_eq!(event.cr2, Some(address.into()));
            assert_eq!(event.error_code, Some(ABSENT_WRITE));
            assert_eq!(event.eip, vm.vcpu().cpu.eip);
            // Nothing of it has happened yet.
            let before = address.wrapping_sub(PAGE);
            let cr2 = if seen == 0 { 0 } else { before };
            assert_eq!(vm.vcpu().cpu.cr2, u64::from(cr2));
            assert!(vm.translate(LinearAddr::from(address)).is_err());
            seen += 1;
        });
        assert_eq!(seen, PAGES);
        assert_eq!(outcome.count("faults"), PAGES);
        outcome.assert_passed();
    }
}

/// Maps `linear` to `frame` in the guest's page table, as its kernel would.
fn map(vm: &mut Vm, linear: u32, frame: u32) {
    let directory = vm.vcpu().cpu.cr3 as u32 & !(PAGE - 1);
    let mut entry = [0; 4];
    let at = GuestPhys::new(u64::from(directory + 4 * (linear >> 22)));
    vm.read_physical(at, &mut entry).unwrap();
    let table = u32::from_le_bytes(entry) & !(PAGE - 1);
    let at = GuestPhys::new(u64::from(table + 4 * (linear >> 12 & 1023)));
    vm.write_physical(at, &(frame | MAPPED).to_le_bytes())
        .unwrap();
}

#[test]
fn a_page_fault_that_the_monitor_has_served_is_never_seen() {
    const FRAMES: u32 = 0xe0_0000;
    for engine in ENGINES {
        for every in [1, 2] {
            let mut vm = machine(engine);
            intercept(&mut vm, PAGE_FAULT, EventSource::Exception);
            let mut served = 0;
            let outcome = run(&mut vm, |vm, stop| {
                let address = event(stop).cr2.unwrap().get() as u32;
                let page = (address - DEMAND) / PAGE;
                if page.is_multiple_of(every) {
                    map(vm, address, FRAMES + page * PAGE);
                    vm.decide(Decision::Swallow);
                    served += 1;
                }
            });
            assert_eq!(served, PAGES / every);
            assert_eq!(outcome.count("faults"), PAGES - served);
            // The stores have completed, in the frames that they were given.
            assert_eq!(outcome.failed(), ["each_page_faults_once"]);
            for page in (0..PAGES).step_by(every as usize) {
                let mut stored = [0; 4];
                let at = GuestPhys::new(u64::from(FRAMES + page * PAGE));
                vm.read_physical(at, &mut stored).unwrap();
                assert_eq!(u32::from_le_bytes(stored), page + 1);
            }
        }
    }
}

#[test]
fn a_system_call_that_is_swallowed_is_not_counted() {
    const SWALLOWED: u32 = 2;
    for engine in ENGINES {
        let mut vm = machine(engine);
        intercept(&mut vm, SYSTEM_CALL, EventSource::Software);
        let mut seen = 0;
        let outcome = run(&mut vm, |vm, stop| {
            assert_eq!(event(stop).vector, SYSTEM_CALL);
            seen += 1;
            // Its argument.
            assert_eq!(vm.vcpu().cpu.regs.get(0), seen);
            if seen <= SWALLOWED {
                vm.decide(Decision::Swallow);
            }
        });
        assert_eq!(seen, CALLS);
        assert_eq!(outcome.count("calls"), CALLS - SWALLOWED);
        assert_eq!(
            outcome.failed(),
            ["each_call_is_counted", "each_argument_arrives"]
        );
    }
}

/// The guest waits for its ticks in HLT: were the end of a swallowed interrupt lost, none would follow.
#[test]
fn ticks_come_after_one_that_was_swallowed() {
    for engine in ENGINES {
        let mut vm = machine(engine);
        intercept(&mut vm, TIMER, EventSource::External);
        let (mut seen, mut swallowed) = (0, 0);
        let outcome = run(&mut vm, |vm, stop| {
            assert_eq!(event(stop).vector, TIMER);
            if seen % 2 == 0 {
                vm.decide(Decision::Swallow);
                swallowed += 1;
            }
            seen += 1;
        });
        outcome.assert_passed();
        assert_eq!(outcome.count("ticks"), seen - swallowed);
        assert!(swallowed >= TICKS, "{swallowed}");
    }
}

/// Bytes of the image that are loaded at `address`, by its program headers (System V ABI, 5 "Program Header").
fn loaded(address: u32, len: u32) -> Vec<u8> {
    let image = image();
    let word = |at: usize| u32::from_le_bytes(*image[at..].first_chunk().unwrap());
    let half = |at: usize| usize::from(u16::from_le_bytes(*image[at..].first_chunk().unwrap()));
    let (table, size, count) = (word(28) as usize, half(42), half(44));
    let mut headers = (0..count).map(|index| table + index * size);
    let found = headers.find_map(|header| {
        let (offset, start, filled) = (word(header + 4), word(header + 8), word(header + 16));
        let within = address.checked_sub(start)?;
        (within + len <= filled).then_some((offset + within) as usize)
    });
    let at = found.expect("text in the image");
    image[at..at + len as usize].to_vec()
}

#[test]
fn breakpoints_are_not_in_the_text_that_the_guest_reads() {
    for engine in ENGINES {
        let undisturbed = undisturbed(engine);
        let [text, length, sum] = ["text", "length", "sum"].map(|name| undisturbed.count(name));
        let bytes = loaded(text, length);
        assert_eq!(bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>(), sum);

        let mut decoder = Decoder::with_ip(32, &bytes, text.into(), 0);
        let places: Vec<u32> = decoder.iter().map(|insn| insn.ip32()).collect();
        // XOR, two MOVs, the loop of five, and RET.
        assert_eq!(places.len(), 9);
        let mut vm = machine(engine);
        for &place in &places {
            vm.debugger_mut().add_breakpoint(place.into());
        }
        let mut hits: BTreeMap<u32, u32> = BTreeMap::new();
        let outcome = run(&mut vm, |vm, stop| {
            let StopReason::Breakpoint(place) = stop else {
                panic!("{stop}");
            };
            let eip = vm.vcpu().cpu.eip;
            assert_eq!(LinearAddr::new(eip), place);
            *hits.entry(eip as u32).or_default() += 1;
        });
        outcome.assert_passed();
        assert_eq!(outcome.count("sum"), sum);
        let rounds = outcome.count("rounds");
        for (at, place) in places.iter().enumerate() {
            let in_loop = (3..8).contains(&at);
            let times = if in_loop { rounds * length } else { rounds };
            assert_eq!(hits[place], times, "{place:08x}");
        }
    }
}
