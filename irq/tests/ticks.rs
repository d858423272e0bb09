//! The timer's ticks when the machine, or the guest, is late: tests of the policy of `irq::chipset`.

mod machine;

use irq::TimerStats;
use irq::chipset::{GAP, MOST_OWED, PATIENCE};
use machine::{Action, Machine, TIMER, action, perform};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const MS: u64 = 1_000_000;
/// The count of a timer of about 1000 Hz.
const COUNT_1MS: u16 = 1_193;
/// The time for which a machine runs its processor without looking at the clock, in nanoseconds.
const SLICE: u64 = 250_000;

impl Machine {
    /// Lets the guest compute for `time` with interrupts enabled, in slices.
    fn compute(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.wait(SLICE);
            self.run_handlers();
        }
    }

    /// Lets the guest wait in HLT for `time`.
    fn idle(&mut self, time: u64) {
        let end = self.now + time;
        self.run_handlers();
        while let Some(deadline) = self.chipset.next_deadline().filter(|&next| next < end) {
            self.wait(deadline.saturating_sub(self.now));
            self.run_handlers();
        }
        self.wait(end.saturating_sub(self.now));
    }

    /// Lets the guest compute for `time` with interrupts disabled, in slices.
    fn refuse(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.wait(SLICE.min(end - self.now));
        }
    }

    fn stats(&self) -> TimerStats {
        let stats = self.chipset.timer_stats();
        assert_balanced(stats);
        stats
    }

    fn lost(&self) -> u64 {
        self.stats().lost
    }
}

fn assert_balanced(stats: TimerStats) {
    assert_eq!(
        stats.ticks + stats.doubled,
        stats.delivered + stats.lost + stats.waiting,
        "{stats:?}"
    );
}

#[test]
fn a_machine_that_stalls_for_two_seconds_loses_no_tick() {
    type Guest = fn(&mut Machine, u64);
    for (name, guest) in [
        ("idle", Machine::idle as Guest),
        ("computing", Machine::compute),
    ] {
        for mode in [2, 3] {
            let mut machine = Machine::new(mode, COUNT_1MS);
            guest(&mut machine, 100 * MS);
            let (before, first_late) = (machine.stats().ticks, machine.taken.len());
            machine.wait(2_000 * MS);
            let stalled = machine.stats().ticks - before;
            assert!((2_000..=2_001).contains(&stalled), "{stalled}");
            machine.run_handlers();
            guest(&mut machine, 1_500 * MS);

            let stats = machine.stats();
            let what = format!("{name}, mode {mode}: {stats:?}");
            assert_eq!((stats.lost, stats.doubled), (0, 0), "{what}");
            assert!(stats.waiting <= 1, "{what}");
            assert_eq!(machine.taken.len() as u64, stats.delivered, "{what}");
            assert!(stats.late >= 1_999, "{what}");
            let spread = machine.taken[first_late..]
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= GAP);
            assert!(spread, "{what}");
        }
    }
}

#[test]
fn a_tick_requests_while_the_one_before_is_in_service() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(MS);
    assert_eq!(machine.chipset.acknowledge(), TIMER);
    let before = machine.stats();
    machine.refuse(5 * MS);
    let after = machine.stats();
    assert_eq!(after.ticks - before.ticks, 5);
    assert_eq!(after.lost - before.lost, 4, "one waits for the EOI");
    assert_eq!(machine.read(0x20), 0x01, "IRR");
    assert!(!machine.chipset.intr());
    machine.write(&[(0x20, 0x20)]);
    assert!(machine.chipset.intr());
}

#[test]
fn what_is_owed_waits_for_the_end_of_the_service() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(500 * MS);
    assert_eq!(machine.chipset.acknowledge(), TIMER);
    machine.wait(MS / 10);
    assert!(machine.chipset.next_deadline().unwrap() > machine.now + GAP);
    machine.wait(MS / 10);
    assert_eq!(machine.read(0x20), 0, "IRR");
    machine.write(&[(0x20, 0x20)]);
    assert_eq!(machine.chipset.next_deadline(), Some(machine.now + GAP));
}

#[test]
fn with_interrupts_off_all_ticks_but_one_are_lost() {
    for mode in [2, 3] {
        let mut machine = Machine::new(mode, COUNT_1MS);
        let before = machine.stats();
        machine.refuse(100 * MS);
        let after = machine.stats();
        let ticks = after.ticks - before.ticks;
        assert!((99..=101).contains(&ticks), "mode {mode}: {ticks}");
        let lost = after.lost - before.lost;
        assert_eq!(lost + after.waiting, ticks, "mode {mode}");
        assert!(after.waiting <= 1, "mode {mode}");
        assert_eq!(after.delivered, before.delivered);
    }
}

#[test]
fn with_interrupts_off_a_fast_timer_is_owed_for_no_more_than_a_slice() {
    let mut machine = Machine::new(2, 119);
    machine.refuse(100 * MS);
    let stats = machine.stats();
    assert!(stats.ticks >= 1_000, "{stats:?}");
    assert!(stats.waiting <= 2 * SLICE / 99_000 + 2, "{stats:?}");
}

#[test]
fn a_stall_while_a_request_waits_is_the_machines() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.refuse(3 * MS);
    let before = machine.stats();
    machine.wait(2_000 * MS);
    let after = machine.stats();
    assert_eq!(
        after.lost - before.lost,
        PATIENCE / MS,
        "what came within PATIENCE"
    );
    machine.run_handlers();
    machine.compute(1_500 * MS);
    let caught_up = machine.stats();
    assert_eq!(caught_up.lost, after.lost);
    assert!(caught_up.waiting <= 1);
}

#[test]
fn a_request_that_could_not_be_seen_yet_is_not_lost() {
    // Two advances with nothing in between, as where HLT is left, and a tick in the second.
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(MS);
    assert!(machine.chipset.intr());
    machine.wait(MS);
    assert_eq!(machine.lost(), 0);
    machine.run_handlers();
    machine.wait(GAP);
    machine.run_handlers();
    assert_eq!((machine.lost(), machine.stats().waiting), (0, 0));

    // The same, but OUT0 falls.
    let mut machine = Machine::new(3, COUNT_1MS);
    machine.wait(MS);
    machine.wait(MS / 2);
    assert!(machine.chipset.intr());
    machine.wait(MS / 20);
    assert!(!machine.chipset.intr(), "the guest has let it go");
    assert_eq!(machine.lost(), 1);
}

#[test]
fn masking_for_a_handler_drops_nothing() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(2_000 * MS);
    let owed = machine.stats().waiting;
    assert!(owed >= 2_000, "{owed}");
    for _ in 0..owed {
        assert_eq!(machine.chipset.acknowledge(), TIMER);
        machine.write(&[(0x21, 0x01), (0x20, 0x60)]);
        machine.now += 20_000;
        machine.write(&[(0x21, 0x00)]);
        assert!(!machine.chipset.intr(), "the interrupted program's turn");
        let deadline = machine.chipset.next_deadline().unwrap();
        assert!(deadline <= machine.now + GAP);
        machine.wait(deadline.saturating_sub(machine.now));
        assert!(machine.chipset.intr());
    }
    assert_eq!(machine.lost(), 0);
}

#[test]
fn keeping_irq_0_masked_past_a_tick_drops_what_is_owed() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(2_000 * MS);
    machine.write(&[(0x21, 0x01)]);
    machine.refuse(MS / 2);
    assert!(machine.stats().waiting >= 2_000);
    machine.refuse(2 * MS);
    assert_eq!(
        machine.stats().waiting,
        1,
        "what is latched, as on hardware"
    );
    assert_eq!(machine.chipset.next_deadline(), None);
    machine.write(&[(0x21, 0x00)]);
    machine.run_handlers();
    machine.compute(10 * MS);
    assert_eq!(machine.stats().late, 0);
}

#[test]
fn a_control_word_for_counter_0_drops_what_is_owed() {
    for (control, dropped) in [
        (0x34, true),
        (0x30, true),
        (0xb4, false),
        (0xc2, false),
        (0x00, false),
    ] {
        let mut machine = Machine::new(2, COUNT_1MS);
        machine.wait(500 * MS);
        let before = machine.stats();
        assert!(before.waiting >= 500);
        machine.write(&[(0x43, control)]);
        let after = machine.stats();
        assert_eq!(after.waiting <= 1, dropped, "{control:#x}: {after:?}");
        assert_eq!(
            after.lost - before.lost,
            before.waiting - after.waiting,
            "{control:#x}"
        );
    }
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(500 * MS);
    machine.write(&[(0x40, 0), (0x40, 0)]);
    assert_eq!(machine.lost(), 0, "a new count drops nothing");
}

#[test]
fn a_one_shot_within_the_gap_comes_after_it() {
    for mode in [0, 4] {
        let mut machine = Machine::new(mode, 1_000);
        machine.idle(2 * MS);
        machine.taken.clear();
        // Each handler programs the next interrupt, 13 µs later.
        machine.write(&[(0x40, 15), (0x40, 0)]);
        for _ in 0..10 {
            let deadline = machine.chipset.next_deadline().unwrap();
            machine.wait(deadline.saturating_sub(machine.now));
            assert!(machine.chipset.intr(), "mode {mode}");
            machine.run_handlers();
            machine.write(&[(0x40, 15), (0x40, 0)]);
        }
        assert_eq!(machine.taken.len(), 10, "mode {mode}");
        assert!(
            machine
                .taken
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= GAP),
            "mode {mode}"
        );
        assert_eq!(machine.lost(), 0, "mode {mode}");
    }
}

#[test]
fn more_than_the_most_is_lost() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(60_000 * MS);
    let stats = machine.stats();
    assert_eq!(stats.waiting, MOST_OWED + 1, "one is requested");
    assert!(stats.lost >= 60_000 - MOST_OWED - 1);
}

#[test]
fn an_absurd_rate_leaves_the_program_its_turn() {
    for (icw4, name) in [(0x01, "EOI"), (0x03, "AEOI")] {
        let mut machine = Machine::with_master(0x11, icw4, 2, 2);
        machine.idle(100 * MS);
        let times = &machine.taken[1..];
        assert!(times.len() > 1_000, "{name}: {}", times.len());
        assert!(
            times.windows(2).all(|pair| pair[1] - pair[0] >= GAP),
            "{name}"
        );
        let stats = machine.stats();
        assert!(stats.lost > 40_000, "{name}: {stats:?}");
        assert_eq!(stats.doubled, 0, "{name}");
    }
}

#[test]
fn a_handler_longer_than_the_gap_leaves_the_program_its_turn() {
    let mut machine = Machine::new(2, 2);
    for _ in 0..100 {
        machine.wait(GAP);
        assert_eq!(machine.chipset.acknowledge(), TIMER);
        for _ in 0..5 {
            machine.now += 2 * GAP;
            machine.read(0x21);
        }
        machine.write(&[(0x20, 0x20)]);
        machine.now += GAP - 1;
        machine.read(0x21);
        if machine.stats().delivered > 3 {
            assert!(!machine.chipset.intr());
        }
        machine.now += 1;
    }
}

#[test]
fn a_pause_leaves_one_tick() {
    let mut machine = Machine::new(2, COUNT_1MS);
    let before = machine.stats();
    machine.now += 5_000 * MS;
    machine.chipset.advance_paused(machine.now);
    let after = machine.stats();
    assert_eq!(after.waiting, 1);
    assert_eq!(after.lost - before.lost, after.ticks - before.ticks - 1);
    assert!(machine.chipset.intr());
    machine.run_handlers();
    machine.compute(100 * MS);
    assert_eq!(machine.stats().lost, after.lost);
    assert_eq!(machine.stats().late, 0);
}

#[test]
fn pauses_between_which_no_interrupt_is_taken_leave_one_tick() {
    for mode in [2, 3] {
        let mut machine = Machine::new(mode, COUNT_1MS);
        for _ in 0..100 {
            machine.now += 5 * MS;
            machine.chipset.advance_paused(machine.now);
            // A debugger's step.
            machine.wait(0);
            machine.wait(1_000);
        }
        assert_eq!(machine.stats().waiting, 1, "mode {mode}");
        assert!(machine.chipset.intr());
    }
}

#[test]
fn a_pause_is_no_time_to_take_an_interrupt_in() {
    let mut machine = Machine::new(3, COUNT_1MS);
    while !machine.chipset.intr() {
        machine.wait(MS / 16);
    }
    // Up to where OUT0 is low.
    machine.now += MS * 5 / 8;
    machine.chipset.advance_paused(machine.now);
    machine.wait(0);
    assert!(machine.chipset.intr());
    // The guest could have taken it from there on.
    machine.wait(GAP);
    assert!(!machine.chipset.intr());
    assert_eq!(machine.stats().lost, 1);
}

#[test]
fn a_poll_delivers_a_tick() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(MS);
    let before = machine.stats();
    machine.write(&[(0x20, 0x0c)]);
    assert_eq!(machine.read(0x20), 0x80);
    let after = machine.stats();
    assert_eq!(after.delivered, before.delivered + 1);
    assert_eq!(after.lost, before.lost);
}

#[test]
fn initializing_the_controller_loses_what_it_forgets() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(MS);
    assert_eq!((machine.lost(), machine.stats().waiting), (0, 1));
    machine.write(&[(0x20, 0x11)]);
    assert_eq!((machine.lost(), machine.stats().waiting), (1, 0));
}

#[test]
fn level_triggered_inputs_double_ticks() {
    let mut machine = Machine::with_master(0x19, 0x01, 0, 1_000);
    machine.wait(MS);
    for _ in 0..3 {
        assert!(machine.chipset.intr(), "OUT0 stays high");
        machine.chipset.acknowledge();
        machine.write(&[(0x20, 0x20)]);
    }
    let stats = machine.stats();
    assert_eq!((stats.ticks, stats.delivered, stats.doubled), (1, 3, 2));
}

#[test]
fn a_deadline_may_be_over() {
    let mut machine = Machine::new(2, COUNT_1MS);
    machine.wait(5 * MS);
    assert_eq!(machine.chipset.acknowledge(), TIMER);
    machine.wait(MS / 2);
    // The end of the service is not seen by an advance.
    machine.now += 10 * MS;
    machine.chipset.end_service(TIMER);
    let deadline = machine.chipset.next_deadline().unwrap();
    assert!(deadline < machine.now);
    machine.wait(0);
    machine.wait(GAP);
    assert!(machine.chipset.intr());
}

/// The configuration that makes the same guests in every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(8254),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_account_is_balanced_at_any_time(
        mode in 0..6_u8,
        count in 1..3_000_u16,
        actions in prop::collection::vec(action(), 1..100),
    ) {
        let mut machine = Machine::new(mode, count);
        let mut taken = machine.stats().delivered;
        let mut level_triggered = false;
        for (index, action) in actions.iter().enumerate() {
            level_triggered |= matches!(action, Action::Initialize(0x19, _));
            taken += u64::from(perform(&mut machine, action));
            let stats = machine.chipset.timer_stats();
            prop_assert_eq!(
                stats.ticks + stats.doubled,
                stats.delivered + stats.lost + stats.waiting,
                "action {}: {:x?}: {:?}", index, action, stats
            );
            prop_assert_eq!(stats.delivered, taken, "action {}: {:x?}", index, action);
            prop_assert!(stats.late <= stats.delivered);
            prop_assert!(stats.waiting <= MOST_OWED + 1);
            prop_assert!(level_triggered || stats.doubled == 0, "action {}: {:x?}", index, action);
            if let Some(deadline) = machine.chipset.next_deadline().filter(|_| stats.waiting == 0) {
                let mut later = machine.chipset.clone();
                later.advance(deadline);
                prop_assert!(later.timer_stats().waiting > 0, "action {}: {:x?}", index, action);
            }
        }
    }
}
