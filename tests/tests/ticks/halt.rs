//! HLT while the timer has something to deliver.

use iced_x86::{IcedError, code_asm::*};
use sbe::Bus;

use crate::rig::{Gate, Rig, TIMER, count_tick, counter, on_all};

const MS: u64 = 1_000_000;
/// Count of a timer of about 1000 Hz.
const COUNT_1MS: u16 = 1_193;

/// Waits for ever, and counts how often it is woken.
fn wait(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.sti()?;
    a.hlt()?;
    a.cli()?;
    a.inc(dword_ptr(counter(0)))?;
    a.jmp(again)
}

/// Runs `test` on each processor with a machine whose timer was just started.
fn with_timer(test: impl Fn(Rig)) {
    on_all(|processor| {
        let mut rig = Rig::new(processor, &wait, (TIMER, Gate::Interrupt, &count_tick));
        rig.start_timer(COUNT_1MS);
        test(rig);
    });
}

#[test]
fn a_request_that_is_pending_lets_hlt_through_at_once() {
    with_timer(|mut rig| {
        // The control word has raised OUT0: the first HLT does not wait, the second does.
        rig.run_to_halt();
        assert_eq!((rig.count(0), rig.count(1)), (1, 1));
    });
}

#[test]
fn hlt_waits_until_the_deadline_and_no_longer() {
    with_timer(|mut rig| {
        rig.run_to_halt();
        for tick in 2..100 {
            let deadline = rig.board.next_deadline().unwrap();
            assert!(deadline > rig.now() && deadline < rig.now() + 2 * MS);
            rig.pass(deadline - rig.now());
            rig.run_to_halt();
            assert_eq!((rig.count(0), rig.count(1)), (tick, tick));
        }
        assert_eq!(rig.board.timer_stats().late, 0);
    });
}

#[test]
fn hlt_with_ticks_owed_waits_for_the_gap() {
    with_timer(|mut rig| {
        rig.run_to_halt();
        rig.pass(50 * MS);
        rig.run_to_halt();
        let mut waits = 0;
        while rig.board.timer_stats().waiting > 0 {
            let deadline = rig.board.next_deadline().unwrap();
            assert!(
                deadline <= rig.now() + MS / 10,
                "{deadline} at {}",
                rig.now()
            );
            rig.pass(deadline.saturating_sub(rig.now()));
            rig.run_to_halt();
            waits += 1;
        }
        assert!(waits >= 49, "{waits}");
        let stats = rig.board.timer_stats();
        assert_eq!(stats.delivered, rig.count(1));
        assert_eq!((stats.lost, stats.doubled), (0, 0));
        assert_eq!(rig.count(0), rig.count(1), "each tick wakes by itself");
    });
}

#[test]
fn a_deadline_that_is_over_when_hlt_waits_for_it_is_now() {
    with_timer(|mut rig| {
        rig.run_to_halt();
        let deadline = rig.board.next_deadline().unwrap();
        rig.pass(3 * MS);
        assert!(deadline < rig.now());
        let before = rig.count(1);
        rig.board.advance();
        assert!(rig.board.intr());
        rig.run_to_halt();
        assert!(rig.count(1) > before);
    });
}
