//! The clock and its registers at times that the test sets.

use proptest::prelude::*;

use super::{registers::B_DM_BINARY, *};

/// 2024-02-29 23:59:58.5 UTC, a Thursday.
const LEAP_DAY: i128 = 1_709_251_198_500_000_000;
const MS: u64 = 1_000_000;
const TIME: [u8; 8] = [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00];

fn rtc() -> Rtc {
    Rtc::new(LEAP_DAY, 256 << 20, 0)
}

fn get(rtc: &mut Rtc, now: u64, index: u8) -> u8 {
    rtc.select(index);
    rtc.read(now)
}

fn set(rtc: &mut Rtc, now: u64, index: u8, value: u8) {
    rtc.select(index);
    rtc.write(now, value);
}

/// The registers that show the time: century, year, month, day, weekday, hours, minutes, seconds.
fn shown(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    TIME.map(|index| get(rtc, now, index))
}

#[test]
fn the_time_goes_on_over_the_end_of_a_leap_day() {
    let mut rtc = rtc();
    assert_eq!(
        shown(&mut rtc, 0),
        [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]
    );
    assert_eq!(
        shown(&mut rtc, 1499 * MS),
        [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x59]
    );
    assert_eq!(
        shown(&mut rtc, 1500 * MS),
        [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x00, 0x00]
    );
}

#[test]
fn data_mode_and_hour_mode_are_obeyed() {
    let mut binary = rtc();
    binary.counters.ram[B] |= B_DM_BINARY;
    binary.counters.set_time((LEAP_DAY / SECOND) as i64);
    assert_eq!(shown(&mut binary, 0), [20, 24, 2, 29, 5, 23, 59, 58]);
    for (hour, expected) in [
        (0, 0x12),
        (1, 0x01),
        (11, 0x11),
        (12, 0x92),
        (13, 0x81),
        (23, 0x91),
    ] {
        let mut rtc = Rtc::new(hour * 3600 * SECOND, 1 << 20, 0);
        rtc.counters.ram[B] = 0;
        rtc.counters.set_time(hour as i64 * 3600);
        assert_eq!(get(&mut rtc, 0, 0x04), expected, "{hour}");
    }
}

#[test]
fn a_change_of_mode_keeps_the_registers_bits() {
    let mut rtc = rtc();
    set(&mut rtc, 0, 0x0b, B_24_HOURS | B_DM_BINARY);
    assert_eq!(get(&mut rtc, 0, 0x00), 0x58);
    // 0x58 seconds in binary are 88, and the next a minute and 29.
    assert_eq!(get(&mut rtc, 500 * MS, 0x00), 29);
}

#[test]
fn setting_the_time_the_way_linux_does() {
    let mut rtc = rtc();
    set(&mut rtc, 0, 0x0b, B_SET | B_24_HOURS);
    set(&mut rtc, 0, 0x0a, 0x70 | A_RATE_1024HZ);
    let new = [0x20, 0x38, 0x01, 0x19, 0x03, 0x03, 0x14, 0x06];
    for (index, value) in TIME.into_iter().zip(new) {
        set(&mut rtc, 0, index, value);
    }
    assert_eq!(shown(&mut rtc, 60_000 * MS), new, "time stands still");
    set(&mut rtc, 60_000 * MS, 0x0b, B_24_HOURS);
    set(&mut rtc, 60_000 * MS, 0x0a, A_DIVIDER_32KHZ | A_RATE_1024HZ);
    assert_eq!(shown(&mut rtc, 60_499 * MS)[7], 0x06);
    assert_eq!(
        shown(&mut rtc, 60_500 * MS)[7],
        0x07,
        "half a second after the divider"
    );
}

#[test]
fn a_single_register_can_be_written_while_time_goes_on() {
    let mut rtc = rtc();
    set(&mut rtc, 100 * MS, 0x02, 0x30);
    assert_eq!(shown(&mut rtc, 499 * MS)[5..], [0x23, 0x30, 0x58]);
    assert_eq!(
        shown(&mut rtc, 500 * MS)[5..],
        [0x23, 0x30, 0x59],
        "the phase is kept"
    );
}

#[test]
fn update_in_progress_warns_before_each_second() {
    let mut rtc = rtc();
    assert_eq!(get(&mut rtc, 499 * MS, 0x0a), 0x26);
    assert_eq!(get(&mut rtc, 499 * MS + 800_000, 0x0a), 0xa6);
    assert_eq!(get(&mut rtc, 500 * MS, 0x0a), 0x26);
}

#[test]
fn update_interrupt_comes_every_second_and_register_c_clears_it() {
    let mut rtc = rtc();
    set(&mut rtc, 0, 0x0b, B_24_HOURS | B_UIE);
    assert_eq!(rtc.next_deadline(0), Some(500 * MS));
    rtc.advance(500 * MS - 1);
    assert_eq!(rtc.interrupt(), Level::Low);
    rtc.advance(500 * MS);
    assert_eq!(rtc.interrupt(), Level::High);
    assert_eq!(rtc.next_deadline(500 * MS), None);
    assert_eq!(
        get(&mut rtc, 500 * MS, 0x0c) & (C_IRQF | C_UF),
        C_IRQF | C_UF
    );
    assert_eq!(rtc.interrupt(), Level::Low);
    assert_eq!(get(&mut rtc, 500 * MS, 0x0c), 0);
    assert_eq!(rtc.next_deadline(500 * MS), Some(1500 * MS));
}

#[test]
fn flags_are_set_without_enables_and_then_raise_no_interrupt() {
    let mut rtc = rtc();
    rtc.advance(500 * MS);
    assert_eq!(rtc.interrupt(), Level::Low);
    assert_eq!(get(&mut rtc, 500 * MS, 0x0c), C_UF | C_PF);
    rtc.advance(1500 * MS);
    set(&mut rtc, 1500 * MS, 0x0b, B_24_HOURS | B_UIE);
    assert_eq!(rtc.interrupt(), Level::High, "enabling what is pending");
}

#[test]
fn the_alarm_matches_once_a_day_or_by_dont_care() {
    let mut rtc = rtc();
    for (index, value) in [(0x05, 0x00), (0x03, 0x00), (0x01, 0x01)] {
        set(&mut rtc, 0, index, value);
    }
    set(&mut rtc, 0, 0x0b, B_24_HOURS | B_AIE);
    rtc.advance(2499 * MS);
    assert_eq!(rtc.interrupt(), Level::Low);
    rtc.advance(2500 * MS);
    assert_eq!(rtc.interrupt(), Level::High);
    get(&mut rtc, 2500 * MS, 0x0c);
    rtc.advance(86_402_499 * MS);
    assert_eq!(rtc.interrupt(), Level::Low);
    rtc.advance(86_402_500 * MS);
    assert_eq!(rtc.interrupt(), Level::High);
    let now = 86_402_500 * MS;
    get(&mut rtc, now, 0x0c);
    for index in [0x05, 0x03, 0x01] {
        set(&mut rtc, now, index, 0xff);
    }
    rtc.advance(now + 1000 * MS);
    assert_eq!(rtc.interrupt(), Level::High, "every second");
}

#[test]
fn the_periodic_interrupt_comes_at_the_rate_selected() {
    for (rate, per_second) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let mut rtc = Rtc::new(0, 1 << 20, 0);
        set(&mut rtc, 0, 0x0a, A_DIVIDER_32KHZ | rate);
        set(&mut rtc, 0, 0x0b, B_24_HOURS | B_PIE);
        let (mut now, mut count) = (0, 0);
        while let Some(next) = rtc.next_deadline(now).filter(|&next| next <= 1_000 * MS) {
            rtc.advance(next - 1);
            assert_eq!(rtc.interrupt(), Level::Low, "rate {rate}");
            assert_ne!(
                get(&mut rtc, next, 0x0c) & C_IRQF,
                0,
                "rate {rate} at {next}"
            );
            (now, count) = (next, count + 1);
        }
        assert_eq!(count, per_second, "rate {rate}");
    }
}

#[test]
fn set_switches_the_update_interrupt_off() {
    let mut rtc = rtc();
    set(&mut rtc, 0, 0x0b, B_SET | B_UIE | B_24_HOURS);
    assert_eq!(get(&mut rtc, 0, 0x0b), B_SET | B_24_HOURS);
    assert_eq!(rtc.next_deadline(0), None);
}

#[test]
fn memory_sizes_are_in_ram() {
    let mut rtc = rtc();
    let word = |rtc: &mut Rtc, at| u16::from_le_bytes([get(rtc, 0, at), get(rtc, 0, at + 1)]);
    assert_eq!(word(&mut rtc, 0x15), 640);
    assert_eq!(word(&mut rtc, 0x17), 0xffff);
    assert_eq!(word(&mut rtc, 0x34), 240 * 16);
    assert_eq!(word(&mut rtc, 0x5b), 0);
    assert_eq!(get(&mut rtc, 0, 0x0d), 0x80);
    let mut rtc = Rtc::new(0, 3 << 30, (65 << 30) + (5 << 16));
    assert_eq!(word(&mut rtc, 0x34), 0xbf00);
    let high = [0x5b, 0x5c, 0x5d].map(|at| get(&mut rtc, 0, at));
    assert_eq!(high, [5, 0x40, 0x10]);
}

#[test]
fn no_sequence_of_accesses_panics() {
    let mut rtc = rtc();
    let mut now = 0u64;
    for step in 0u32..200_000 {
        let hash = step.wrapping_mul(0x9e37_79b9);
        now += u64::from(hash >> 4);
        rtc.select((hash >> 8) as u8 & if hash & 1 == 0 { 0x0f } else { 0xff });
        if hash >> 31 == 0 {
            rtc.read(now);
        } else {
            rtc.write(now, (hash >> 16) as u8);
        }
        rtc.next_deadline(now);
    }
}

proptest! {
    #[test]
    fn under_set_the_registers_are_memory(
        accesses in proptest::collection::vec((0..128u8, proptest::option::of(any::<u8>()), 0..2_000 * MS), 0..200)
    ) {
        let (mut rtc, mut now) = (rtc(), 0);
        set(&mut rtc, now, 0x0b, B_SET | B_24_HOURS);
        let mut memory = rtc.counters.ram;
        for (index, write, pass) in accesses {
            now += pass;
            let at = usize::from(index);
            match write {
                Some(value) => {
                    set(&mut rtc, now, index, value | if at == B { B_SET } else { 0 });
                    memory[at] = match at {
                        A => value & !A_UIP,
                        B => value | B_SET,
                        C | D => memory[at],
                        _ => value,
                    };
                }
                // Periods go on, and set its flag.
                None if at == C => drop(get(&mut rtc, now, index)),
                None => prop_assert_eq!(get(&mut rtc, now, index), memory[at], "{:#x}", index),
            }
        }
    }

    #[test]
    fn a_clock_restored_at_any_moment_is_the_same(
        accesses in proptest::collection::vec((0..16u8, proptest::option::of(any::<u8>()), 0..2_000 * MS), 0..100),
        origin in 0..1u64 << 60
    ) {
        let (mut rtc, mut now) = (rtc(), 0);
        for (index, write, pass) in accesses {
            let mut restored = Rtc::from_state(rtc.state(now), origin).unwrap();
            let happen = |rtc: &mut Rtc, now| {
                rtc.advance(now);
                let deadline = rtc.next_deadline(now).map(|at| at - now);
                let line = rtc.interrupt();
                let seen = match write {
                    Some(value) => (set(rtc, now, index, value), 0).1,
                    None => get(rtc, now, index),
                };
                (deadline, line, seen, rtc.interrupt())
            };
            let seen = happen(&mut rtc, now + pass);
            prop_assert_eq!(happen(&mut restored, origin + pass), seen);
            now += pass;
        }
    }
}
