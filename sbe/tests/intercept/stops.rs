//! Breakpoints, watchpoints and single steps, on both engines; the guest must not notice.

use super::machine::{ABSENT, HANDLERS, Machine, ORIGIN, Program};
use super::{CALL, DEBUG, ECX, EDX, LINE, PAGE_FAULT, page_fault, store_to_absent};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use sbe::cpu::eflags::{IF, TF};
use sbe::cpu::regs::Registers;
use sbe::{Decision, Engine, Exit, WatchHit, Watched, Watchpoint};

const EAX: u8 = 0;
const EBX: u8 = 3;
/// Memory that the programs write.
const DATA: u32 = 0x0016_0000;
/// Bytes of [`summing`].
const SUM_BYTES: u32 = 29;
/// Bytes of the instructions before a program.
const PROLOGUE: usize = 19;
/// Runs of its outer loop.
const ROUNDS: u32 = 300;

/// A machine on each engine that stands at the first instruction of `program`.
fn machines(program: Program) -> impl Iterator<Item = Machine> {
    [Engine::Emulator, Engine::Translator]
        .into_iter()
        .map(move |engine| {
            let mut machine = Machine::new(engine, &[], program);
            let start = machine.start;
            machine.vcpu.debugger_mut().add_breakpoint(start.into());
            assert_eq!(machine.run(), Exit::Breakpoint(start.into()));
            assert_eq!(machine.vcpu.cpu.eip, u64::from(start));
            assert!(machine.vcpu.debugger_mut().remove_breakpoint(start.into()));
            machine
        })
}

/// EIP after each of `count` steps.
fn steps(machine: &mut Machine, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| {
            assert_eq!(machine.step(), Exit::Budget);
            machine.vcpu.cpu.eip as u32
        })
        .collect()
}

/// Runs to HLT and says what is in EDX.
#[track_caller]
fn result(machine: &mut Machine) -> u32 {
    assert_eq!(machine.run(), Exit::Halt);
    machine.vcpu.cpu.regs.get(EDX)
}

/// Adds up its own bytes, [`ROUNDS`] times, in EDX.
fn summing(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut outer = a.create_label();
    let mut inner = a.create_label();
    a.mov(esi, ORIGIN + PROLOGUE as u32)?;
    a.mov(ebx, ROUNDS)?;
    a.set_label(&mut outer)?;
    a.mov(ecx, SUM_BYTES)?;
    a.set_label(&mut inner)?;
    a.movzx(eax, byte_ptr(esi + ecx - 1))?;
    a.add(edx, eax)?;
    a.dec(ecx)?;
    a.jnz(inner)?;
    a.dec(ebx)?;
    a.jnz(outer)?;
    a.hlt()
}

#[test]
fn a_program_that_adds_up_its_code_does_not_see_breakpoints() {
    for (mut undisturbed, mut machine) in machines(summing).zip(machines(summing)) {
        let code: u32 = (0..SUM_BYTES)
            .map(|at| u32::from(machine.byte(machine.start + at)))
            .sum();
        assert_eq!(machine.byte(machine.start + SUM_BYTES - 1), 0xf4, "HLT");
        assert_eq!(result(&mut undisturbed), code * ROUNDS);

        let places = steps(&mut machine, 6);
        let [add, dec] = [places[3], places[4]];
        for stop in [add, dec] {
            machine.vcpu.debugger_mut().add_breakpoint(stop.into());
        }
        for _ in 0..50 {
            for stop in [add, dec] {
                assert_eq!(machine.run(), Exit::Breakpoint(stop.into()));
                assert_eq!(machine.vcpu.cpu.eip, u64::from(stop));
            }
        }
        for stop in [add, dec] {
            assert!(machine.vcpu.debugger_mut().remove_breakpoint(stop.into()));
            assert!(!machine.vcpu.debugger_mut().remove_breakpoint(stop.into()));
        }
        assert_eq!(result(&mut machine), code * ROUNDS);
    }
}

#[test]
fn a_breakpoint_in_code_that_runs_already_is_met_each_time() {
    for mut machine in machines(summing) {
        let outer = steps(&mut machine, 2)[1];
        machine.run_for(2000);
        let left = machine.vcpu.cpu.regs.get(EBX);
        assert!((1..ROUNDS).contains(&left));
        machine.vcpu.debugger_mut().add_breakpoint(outer.into());
        for rounds in (1..left).rev() {
            assert_eq!(machine.run(), Exit::Breakpoint(outer.into()));
            assert_eq!(machine.vcpu.cpu.regs.get(EBX), rounds);
        }
        result(&mut machine);
    }
}

/// Calls a function in the next page, whose first instruction begins in this one.
fn calling_across(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut function = a.create_label();
    let mut again = a.create_label();
    a.mov(ecx, 100)?;
    a.set_label(&mut again)?;
    a.call(function)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()?;
    // The program begins behind the prologue, which has PROLOGUE bytes.
    a.nops_with_size(0xffe - PROLOGUE - 14)?;
    a.set_label(&mut function)?;
    a.add(edx, 0x0001_0001)?;
    a.ret()
}

#[test]
fn a_breakpoint_may_be_on_an_instruction_that_crosses_pages() {
    for mut machine in machines(calling_across) {
        assert_eq!(machine.start - ORIGIN, PROLOGUE as u32);
        let function = steps(&mut machine, 2)[1];
        assert_eq!(function % 0x1000, 0xffe);
        machine.run_for(100);
        machine.vcpu.debugger_mut().add_breakpoint(function.into());
        let left = machine.vcpu.cpu.regs.get(ECX);
        for _ in 1..left {
            assert_eq!(machine.run(), Exit::Breakpoint(function.into()));
        }
        while machine.run() == Exit::Breakpoint(function.into()) {}
        assert_eq!(machine.vcpu.cpu.regs.get(EDX), 100 * 0x0001_0001);
    }
}

#[test]
fn the_same_offset_in_another_page_is_no_breakpoint() {
    for mut machine in machines(summing) {
        let outer = steps(&mut machine, 2)[1];
        machine
            .vcpu
            .debugger_mut()
            .add_breakpoint((outer + 0x1000).into());
        result(&mut machine);
    }
}

#[test]
fn an_instruction_that_faults_is_met_once() {
    for mut machine in machines(store_to_absent) {
        machine
            .vcpu
            .debugger_mut()
            .add_breakpoint(machine.start.into());
        machine
            .vcpu
            .debugger_mut()
            .add_breakpoint((HANDLERS + 4 * 64).into());
        assert_eq!(machine.run(), Exit::Breakpoint((HANDLERS + 4 * 64).into()));
        assert_eq!(result(&mut machine), 7);
        assert_eq!(machine.handled(PAGE_FAULT), 1);
    }
}

/// Copies 200 bytes.
fn copying(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 200)?;
    a.mov(esi, ORIGIN)?;
    a.mov(edi, DATA)?;
    a.rep().movsb()?;
    a.hlt()
}

#[test]
fn a_repeated_instruction_is_met_once() {
    for mut machine in machines(copying) {
        let rep = steps(&mut machine, 3)[2];
        let before = machine.start;
        for stop in [before, rep] {
            machine.vcpu.debugger_mut().add_breakpoint(stop.into());
        }
        machine.vcpu.cpu.eip = before.into();
        assert_eq!(machine.run(), Exit::Breakpoint(before.into()));
        assert_eq!(machine.run(), Exit::Breakpoint(rep.into()));
        assert_eq!(machine.run(), Exit::Halt);
    }
}

#[test]
fn a_step_is_one_iteration() {
    for mut machine in machines(copying) {
        let rep = steps(&mut machine, 3)[2];
        machine.vcpu.cpu.eip = rep.into();
        for left in (0..200).rev() {
            assert_eq!(machine.vcpu.cpu.eip, u64::from(rep));
            steps(&mut machine, 1);
            assert_eq!(machine.vcpu.cpu.regs.get(ECX), left);
        }
        assert_eq!(machine.run(), Exit::Halt);
    }
}

#[test]
fn a_loop_of_one_instruction_is_met_each_time() {
    fn spinning(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut here = a.create_label();
        a.mov(ecx, 20)?;
        a.set_label(&mut here)?;
        a.loop_(here)?;
        a.hlt()
    }
    for mut machine in machines(spinning) {
        let here = steps(&mut machine, 1)[0];
        machine.vcpu.debugger_mut().add_breakpoint(here.into());
        for left in (1..20).rev() {
            assert_eq!(machine.run(), Exit::Breakpoint(here.into()));
            assert_eq!(machine.vcpu.cpu.regs.get(ECX), left);
        }
        assert_eq!(machine.run(), Exit::Halt);
    }
}

/// Waits for an interrupt, and counts it.
fn waiting(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.sti()?;
    a.hlt()?;
    a.inc(edx)?;
    a.cli()?;
    a.hlt()
}

#[test]
fn a_stop_behind_sti_does_not_let_an_interrupt_in() {
    for mut machine in machines(waiting) {
        machine
            .vcpu
            .debugger_mut()
            .add_breakpoint((machine.start + 1).into());
        machine.interrupt(LINE);
        assert_eq!(machine.run(), Exit::Breakpoint((machine.start + 1).into()));
        assert_eq!(result(&mut machine), 1);
        assert_eq!(machine.vcpu.cpu.eflags & IF, 0, "the second HLT");
        assert_eq!(machine.handled(LINE), 1);
    }
}

#[test]
fn steps_keep_interrupts_waiting_but_in_hlt() {
    for mut machine in machines(waiting) {
        let start = machine.start;
        machine.interrupt(LINE);
        assert_eq!(steps(&mut machine, 2), [start + 1, start + 2]);
        assert_eq!(machine.handled(LINE), 0);
        let handler = steps(&mut machine, 1)[0];
        assert_eq!(handler, HANDLERS + 5 * 64);
        assert_eq!(steps(&mut machine, 3)[1..], [start + 2, start + 3]);
        machine.interrupt(LINE);
        assert_eq!(steps(&mut machine, 1), [start + 4]);
        assert_eq!(result(&mut machine), 1);
    }
}

#[test]
fn a_step_in_hlt_waits() {
    for mut machine in machines(waiting) {
        steps(&mut machine, 2);
        assert_eq!(machine.step(), Exit::Halt);
        assert_eq!(machine.step(), Exit::Halt);
        machine.interrupt(LINE);
        assert_eq!(steps(&mut machine, 1), [HANDLERS + 5 * 64]);
    }
}

#[test]
fn a_step_goes_into_the_handler_of_a_fault_and_of_a_call() {
    for mut machine in machines(store_to_absent) {
        assert_eq!(steps(&mut machine, 1), [HANDLERS + 4 * 64]);
        assert_eq!(result(&mut machine), 7);
    }
    fn call(a: &mut CodeAssembler) -> Result<(), IcedError> {
        a.int(u32::from(CALL))?;
        a.hlt()
    }
    for mut machine in machines(call) {
        assert_eq!(steps(&mut machine, 1), [HANDLERS + 7 * 64]);
        assert_eq!(steps(&mut machine, 2)[1], machine.start + 2);
    }
}

#[test]
fn a_step_after_an_interception_does_what_was_decided() {
    for engine in [Engine::Emulator, Engine::Translator] {
        let mut machine = Machine::new(engine, &[PAGE_FAULT], store_to_absent);
        let start = machine.start;
        assert_eq!(machine.run(), Exit::Intercept(page_fault(start)));
        assert_eq!(steps(&mut machine, 1), [HANDLERS + 4 * 64]);

        let mut machine = Machine::new(engine, &[PAGE_FAULT], store_to_absent);
        assert_eq!(machine.run(), Exit::Intercept(page_fault(start)));
        machine.vcpu.decide(Decision::Swallow);
        assert_eq!(steps(&mut machine, 1), [start]);
        assert_eq!(machine.step(), Exit::Intercept(page_fault(start)));
    }
}

/// Writes, reads, changes and pushes doublewords from DATA on, 4 bytes apart, a hundred times.
fn accessing(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(ecx, 100)?;
    a.set_label(&mut again)?;
    a.mov(dword_ptr(DATA), ecx)?;
    a.mov(eax, dword_ptr(DATA + 4))?;
    a.inc(dword_ptr(DATA + 8))?;
    a.mov(ebx, esp)?;
    a.mov(esp, DATA + 16)?;
    a.push(ecx)?;
    a.mov(esp, ebx)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()
}

#[test]
fn watchpoints_stop_behind_each_access_they_watch() {
    const WRITTEN: u32 = 1;
    const READ: u32 = 2;
    const CHANGED: u32 = 3;
    const PUSHED: u32 = 6;
    for (start, len, watched, by) in [
        (0, 4, Watched::Writes, &[WRITTEN][..]),
        (3, 1, Watched::Writes, &[WRITTEN]),
        (0, 4, Watched::Reads, &[]),
        (4, 4, Watched::Writes, &[]),
        (4, 4, Watched::Reads, &[READ]),
        (4, 4, Watched::Accesses, &[READ]),
        (8, 1, Watched::Writes, &[CHANGED]),
        (12, 4, Watched::Accesses, &[PUSHED]),
        (14, 1, Watched::Writes, &[PUSHED]),
        (3, 2, Watched::Accesses, &[WRITTEN, READ]),
        (0, 16, Watched::Writes, &[WRITTEN, CHANGED, PUSHED]),
        (16, 400, Watched::Accesses, &[]),
        (0x1000, 4, Watched::Accesses, &[]),
    ] {
        for mut machine in machines(accessing) {
            let places = steps(&mut machine, 9);
            machine.run_for(40);
            let watchpoint = Watchpoint {
                start: (DATA + start).into(),
                len,
                watched,
            };
            machine.vcpu.debugger_mut().add_watchpoint(watchpoint);
            let mut met = Vec::new();
            while met.len() < 2 * by.len() {
                match machine.run() {
                    Exit::Watchpoint(WatchHit {
                        watchpoint: same,
                        write,
                    }) => {
                        assert_eq!(same, watchpoint);
                        let at = machine.vcpu.cpu.eip as u32;
                        let place = places.iter().position(|&place| place == at).unwrap();
                        assert_eq!(write, place as u32 != READ);
                        met.push(place as u32);
                    }
                    other => panic!("{other:?}"),
                }
            }
            met.truncate(by.len());
            met.sort_unstable();
            assert_eq!(met, by);
            assert!(machine.vcpu.debugger_mut().remove_watchpoint(watchpoint));
            assert_eq!(machine.run(), Exit::Halt);
            assert_eq!(machine.load(DATA + 8), 100, "nothing is done twice");
        }
    }
}

#[test]
fn a_watchpoint_in_a_repeated_instruction_stops_behind_the_iteration() {
    for mut machine in machines(copying) {
        machine.vcpu.debugger_mut().add_watchpoint(Watchpoint {
            start: (DATA + 50).into(),
            len: 2,
            watched: Watched::Accesses,
        });
        for left in [149, 148] {
            assert!(matches!(machine.run(), Exit::Watchpoint(_)));
            assert_eq!(machine.vcpu.cpu.regs.get(ECX), left);
        }
        assert_eq!(machine.run(), Exit::Halt);
        assert_eq!(machine.vcpu.cpu.regs.get(ECX), 0);
    }
}

#[test]
fn an_access_that_faults_meets_no_watchpoint() {
    for mut machine in machines(store_to_absent) {
        let watchpoint = Watchpoint {
            start: (ABSENT + 8).into(),
            len: 4,
            watched: Watched::Writes,
        };
        machine.vcpu.debugger_mut().add_watchpoint(watchpoint);
        let hit = WatchHit {
            watchpoint,
            write: true,
        };
        assert_eq!(machine.run(), Exit::Watchpoint(hit));
        assert_eq!(machine.handled(PAGE_FAULT), 1);
        assert_eq!(machine.vcpu.cpu.eip, u64::from(machine.start) + 10);
        assert_eq!(result(&mut machine), 7);
    }
}

#[test]
fn steps_meet_watchpoints() {
    for mut machine in machines(accessing) {
        machine.vcpu.debugger_mut().add_watchpoint(Watchpoint {
            start: (DATA + 4).into(),
            len: 1,
            watched: Watched::Reads,
        });
        steps(&mut machine, 2);
        assert!(matches!(machine.step(), Exit::Watchpoint(_)));
        assert_eq!(machine.vcpu.cpu.regs.get(EAX), 0);
        steps(&mut machine, 1);
    }
}

#[test]
fn an_interrupt_that_waits_does_not_bring_back_to_the_breakpoint() {
    fn counting(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut again = a.create_label();
        a.mov(ecx, 5)?;
        a.sti()?;
        a.set_label(&mut again)?;
        a.inc(edx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.cli()?;
        a.hlt()
    }
    for mut machine in machines(counting) {
        let inc = steps(&mut machine, 2)[1];
        machine.vcpu.debugger_mut().add_breakpoint(inc.into());
        for done in 1..5 {
            machine.interrupt(LINE);
            assert_eq!(machine.run(), Exit::Breakpoint(inc.into()));
            assert_eq!(machine.vcpu.cpu.regs.get(EDX), done);
            assert_eq!(machine.handled(LINE), done);
        }
        machine.interrupt(LINE);
        assert_eq!(result(&mut machine), 5);
        assert_eq!(machine.handled(LINE), 5);
    }
}

#[test]
fn a_breakpoint_that_has_gone_costs_nothing() {
    fn spinning(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut again = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut again)?;
        a.inc(edx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    }
    let mut machine = machines(spinning).nth(1).unwrap();
    let [again, dec] = steps(&mut machine, 2)[..] else {
        panic!("two steps");
    };
    machine.vcpu.cpu.eip = again.into();
    machine.vcpu.debugger_mut().add_breakpoint(dec.into());
    for _ in 0..3 {
        assert_eq!(machine.run(), Exit::Breakpoint(dec.into()));
        steps(&mut machine, 1);
    }
    assert!(machine.vcpu.debugger_mut().remove_breakpoint(dec.into()));
    let exits = |machine: &Machine| machine.vcpu.translation().unwrap().exits.emulate;
    let before = exits(&machine);
    result(&mut machine);
    let exits = exits(&machine) - before;
    assert!(exits < 10, "{exits} exits to the emulator");
}

#[test]
fn who_has_stepped_into_a_repeated_instruction_meets_its_breakpoint_the_next_time() {
    fn copying_again(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut again = a.create_label();
        a.mov(ebx, 5)?;
        a.mov(edi, DATA)?;
        a.set_label(&mut again)?;
        a.mov(ecx, 20)?;
        a.rep().stosb()?;
        a.dec(ebx)?;
        a.jnz(again)?;
        a.hlt()
    }
    for mut machine in machines(copying_again) {
        let rep = steps(&mut machine, 5)[4];
        assert_eq!(machine.vcpu.cpu.regs.get(ECX), 18);
        machine.vcpu.debugger_mut().add_breakpoint(rep.into());
        for left in (1..5).rev() {
            assert_eq!(machine.run(), Exit::Breakpoint(rep.into()));
            assert_eq!(machine.vcpu.cpu.regs.get(EBX), left);
        }
        assert_eq!(machine.run(), Exit::Halt);
    }
}

/// Traps itself for some instructions: some that shadow, one that faults, one that calls, one that is repeated.
fn trapping(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let flag = TF as i32;
    a.mov(ecx, 3)?;
    a.mov(edi, DATA)?;
    a.pushfd()?;
    a.or(dword_ptr(esp), flag)?;
    a.popfd()?;
    a.nop()?;
    a.mov(eax, ss)?;
    a.mov(ss, eax)?;
    a.nop()?;
    a.mov(dword_ptr(ABSENT), 7)?;
    a.int(u32::from(CALL))?;
    a.rep().stosb()?;
    a.sti()?;
    a.nop()?;
    a.cli()?;
    a.pushfd()?;
    a.and(dword_ptr(esp), !flag)?;
    a.popfd()?;
    a.hlt()
}

/// The facts that the guest can tell in the end: how often its handlers ran, and its registers.
fn seen(machine: &Machine) -> ([u32; 3], Registers) {
    let counts = [DEBUG, CALL, PAGE_FAULT].map(|vector| machine.handled(vector));
    (counts, machine.vcpu.cpu.regs.clone())
}

#[test]
fn a_guest_that_traps_itself_does_not_see_steps_and_breakpoints() {
    for (mut undisturbed, (mut stepped, mut stopped)) in
        machines(trapping).zip(machines(trapping).zip(machines(trapping)))
    {
        assert_eq!(undisturbed.run(), Exit::Halt);
        let (counts, _) = seen(&undisturbed);
        assert_eq!(counts, [13, 1, 1]);
        while stepped.step() != Exit::Halt {}
        assert_eq!(seen(&stepped), seen(&undisturbed));

        for offset in 0..100 {
            stopped
                .vcpu
                .debugger_mut()
                .add_breakpoint((stopped.start + offset).into());
        }
        while stopped.run() != Exit::Halt {}
        assert_eq!(seen(&stopped), seen(&undisturbed));
    }
}
