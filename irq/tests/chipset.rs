//! The wired chipset as a machine uses it, through time, ports, lines, vectors and deadlines.

use irq::{AlwaysEdgeTriggered, Chipset, Irq, Level, Port, TimerStats, chipset::GAP};

/// The time that `number` clock pulses of the 8254 take, in nanoseconds, rounded up.
fn pulses(number: u64) -> u64 {
    let time = (u128::from(number) * 1_000_000_000).div_ceil(u128::from(irq::pit::FREQUENCY_HZ));
    u64::try_from(time).expect("tests stay within 584 years")
}

fn write(chipset: &mut Chipset, writes: &[(u16, u8)]) {
    for &(address, value) in writes {
        chipset.write(
            Port::decode(address).expect("tests name ports of the chipset"),
            value,
        );
    }
}

fn read(chipset: &mut Chipset, address: u16) -> u8 {
    chipset.read(Port::decode(address).expect("tests name ports of the chipset"))
}

/// Returns a chipset with initialized controllers.
fn initialized() -> Chipset {
    let mut chipset = Chipset::new();
    initialize(&mut chipset);
    chipset
}

/// Initializes the controllers with vectors 0x20 and 0x28.
fn initialize(chipset: &mut Chipset) {
    write(
        chipset,
        &[(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, 0x01)],
    );
    write(
        chipset,
        &[(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01)],
    );
}

/// Writes the control word of counter 0 for `mode` and both bytes of the count.
fn program(chipset: &mut Chipset, mode: u8, count: u16) {
    let [low, high] = count.to_le_bytes();
    write(
        chipset,
        &[(0x43, 0x30 | mode << 1), (0x40, low), (0x40, high)],
    );
}

/// Takes the timer's interrupt at `now`, from its vector to its EOI.
fn take_tick(chipset: &mut Chipset, now: u64) {
    assert!(chipset.intr());
    assert_eq!(chipset.acknowledge(), 0x20);
    chipset.advance(now);
    write(chipset, &[(0x20, 0x20)]);
}

#[test]
fn periodic_mode_ticks_at_each_deadline_without_drift() {
    for mode in [2, 3] {
        let mut chipset = initialized();
        program(&mut chipset, mode, 11_932);
        // Programming raises OUT0, which is an edge like any other.
        take_tick(&mut chipset, 0);
        for tick in 1..=1_000 {
            let deadline = chipset
                .next_deadline()
                .expect("a periodic timer always has one");
            assert_eq!(
                deadline,
                pulses(1 + tick * 11_932),
                "mode {mode}, tick {tick}"
            );
            chipset.advance(deadline - 1);
            assert!(!chipset.intr(), "mode {mode}, tick {tick}: not before");
            chipset.advance(deadline);
            take_tick(&mut chipset, deadline);
            assert!(!chipset.intr(), "mode {mode}, tick {tick}: once");
        }
        assert_eq!(
            chipset.timer_stats(),
            TimerStats {
                ticks: 1_001,
                delivered: 1_001,
                ..TimerStats::default()
            },
            "mode {mode}"
        );
    }
}

#[test]
fn one_shot_modes_tick_once() {
    // The control word of mode 4 raises OUT0.
    for (mode, delay, ticks) in [(0, 1 + 500, 1), (4, 1 + 500 + 1, 2)] {
        let mut chipset = initialized();
        write(&mut chipset, &[(0x43, 0x30 | mode << 1)]);
        if chipset.intr() {
            take_tick(&mut chipset, 0);
        }
        program(&mut chipset, mode, 500);
        assert_eq!(chipset.next_deadline(), Some(pulses(delay)), "mode {mode}");
        chipset.advance(pulses(delay));
        take_tick(&mut chipset, pulses(delay));
        assert_eq!(chipset.next_deadline(), None, "mode {mode}");
        chipset.advance(pulses(1_000_000));
        assert!(!chipset.intr(), "mode {mode}");
        assert_eq!(
            chipset.timer_stats(),
            TimerStats {
                ticks,
                delivered: ticks,
                ..TimerStats::default()
            },
            "mode {mode}"
        );
    }
}

#[test]
fn a_pulse_that_came_and_went_unseen_still_interrupts() {
    // Both times, OUT0 is low again when the chipset advances.
    for (mode, first_look, second_look) in [
        (2, pulses(1 + 1_000 + 999), pulses(1 + 1_000 + 999) + 1),
        (3, pulses(1 + 1_600), pulses(1 + 1_800)),
    ] {
        let mut chipset = initialized();
        program(&mut chipset, mode, 1_000);
        take_tick(&mut chipset, 0);
        chipset.advance(first_look);
        assert!(chipset.intr(), "mode {mode}");
        chipset.advance(second_look);
        take_tick(&mut chipset, second_look);
        chipset.advance(second_look + 1);
        assert!(!chipset.intr(), "mode {mode}: once");
        chipset.advance(pulses(1 + 2_000) + GAP);
        take_tick(&mut chipset, pulses(1 + 2_000) + GAP);
        assert_eq!(chipset.timer_stats().lost, 0, "mode {mode}");
    }
}

#[test]
fn reprogramming_ends_the_wait_of_an_unseen_pulse() {
    let mut chipset = initialized();
    program(&mut chipset, 3, 100);
    take_tick(&mut chipset, 0);
    chipset.advance(pulses(1 + 160));
    assert!(chipset.intr());
    program(&mut chipset, 3, 100);
    assert!(chipset.intr(), "OUT0 is high again");
    chipset.advance(pulses(1 + 160 + 1 + 10));
    chipset.advance(pulses(1 + 160 + 1 + 60));
    assert!(!chipset.intr(), "it fell, nobody acknowledged");
    chipset.advance(pulses(1 + 160 + 1 + 100 + 60));
    assert!(chipset.intr());
    write(&mut chipset, &[(0x43, 0x30)]);
    assert!(!chipset.intr(), "mode 0 keeps OUT0 low");
}

#[test]
fn programming_moves_the_timer_line_at_once() {
    let mut chipset = initialized();
    assert!(!chipset.intr());
    write(&mut chipset, &[(0x43, 0x34)]);
    assert!(chipset.intr(), "mode 2 raises OUT0");
    write(&mut chipset, &[(0x43, 0x30)]);
    assert!(!chipset.intr(), "mode 0 lowers it");
    write(&mut chipset, &[(0x43, 0x34)]);
    take_tick(&mut chipset, 0);
    program(&mut chipset, 2, 100);
    chipset.advance(pulses(1 + 100 + 99));
    assert!(chipset.intr());
    write(&mut chipset, &[(0x42, 0)]);
    assert!(
        chipset.intr(),
        "a write to another counter leaves the unseen pulse alone"
    );
    write(&mut chipset, &[(0x43, 0x30)]);
    assert_eq!(chipset.next_deadline(), None);
}

#[test]
fn a_masked_timer_has_no_deadline() {
    let mut chipset = initialized();
    program(&mut chipset, 2, 100);
    write(&mut chipset, &[(0x21, 0x01)]);
    assert_eq!(chipset.next_deadline(), None);
    write(&mut chipset, &[(0x21, 0xfe)]);
    assert_eq!(chipset.next_deadline(), Some(pulses(101)));
}

#[test]
fn device_lines_reach_the_processor_beside_the_timer() {
    let mut chipset = initialized();
    program(&mut chipset, 2, 100);
    take_tick(&mut chipset, 0);
    chipset.set_line(Irq::COM1, Level::High);
    chipset.set_line(Irq::RTC, Level::High);
    chipset.advance(pulses(1 + 100));
    assert_eq!(
        [(); 3].map(|()| (
            chipset.acknowledge(),
            write(&mut chipset, &[(0xa0, 0x20), (0x20, 0x20)])
        )
            .0),
        [0x20, 0x28, 0x24]
    );
    assert!(!chipset.intr());
}

#[test]
fn port_61_is_wired_to_counter_2_only() {
    let mut chipset = initialized();
    write(
        &mut chipset,
        &[(0x61, 0x01), (0x43, 0xb0), (0x42, 9), (0x42, 0)],
    );
    chipset.advance(pulses(9));
    assert_eq!(read(&mut chipset, 0x61) & 0x20, 0);
    chipset.advance(pulses(10));
    assert_eq!(read(&mut chipset, 0x61) & 0x20, 0x20);
    assert!(!chipset.intr());
    assert_eq!(chipset.timer_stats(), TimerStats::default());
}

#[test]
fn the_chipset_decodes_the_ports_of_its_parts() {
    let decoded: Vec<u16> = (0..=u16::MAX)
        .filter(|&address| Port::decode(address).is_some())
        .collect();
    assert_eq!(
        decoded,
        [
            0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0xa0, 0xa1, 0x4d0, 0x4d1
        ]
    );
}

#[test]
fn an_interrupt_that_no_handler_ends_can_be_ended_by_its_vector() {
    let mut chipset = initialized();
    for (irq, vector) in [(1, 0x21), (8, 0x28), (3, 0x23)] {
        let irq = Irq::new(irq).expect("a line");
        for _ in 0..2 {
            chipset.set_line(irq, Level::High);
            assert_eq!(chipset.acknowledge(), vector);
            chipset.set_line(irq, Level::Low);
            chipset.set_line(irq, Level::High);
            assert!(!chipset.intr(), "{vector:#x} is in service");
            chipset.end_service(0x80);
            assert!(!chipset.intr());
            chipset.end_service(vector);
            assert!(chipset.intr());
            assert_eq!(chipset.acknowledge(), vector);
            chipset.end_service(vector);
            chipset.set_line(irq, Level::Low);
        }
    }
}

#[test]
fn firmware_makes_lines_level_triggered() {
    let mut chipset = Chipset::new();
    for number in 0..16 {
        let irq = Irq::new(number).expect("a line");
        let result = chipset.set_level_triggered(irq, true);
        let expected = match number {
            0 | 1 | 2 | 8 | 13 => Err(AlwaysEdgeTriggered(irq)),
            _ => Ok(()),
        };
        assert_eq!(result, expected);
        assert_eq!(chipset.set_level_triggered(irq, false), Ok(()));
    }
    assert_eq!(
        AlwaysEdgeTriggered(Irq::RTC).to_string(),
        "IRQ 8 cannot be level triggered"
    );
    for number in [5, 11, 14] {
        let irq = Irq::new(number).expect("a line");
        assert_eq!(chipset.set_level_triggered(irq, true), Ok(()));
    }
    assert_eq!(read(&mut chipset, 0x4d0), 0x20);
    assert_eq!(read(&mut chipset, 0x4d1), 0x48);
    let irq = Irq::new(14).expect("a line");
    assert_eq!(chipset.set_level_triggered(irq, false), Ok(()));
    assert_eq!(read(&mut chipset, 0x4d1), 0x08);
}

#[test]
fn a_shared_level_triggered_line_requests_until_no_device_drives_it() {
    for (number, vector) in [(5, 0x25), (11, 0x2b)] {
        let irq = Irq::new(number).expect("a line");
        let mut chipset = Chipset::new();
        assert_eq!(chipset.set_level_triggered(irq, true), Ok(()));
        // The guest's initialization leaves what firmware has set.
        initialize(&mut chipset);
        let mut devices = [true, true];
        for device in 0..2 {
            chipset.set_line(irq, Level::from_active(devices.contains(&true)));
            assert!(chipset.intr(), "device {device} of line {number}");
            assert_eq!(chipset.acknowledge(), vector);
            assert!(!chipset.intr(), "in service");
            devices[device] = false;
            chipset.set_line(irq, Level::from_active(devices.contains(&true)));
            write(&mut chipset, &[(0xa0, 0x20), (0x20, 0x20)]);
        }
        assert!(!chipset.intr(), "nobody drives line {number}");
    }
}
