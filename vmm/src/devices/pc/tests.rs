//! A PC as its ports show it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mmu::GuestPhys;
use proptest::prelude::*;
use sbe::Bus;

use super::*;
use crate::bus::Stop;

const MS: u64 = 1_000_000;

/// A board whose time the test sets, controllers initialized as a PC's BIOS does (vectors 8 and 0x70), lines unmasked.
fn board() -> (Board, Backends, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(0));
    let source = Arc::clone(&time);
    let clock = Clock::from_fn(move || source.load(Ordering::Relaxed));
    let (mut board, backends) = pc(clock, 0, Memory::new(1 << 20).unwrap());
    for (port, values) in [
        (0x20, [0x11].as_slice()),
        (0x21, &[0x08, 0x04, 0x01, 0x00]),
        (0xa0, &[0x11]),
        (0xa1, &[0x70, 0x02, 0x01, 0x00]),
    ] {
        for &value in values {
            board.port_write(port, Width::Byte, value);
        }
    }
    (board, backends, time)
}

fn read(board: &mut Board, port: u16) -> u32 {
    board.port_read(port, Width::Byte) & 0xff
}

fn write(board: &mut Board, port: u16, value: u32) {
    board.port_write(port, Width::Byte, value);
}

#[test]
fn absent_ports_read_as_ones_and_are_counted() {
    let (mut board, ..) = board();
    for port in [0x3e8, 0x2e8, 0x0278, 0x1f7, 0xcfc] {
        assert_eq!(read(&mut board, port), 0xff, "{port:#x}");
    }
    board.port_write(0x1f0, Width::Word, 0x1234);
    assert_eq!(board.port_read(0xcfc, Width::Dword), 0xffff_ffff);
    let unknown: Vec<_> = board
        .counts()
        .ports
        .accessed()
        .filter(|&(port, _)| !board.connected_ports().any(|ports| ports.contains(&port)))
        .map(|(port, count)| (port, count.reads, count.writes))
        .collect();
    assert_eq!(
        unknown,
        [
            (0x1f0, 0, 1),
            (0x1f7, 1, 0),
            (0x278, 1, 0),
            (0x2e8, 1, 0),
            (0x3e8, 1, 0),
            (0xcfc, 2, 0)
        ]
    );
}

#[test]
fn memory_that_is_not_there_reads_as_ones() {
    let (mut board, ..) = board();
    board.mmio_write(GuestPhys::new(0xb8000), 2, 0x0741);
    assert_eq!(board.mmio_read(GuestPhys::new(0xb8000), 2) & 0xffff, 0xffff);
    assert_eq!(board.counts().mmio, 2);
}

#[test]
fn serial_ports_have_their_addresses_and_interrupts() {
    for (com, base, vector) in [(1, 0x3f8, 0x0c), (2, 0x2f8, 0x0b)] {
        let (mut board, backends, _) = board();
        let com = if com == 1 {
            backends.com1
        } else {
            backends.com2
        };
        write(&mut board, base, u32::from(b'!'));
        assert_eq!(com.take_transmitted(), b"!");
        write(&mut board, base + 4, 0x0b);
        write(&mut board, base + 1, 0x01);
        assert!(!board.intr());
        com.send(b"x");
        board.advance_devices();
        assert!(board.intr());
        assert_eq!(board.acknowledge(), vector);
        assert_eq!(read(&mut board, base), u32::from(b'x'));
        assert_eq!(com.room(), 256);
    }
}

#[test]
fn the_timer_interrupts_at_its_deadline() {
    let (mut board, _, time) = board();
    write(&mut board, 0x43, 0x34);
    write(&mut board, 0x40, 0x9c);
    write(&mut board, 0x40, 0x2e);
    let deadline = board.next_deadline().unwrap();
    assert!((9 * MS..11 * MS).contains(&deadline), "{deadline}");
    time.store(deadline - 1, Ordering::Relaxed);
    board.advance();
    assert!(!board.intr());
    time.store(deadline, Ordering::Relaxed);
    board.advance();
    assert!(board.intr());
    assert_eq!(board.acknowledge(), 0x08);
    assert_eq!(board.counts().interrupts, 1);
}

#[test]
fn an_injected_interrupt_is_none_of_the_controllers() {
    let (mut board, _, time) = board();
    let in_service = |board: &mut Board| {
        write(board, 0x20, 0x0b);
        read(board, 0x20) & 1 != 0
    };
    for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
        write(&mut board, port, value);
    }
    time.store(20 * MS, Ordering::Relaxed);
    board.advance();
    assert_eq!(board.acknowledge(), 0x08);
    board.inject(0x08);
    assert_eq!(board.acknowledge(), 0x08);
    board.end_service(0x08);
    assert!(in_service(&mut board), "the timer's handler still runs");
    write(&mut board, 0x20, 0x20);
    time.store(40 * MS, Ordering::Relaxed);
    board.advance();
    assert_eq!(board.acknowledge(), 0x08);
    board.end_service(0x02);
    assert!(in_service(&mut board), "NMI has the vector of another line");
    board.end_service(0x08);
    assert!(!in_service(&mut board));
}

#[test]
fn the_rtc_interrupts_on_irq_8() {
    let (mut board, _, time) = board();
    write(&mut board, 0x70, 0x0b);
    write(&mut board, 0x71, 0x12);
    assert_eq!(board.next_deadline(), Some(1000 * MS));
    time.store(1000 * MS, Ordering::Relaxed);
    board.advance();
    assert_eq!(board.acknowledge(), 0x70);
    write(&mut board, 0x70, 0x00);
    assert_eq!(read(&mut board, 0x71), 0x01, "a second has passed");
}

#[test]
fn every_way_to_reset_stops_the_processor() {
    for (port, value) in [(0x64, 0xfe), (0x92, 0x03), (0xcf9, 0x06)] {
        let (mut board, ..) = board();
        assert!(!board.stop_requested());
        write(&mut board, port, value);
        assert_eq!(board.stop(), Some(Stop::Reset), "{port:#x}");
        assert!(board.stop_requested());
    }
}

#[test]
fn pci_configuration_addresses_do_not_reset() {
    let (mut board, ..) = board();
    board.port_write(0xcf8, Width::Dword, 0x8000_ff00);
    assert_eq!(board.stop(), None);
    assert_eq!(board.port_read(0xcf8, Width::Dword), 0xffff_ffff, "no PCI");
}

#[test]
fn debug_ports() {
    let (mut board, backends, _) = board();
    assert_eq!(read(&mut board, 0xe9), 0xe9);
    write(&mut board, 0xe9, u32::from(b'o'));
    board.port_write(0xe9, Width::Word, u32::from(b'k'));
    assert_eq!(backends.debug.take_output(), b"ok");
    write(&mut board, 0x80, 0x55);
    assert_eq!(board.stop(), None);
    write(&mut board, 0xf4, 42);
    write(&mut board, 0x64, 0xfe);
    assert_eq!(board.stop(), Some(Stop::DebugExit(42)), "the first counts");
}

#[test]
fn wide_accesses_cover_consecutive_ports() {
    let (mut board, ..) = board();
    assert_eq!(
        board.port_read(0x91, Width::Word) & 0xffff,
        0x02ff,
        "0x92 is the upper byte"
    );
    assert_eq!(
        board.port_read(0xffff, Width::Dword),
        0xffff_ffff,
        "ports wrap"
    );
    board.port_write(0x70, Width::Word, 0x5a40);
    write(&mut board, 0x70, 0x40);
    assert_eq!(read(&mut board, 0x71), 0x5a, "index and data at once");
}

/// An access to I/O ports, and the nanoseconds that pass before it.
#[derive(Clone, Copy, Debug)]
struct Step {
    pass: u64,
    port: u16,
    width: Width,
    write: Option<u32>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let port = prop_oneof![
        proptest::sample::select(vec![
            0x20, 0x21, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x70, 0x71, 0x71, 0x80, 0x92,
            0xa0, 0xa1, 0xe9, 0xf4, 0x4d0, 0x4d1, 0xcf8, 0xcf9
        ]),
        0x2f8u16..0x300,
        0x3f8u16..0x400,
    ];
    let width = proptest::sample::select(vec![Width::Byte, Width::Word, Width::Dword]);
    let write = proptest::option::of(any::<u32>());
    let step = (0..3 * MS, port, width, write).prop_map(|(pass, port, width, write)| Step {
        pass,
        port,
        width,
        write,
    });
    proptest::collection::vec(step, 0..200)
}

/// Makes the accesses, and returns what is seen of the board.
fn take(
    (board, backends, time): &mut (Board, Backends, Arc<AtomicU64>),
    steps: &[Step],
) -> Vec<(u32, bool, Option<u64>)> {
    let see = |step: &Step| {
        time.fetch_add(step.pass, Ordering::Relaxed);
        board.advance();
        let seen = match step.write {
            None => board.port_read(step.port, step.width),
            Some(value) => {
                board.port_write(step.port, step.width, value);
                0
            }
        };
        if backends.com1.room() > 0 && step.pass.is_multiple_of(2) {
            backends.com1.send(&[step.pass as u8; 3]);
            board.advance_devices();
        }
        if step.pass.is_multiple_of(7) {
            backends.com2.send_break();
        }
        let intr = board.intr();
        if intr && step.pass.is_multiple_of(3) {
            return (board.acknowledge().into(), true, board.next_deadline());
        }
        (seen, intr, board.next_deadline())
    };
    steps.iter().map(see).collect()
}

fn saved(board: &Board) -> Vec<u8> {
    postcard::to_stdvec(&board.save().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_restored_board_goes_on_as_the_saved_one(
        before in steps(), after in steps(), origin in 0..1u64 << 60
    ) {
        let mut original = board();
        take(&mut original, &before);
        let bytes = saved(&original.0);

        let mut other = board();
        other.2.store(origin, Ordering::Relaxed);
        take(&mut other, &after);
        other.0.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
        prop_assert_eq!(saved(&other.0), bytes);
        prop_assert_eq!(take(&mut original, &after), take(&mut other, &after));
        prop_assert_eq!(original.0.stop(), other.0.stop());
        for (mine, theirs) in [
            (original.1.com1, other.1.com1),
            (original.1.com2, other.1.com2),
        ] {
            prop_assert_eq!(mine.take_transmitted(), theirs.take_transmitted());
        }
        prop_assert_eq!(original.1.debug.take_output(), other.1.debug.take_output());
    }

    #[test]
    fn no_saved_state_panics(
        before in steps(),
        after in steps(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut original = board();
        take(&mut original, &before);
        let mut bytes = saved(&original.0);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let mut other = board();
        if let Ok(state) = postcard::from_bytes(&bytes)
            && other.0.restore(state).is_ok()
        {
            take(&mut other, &after);
            saved(&other.0);
        }
    }

    #[test]
    fn a_state_of_any_bytes_is_a_device_s_or_an_error_that_names_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), after in steps()
    ) {
        for name in ["RTC", "COM1", "i8042", "control port A", "reset control", "debug console"] {
            let mut board = board();
            let mut state = board.0.save().unwrap();
            state.device_mut(name).state.clone_from(&bytes);
            match board.0.restore(state) {
                Ok(()) => drop(take(&mut board, &after)),
                Err(error) => prop_assert!(error.to_string().contains(name), "{}", error),
            }
        }
    }
}

#[test]
fn a_device_that_is_refused_leaves_the_edge_level_control_registers_alone() {
    let (mut board, ..) = board();
    // The guest has made IRQ 11 level triggered.
    write(&mut board, 0x4d1, 1 << 3);
    let irq = |number| Irq::new(number).unwrap();
    let resources = Resources::new("other");
    let resources = resources.level_line(irq(11)).level_line(irq(13));
    let error = board.attach(&resources, Box::new(PostCode)).unwrap_err();
    assert_eq!(error.to_string(), "IRQ 13 cannot be level triggered");
    assert_eq!(read(&mut board, 0x4d1), 1 << 3);
}

#[test]
fn states_and_devices_go_together() {
    let (mut board, ..) = board();
    let state = board.save().unwrap();
    let com2 = board.detach("COM2").unwrap();
    let error = board.restore(state.clone()).unwrap_err();
    assert_eq!(error.to_string(), "there is no device \"COM2\" to restore");
    board.attach(&Resources::new("COM3"), com2).unwrap();
    let error = board.restore(state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no state, or several, for device \"COM3\""
    );
}
