//! Programs under a debugger: breakpoints, watchpoints and steps chosen at random, which must stop both engines at the same
//! places, and change nothing.

use super::machine::{Ended, Program, WINDOWS, next_stop, run_to_halt};
use fastrand::Rng;
use mmu::LinearAddr;
use sbe::cpu::regs::Registers;
use sbe::{EmptyBus, Engine, Exit, Vcpu, Watched, Watchpoint, Windows};
use std::ops::Range;

/// Stops after which the debugger lets the program go.
const STOPS: usize = 200;
/// Breakpoints at a time.
const BREAKPOINTS: usize = 4;
/// Instructions between two that may get a breakpoint.
const APART: u64 = 997;
/// Bytes of a watchpoint at most.
const MOST_WATCHED: u32 = 9;

/// A stop as a debugger sees it.
#[derive(Debug, PartialEq)]
struct Stop {
    exit: Exit,
    eip: u64,
    registers: Registers,
}

impl Stop {
    fn of(vcpu: &Vcpu, exit: Exit) -> Self {
        Self {
            exit,
            eip: vcpu.cpu.eip,
            registers: vcpu.cpu.regs.clone(),
        }
    }
}

/// Runs `program`, whose data is `data`, under a debugger on all engines, and fails unless they stop at the same places and end as
/// the undisturbed program. Returns the number of stops.
pub fn compare(program: &Program, seed: u64, data: &Range<u64>, what: &str) -> usize {
    let undisturbed = program.run(Engine::Emulator);
    let code = executed(program);
    let run = |engine, windows| stops(program.vcpu(engine, windows), seed, &code, data);
    let (expected, ended) = run(Engine::Emulator, Windows::Never);
    undisturbed.assert_same(&ended, what);
    for windows in WINDOWS {
        let (stops, ended) = run(Engine::Translator, windows);
        for (number, (stop, expected)) in stops.iter().zip(&expected).enumerate() {
            assert_eq!(stop, expected, "{what}, {windows} windows, stop {number}");
        }
        assert_eq!(stops.len(), expected.len(), "{what}, {windows} windows");
        undisturbed.assert_same(&ended, what);
    }
    expected.len()
}

/// Addresses of some of the instructions that `program` executes.
fn executed(program: &Program) -> Vec<LinearAddr> {
    let mut vcpu = program.vcpu(Engine::Emulator, Windows::Never);
    let mut places = Vec::new();
    while vcpu.run(&mut EmptyBus, APART) == Exit::Budget {
        places.push(LinearAddr::new(vcpu.cpu.eip));
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// All stops, and the machine in the end.
fn stops(mut vcpu: Vcpu, seed: u64, code: &[LinearAddr], data: &Range<u64>) -> (Vec<Stop>, Ended) {
    let rng = &mut Rng::with_seed(seed);
    let mut stops = Vec::new();
    let mut breakpoints: Vec<LinearAddr> = (0..BREAKPOINTS)
        .map(|_| code[rng.usize(..code.len())])
        .collect();
    for &place in &breakpoints {
        vcpu.debugger_mut().add_breakpoint(place);
    }
    let mut watchpoint = None;
    while stops.len() < STOPS {
        let exit = next_stop(&mut vcpu);
        let ends = exit == Exit::Halt;
        stops.push(Stop::of(&vcpu, exit));
        if ends {
            return (stops, Ended(vcpu));
        }
        match rng.u32(..8) {
            0 | 1 => {
                let changed = &mut breakpoints[rng.usize(..BREAKPOINTS)];
                assert!(vcpu.debugger_mut().remove_breakpoint(*changed));
                *changed = code[rng.usize(..code.len())];
                vcpu.debugger_mut().add_breakpoint(*changed);
            }
            2 => {
                for _ in 0..rng.u32(1..20) {
                    let exit = vcpu.step(&mut EmptyBus);
                    stops.push(Stop::of(&vcpu, exit));
                }
            }
            3 => {
                if let Some(old) = watchpoint.take() {
                    assert!(vcpu.debugger_mut().remove_watchpoint(old));
                } else {
                    let new = Watchpoint {
                        start: LinearAddr::new(rng.u64(data.clone())),
                        len: rng.u32(1..=MOST_WATCHED),
                        watched: [Watched::Writes, Watched::Reads, Watched::Accesses]
                            [rng.usize(..3)],
                    };
                    vcpu.debugger_mut().add_watchpoint(new);
                    watchpoint = Some(new);
                }
            }
            _ => {}
        }
    }
    for place in breakpoints {
        assert!(vcpu.debugger_mut().remove_breakpoint(place));
    }
    if let Some(old) = watchpoint {
        assert!(vcpu.debugger_mut().remove_watchpoint(old));
    }
    run_to_halt(&mut vcpu);
    (stops, Ended(vcpu))
}
