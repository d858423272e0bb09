//! Devices that request without end.

use iced_x86::{IcedError, code_asm::*};
use sbe::{Bus, Exit, Width};

use crate::rig::{COM1, Gate, Rig, SLICE, TIMER, count_tick, counter, keeping_registers, on_all};

/// Counts for ever with interrupts on.
fn count(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.sti()?;
    a.set_label(&mut again)?;
    a.inc(dword_ptr(counter(0)))?;
    a.jmp(again)
}

/// A handler that reads COM1 until nothing is left, and counts what it reads.
fn receive(a: &mut CodeAssembler) -> Result<(), IcedError> {
    keeping_registers(a, &|a| {
        let (mut again, mut done) = (a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.mov(edx, 0x3fd)?;
        a.in_(al, dx)?;
        a.test(al, 1)?;
        a.jz(done)?;
        a.mov(edx, 0x3f8)?;
        a.in_(al, dx)?;
        a.inc(dword_ptr(counter(1)))?;
        a.jmp(again)?;
        a.set_label(&mut done)?;
        a.mov(al, 0x20)?;
        a.out(0x20, al)
    })
}

#[test]
fn a_line_that_stays_high_starves_the_program_as_on_hardware_but_not_the_monitor() {
    on_all(|processor| {
        let mut rig = Rig::new(processor, &count, (COM1, Gate::Interrupt, &count_tick));
        rig.write(&[(0x4d0, 0x10)]);
        rig.enable_com1();
        assert_eq!(rig.slice(), Exit::Budget);
        let before = rig.count(0);
        assert_ne!(before, 0);

        rig.flood();
        for slice in 1..=100 {
            assert_eq!(rig.slice(), Exit::Budget, "{processor:?}");
            assert!(rig.count(1) >= slice, "{processor:?}");
        }
        assert_eq!(
            rig.count(0),
            before,
            "{processor:?}: no turn for the program"
        );

        // The monitor may do as it likes between two slices. It takes the byte.
        while rig.board.port_read(0x3fd, Width::Byte) & 1 != 0 {
            rig.board.port_read(0x3f8, Width::Byte);
        }
        assert_eq!(rig.slice(), Exit::Budget);
        assert_ne!(rig.count(0), before, "{processor:?}");
    });
}

#[test]
fn deliveries_without_an_instruction_between_use_up_the_budget() {
    on_all(|processor| {
        // The controller ends the service by itself, and the gate leaves interrupts on: the handler is interrupted before
        // its first instruction.
        let mut rig = Rig::new(processor, &count, (COM1, Gate::Trap, &count_tick));
        rig.initialize(0x03);
        rig.write(&[(0x4d0, 0x10)]);
        rig.enable_com1();
        assert_eq!(rig.slice(), Exit::Budget);
        rig.flood();
        let before = rig.vcpu.cpu.delivered;
        for _ in 0..10 {
            assert_eq!(rig.slice(), Exit::Budget, "{processor:?}");
        }
        let delivered = rig.vcpu.cpu.delivered - before;
        assert!(
            (10..=10 * SLICE).contains(&delivered),
            "{processor:?}: {delivered}"
        );
        assert_eq!(rig.count(1), 0, "{processor:?}");
    });
}

#[test]
fn a_timer_at_the_highest_rate_leaves_the_program_its_turn() {
    on_all(|processor| {
        let mut rig = Rig::new(processor, &count, (TIMER, Gate::Interrupt, &count_tick));
        rig.start_timer(2);
        for _ in 0..200 {
            let before = rig.count(0);
            assert_eq!(rig.slice(), Exit::Budget, "{processor:?}");
            assert!(rig.count(0) > before + 100, "{processor:?}");
        }
        let stats = rig.board.timer_stats();
        assert_eq!(rig.count(1), stats.delivered, "{processor:?}");
        assert!(stats.delivered >= 200, "{processor:?}: {stats:?}");
        assert!(stats.lost > 0, "{processor:?}: {stats:?}");
    });
}

#[test]
fn a_flood_of_input_leaves_the_program_its_turn() {
    on_all(|processor| {
        let mut rig = Rig::new(processor, &count, (COM1, Gate::Interrupt, &receive));
        rig.enable_com1();
        let mut sent = 0;
        for _ in 0..500 {
            sent += rig.flood() as u64;
            let before = rig.count(0);
            assert_eq!(rig.slice(), Exit::Budget, "{processor:?}");
            assert!(rig.count(0) > before, "{processor:?}");
        }
        assert_eq!(rig.count(1), sent, "{processor:?}");
        assert!(sent >= 100_000, "{processor:?}: {sent}");
    });
}
