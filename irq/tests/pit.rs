//! Conformance of the 8254 with its datasheet, row by row, through ports and time.
//!
//! Most rows run on counter 2, whose GATE and OUT are bits of port 0x61. The rows of the modes repeat the datasheet's
//! timing diagrams. A row is `name :: script`; a line without `::` continues the script above it. The words of a
//! script:
//!
//! ```text
//! 43=90        writes 0x90 to port 0x43
//! 42?05        reads port 0x42 and expects 0x05
//! gate+ gate-  drives GATE2 high, low
//! *100         lets 100 clock pulses pass
//! L2           lets a clock pulse pass and expects OUT2 low and the count 0x2, read as the last control word said
//! HHL          lets a clock pulse pass for each letter and expects OUT2 high, high, low
//! =H =L        expects OUT2 high, low, without a clock pulse
//! ```

use irq::{Channel, Pit, PitPort};

/// The frequency of the counters' clock, in Hz.
const HZ: u64 = irq::pit::FREQUENCY_HZ;

/// The bytes of counter 2 that the last control word made readable.
#[derive(Clone, Copy)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

/// A timer whose time is counted in clock pulses.
struct Rig {
    pit: Pit,
    pulses: u64,
    access: Access,
}

impl Rig {
    /// Returns a timer with GATE2 high.
    fn new() -> Self {
        let mut rig = Self {
            pit: Pit::new(),
            pulses: 0,
            access: Access::LowThenHigh,
        };
        rig.write(0x61, 0x01);
        rig
    }

    fn clock(&mut self, pulses: u64) -> u64 {
        self.pulses += pulses;
        self.pit.advance(pulse_time(self.pulses))
    }

    fn write(&mut self, address: u16, value: u8) {
        match (address, value >> 6, value >> 4 & 0b11) {
            (0x43, 0b10, 0b01) => self.access = Access::Low,
            (0x43, 0b10, 0b10) => self.access = Access::High,
            (0x43, 0b10, 0b11) => self.access = Access::LowThenHigh,
            _ => {}
        }
        self.pit.write(port(address), value);
    }

    fn read(&mut self, address: u16) -> u8 {
        self.pit.read(port(address))
    }

    fn count2(&mut self) -> u16 {
        let first = self.read(0x42);
        match self.access {
            Access::Low => u16::from(first),
            Access::High => u16::from_be_bytes([first, 0]),
            Access::LowThenHigh => u16::from_le_bytes([first, self.read(0x42)]),
        }
    }

    fn out2(&mut self) -> char {
        if self.read(0x61) & 0x20 != 0 {
            'H'
        } else {
            'L'
        }
    }

    /// Lets a pulse pass for each letter and returns the level of OUT2 after each.
    fn wave(&mut self, letters: &str) -> String {
        letters
            .chars()
            .map(|_| (self.clock(1), self.out2()).1)
            .collect()
    }

    /// Performs one word of a script and checks what it expects.
    fn perform(&mut self, word: &str, place: &str) {
        if let Some(level) = word.strip_prefix('=') {
            assert_eq!(self.out2().to_string(), level, "{place}");
        } else if let Some((address, value)) = word.split_once('=') {
            self.write(hex(address), byte(value));
        } else if let Some((address, value)) = word.split_once('?') {
            assert_eq!(self.read(hex(address)), byte(value), "{place}");
        } else if word == "gate+" || word == "gate-" {
            self.write(0x61, u8::from(word == "gate+"));
        } else if let Some(pulses) = word.strip_prefix('*') {
            self.clock(pulses.parse().expect("pulses are decimal"));
        } else if word.chars().all(|letter| letter == 'H' || letter == 'L') {
            assert_eq!(self.wave(word), word, "{place}");
        } else {
            let (level, count) = word.split_at(1);
            let seen = (self.wave(level), self.count2());
            assert_eq!(seen, (level.to_owned(), hex(count)), "{place}");
        }
    }
}

fn port(address: u16) -> PitPort {
    PitPort::decode(address).expect("scripts name ports of the timer")
}

fn hex(digits: &str) -> u16 {
    u16::from_str_radix(digits, 16).expect("ports and counts are hexadecimal")
}

fn byte(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).expect("bytes are hexadecimal")
}

/// The first whole nanosecond not before clock pulse `pulse`.
fn pulse_time(pulse: u64) -> u64 {
    let numerator = u128::from(pulse) * 1_000_000_000;
    let whole = numerator / u128::from(HZ);
    let time = if numerator % u128::from(HZ) == 0 {
        whole
    } else {
        whole + 1
    };
    u64::try_from(time).expect("tests stay within 584 years")
}

/// Runs each row on a new timer.
fn check(rows: &str) {
    let mut rig = Rig::new();
    let mut name = "";
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let script = match row.split_once(" :: ") {
            Some((new_name, script)) => {
                name = new_name;
                rig = Rig::new();
                script
            }
            None => row,
        };
        for (index, word) in script.split_whitespace().enumerate() {
            rig.perform(
                word,
                &format!("row '{name}', word {index} of its line: {word}"),
            );
        }
    }
}

#[test]
fn mode_0_interrupts_on_terminal_count() {
    check(
        "
        N + 1 pulses after writing :: 43=90 =L 42=04 =L L4 L3 L2 L1 H0 Hff Hfe
        gate low suspends counting :: 43=90 42=03 L3 L2 gate- L2 L2 L2 gate+ L1 H0 Hff
        gate low at the write: loading needs no gate, OUT rises N pulses after it :: 43=90 gate-
            42=03 L3 L3 L3 gate+ L2 L1 H0
        a new count while counting :: 43=90 42=03 L3 L2 L1 42=02 L2 L1 H0 Hff
        a new count after terminal count lowers OUT :: 43=90 42=01 L1 H0 Hff 42=02 =L L2 L1 H0
        the first of two bytes stops counting and lowers OUT :: 43=b0 42=02 42=00 L2 L1 H0 42=03
            =L L0 L0 L0 42=00 L3 L2 L1 H0
        nothing counts before the first count :: 43=90 L0 L0 L0
        the control word again lowers OUT :: 43=90 42=01 L1 H0 43=90 =L L0 L0
        ",
    );
}

#[test]
fn mode_1_is_a_one_shot_that_gate_triggers() {
    check(
        "
        one pulse of N :: 43=92 =H 42=03 *3 =H gate- gate+ =H L3 L2 L1 H0 Hff
        gate level does not matter :: 43=92 42=03 gate- gate+ L3 gate- L2 L1 H0
        a trigger in the pulse makes it longer :: 43=92 42=03 gate- gate+ L3 L2 gate- gate+ L3 L2
            L1 H0
        a new count waits for the next trigger :: 43=92 42=02 gate- gate+ L2 42=04 L1 H0 Hff gate-
            gate+ L4 L3 L2 L1 H0
        a trigger before the first count is none :: 43=92 gate- gate+ 42=02 H0 H0 H0
        the control word ends the pulse :: 43=92 42=05 gate- gate+ L5 L4 43=92 =H H4 H4
        ",
    );
}

#[test]
fn mode_2_is_a_rate_generator() {
    check(
        "
        low for the last pulse of N :: 43=94 =H 42=03 H3 H2 L1 H3 H2 L1 H3
        gate low raises OUT at once and stops; a trigger starts a new period :: 43=94 42=03 H3 H2
            L1 gate- =H H1 H1 gate+ =H H3 H2 L1 H3
        a new count waits for the end of the period :: 43=94 42=04 H4 H3 42=02 H2 L1 H2 L1 H2 L1
        a new count is taken at a trigger :: 43=94 42=04 H4 H3 42=05 gate- gate+ H5 H4 H3 H2 L1 H5
        gate low at the write: the trigger begins the first period :: 43=94 gate- 42=03 H3 H3 gate+
            H3 H2 L1 H3
        a new count of which only one byte is written is none yet :: 43=b4 42=03 42=00 H3 42=05 H2
            L1 H3 42=00 H2 L1 H5
        the control word raises OUT and stops :: 43=94 42=02 H2 L1 43=94 =H H1 H1
        a count of 1 never lowers OUT :: 43=94 42=01 H1 H1 H1 H1
        mode bits 110 are mode 2 :: 43=9c 42=02 H2 L1 H2 L1
        ",
    );
}

#[test]
fn mode_3_is_a_square_wave() {
    check(
        "
        even: N/2 high, N/2 low, by two :: 43=96 =H 42=04 H4 H2 L4 L2 H4 H2 L4 L2 H4
        odd: (N+1)/2 high, (N-1)/2 low, from N-1 :: 43=96 42=05 H4 H2 H0 L4 L2 H4 H2 H0 L4 L2
        2 is the shortest :: 43=96 42=02 H2 L2 H2 L2 H2
        odd, the shortest :: 43=96 42=03 H2 H0 L2 H2 H0 L2
        gate low raises OUT at once and stops; a trigger starts a high half :: 43=96 42=04 H4 H2
            L4 gate- =H H4 H4 gate+ H4 H2 L4 L2
        a new count waits for the end of the half period :: 43=96 42=06 H6 H4 42=04 H2 L4 L2 H4 H2
            L4
        odd to even in the high half :: 43=96 42=05 H4 42=02 H2 H0 L2 H2 L2
        a new count is taken at a trigger :: 43=96 42=06 H6 H4 42=02 gate- gate+ H2 L2 H2 L2
        gate low at the write: the trigger begins the first half :: 43=96 gate- 42=04 H4 H4 gate+
            H4 H2 L4 L2 H4
        even to odd in the low half :: 43=96 42=04 H4 H2 L4 42=05 L2 H4 H2 H0 L4 L2 H4
        a count of 1 never lowers OUT :: 43=96 42=01 H0 H0 H0 H0
        mode bits 111 are mode 3 :: 43=9e 42=02 H2 L2 H2 L2
        ",
    );
}

#[test]
fn mode_4_strobes_after_a_write() {
    check(
        "
        N + 1 pulses after writing, for one pulse, once :: 43=98 =H 42=03 =H H3 H2 H1 L0 Hff Hfe
        gate low suspends counting :: 43=98 42=03 H3 H2 gate- H2 H2 gate+ H1 L0 Hff
        gate low at the write: loading needs no gate :: 43=98 gate- 42=03 H3 H3 gate+ H2 H1 L0 Hff
        a trigger does not start it anew :: 43=98 42=03 H3 H2 gate- gate+ H1 L0 Hff
        gate low does not hold the strobe :: 43=98 42=01 H1 L0 gate- =L H0 H0
        a new count while counting starts anew :: 43=98 42=03 H3 H2 H1 42=02 H2 H1 L0 Hff
        the first of two bytes does not disturb :: 43=b8 42=02 42=00 H2 42=03 H1 L0 Hffff 42=00 H3
            H2 H1 L0 Hffff
        ",
    );
}

#[test]
fn mode_5_strobes_after_a_trigger() {
    check(
        "
        N + 1 pulses after the trigger :: 43=9a =H 42=03 *5 =H gate- gate+ H3 H2 H1 L0 Hff Hfe
        gate level does not matter :: 43=9a 42=02 gate- gate+ H2 gate- H1 L0 Hff
        a trigger while counting starts anew :: 43=9a 42=03 gate- gate+ H3 H2 H1 gate- gate+ H3 H2
            H1 L0 Hff
        a new count waits for the next trigger :: 43=9a 42=02 gate- gate+ H2 42=04 H1 L0 Hff Hfe
            gate- gate+ H4 H3 H2 H1 L0 Hff
        a new count is taken at a trigger :: 43=9a 42=04 gate- gate+ H4 H3 42=02 gate- gate+ H2 H1
            L0 Hff
        a trigger before the first count is none :: 43=9a gate- gate+ 42=02 H0 H0 H0
        a trigger in the strobe starts anew :: 43=9a 42=01 gate- gate+ H1 L0 gate- gate+ H1 L0 Hff
        ",
    );
}

#[test]
fn one_shot_modes_do_not_act_again_when_the_count_wraps() {
    for (select, triggers) in [(0, false), (1, true), (4, false), (5, true)] {
        let mut rig = Rig::new();
        rig.write(0x43, 0b1011_0000 | select << 1);
        rig.write(0x42, 5);
        rig.write(0x42, 0);
        if triggers {
            rig.write(0x61, 0);
            rig.write(0x61, 1);
        }
        rig.clock(10);
        let wave: String = (0..0x1_0000)
            .map(|_| (rig.clock(1), rig.out2()).1)
            .collect();
        assert_eq!(wave.find('L'), None, "mode {select}");
    }
}

#[test]
fn counts_are_read_and_written_as_the_access_bits_say() {
    check(
        "
        low byte only: the high byte is zero :: 43=90 42=05 L5 L4 43=80 42?04 42?04
        high byte only: the low byte is zero :: 43=a0 42=02 *1 42?02 *1 42?01 *256 42?00 *254 =L H
        both bytes, low first :: 43=b0 42=34 42=12 L1234 L1233
        reading and writing have their own turns :: 43=b4 42=34 42=12 *1 42?34 42=78 42?12 42=56
            *4660 42?78 42?56
        a control word starts with the low byte again :: 43=b0 42=99 43=b0 42=34 42=12 *1 42?34
            43=b0 42?34 42?12
        the control port reads as ones :: 43?ff
        ",
    );
}

#[test]
fn a_count_of_zero_is_the_largest() {
    check(
        "
        binary: 65,536 :: 43=b0 42=00 42=00 *1 42?00 42?00 *65535 =L H
        decimal: 10,000 :: 43=b1 42=00 42=00 L0 L9999 *9998 =L H
        rate generator :: 43=b4 42=00 42=00 *65535 =H LH *65534 LH
        square wave :: 43=b6 42=00 42=00 *32768 =H L *32766 LH
        decimal square wave :: 43=b7 42=00 42=00 *5000 =H L *4998 LH
        low byte only :: 43=90 42=00 *65536 =L H
        high byte only :: 43=a0 42=00 *65536 =L H
        ",
    );
}

#[test]
fn decimal_counts_borrow_by_decades() {
    check(
        "
        across two decades :: 43=b1 42=01 42=10 L1001 L1000 L999 L998
        wraps to 9999 :: 43=b1 42=01 42=00 L1 H0 H9999 H9998
        square wave by two :: 43=b7 42=12 42=00 H12 H10 H8 H6 H4 H2 L12
        rate generator :: 43=b5 42=03 42=10 H1003 H1002 H1001 H1000 H999 *997 =H L1 H1003
        one-shot :: 43=93 42=11 gate- gate+ L11 L10 L9 *8 =L H0
        software strobe :: 43=99 42=11 H11 H10 H9 *8 =H L0 H99
        hardware strobe :: 43=9b 42=10 gate- gate+ H10 H9 *8 =H L0
        odd square wave :: 43=97 42=11 H10 H8 H6 H4 H2 H0 L10 L8 L6 L4 L2 H10
        low byte only: 99 at most :: 43=91 42=99 L99 L98 *97 =L H
        high byte only: hundreds :: 43=a1 42=02 *200 =L H
        ",
    );
}

#[test]
fn a_latched_count_stands_still_until_it_is_read() {
    check(
        "
        two bytes :: 43=b4 42=00 42=10 *1 43=80 *837 42?00 *7 42?10 42?b4 42?0c
        one byte :: 43=90 42=09 *1 43=80 *3 42?09 42?06
        latching again before reading changes nothing :: 43=90 42=09 *1 43=80 *1 43=80 42?09 43=80
            *1 42?08
        a new control word drops the latch :: 43=90 42=09 *3 43=80 *2 43=90 42?05
        a new count does not :: 43=90 42=09 *2 43=80 42=32 *1 42?08 42?32
        of one counter, the others go on :: 43=10 40=03 43=90 42=09 *1 43=80 *2 40?01 42?09 42?07
        latching starts with the low byte :: 43=b4 42=34 42=12 *1 42?34 43=80 42?34 42?12
        ",
    );
}

#[test]
fn read_back_latches_what_it_selects() {
    check(
        "
        status: OUT, null count, programmed bits :: 43=b7 43=e8 42?f7
        null count clears when the count is loaded :: 43=98 42=07 43=e8 42?d8 *1 43=e8 42?98 42=07
            43=e8 42?d8
        null count is set by the control word :: 43=90 42=04 *1 43=e8 42?10 43=90 43=e8 42?50
        null count in mode 0 :: 43=90 42=04 43=e8 42?50 *1 43=e8 42?10
        null count in mode 5 lasts to the trigger :: 43=9a 42=04 *9 43=e8 42?da gate- gate+ *1
            43=e8 42?9a
        null count in mode 2 ends at a trigger :: 43=94 42=04 *1 42=05 43=e8 42?d4 gate- gate+ *1
            43=e8 42?94
        null count in mode 2 lasts to the end of the period :: 43=94 42=04 *2 42=05 43=e8 *3 42?d4
            43=e8 42?94
        null count in mode 3 lasts to the end of the half period :: 43=96 42=04 *2 42=06 43=e8
            42?d6 *1 43=e8 42?16
        null count in mode 1 lasts to the trigger :: 43=92 42=04 *9 43=e8 42?d2 gate- gate+ *1
            43=e8 42?12
        null count with two bytes: set by the second :: 43=b4 42=04 42=00 *1 42=09 43=e8 42?b4
            42=00 43=e8 42?f4
        status shows OUT low :: 43=90 42=04 *1 43=e8 42?10
        mode bits as written :: 43=9e 43=e8 42?de
        count and status: status first :: 43=94 42=08 *2 43=c8 *2 42?94 42?07 42?05
        count alone :: 43=94 42=08 *2 43=d8 *2 42?07 42?05
        neither :: 43=94 42=08 *2 43=f8 *2 42?05
        a latched count stays the first one :: 43=94 42=08 *2 43=d8 *1 43=d8 *1 43=80 42?07 42?05
        no counter selected :: 43=90 42=09 *1 43=c0 *1 42?08
        the latch command and the read-back of a count are one latch :: 43=90 42=09 *1 43=80 *1
            43=c8 *1 42?10 42?09 42?07
        status latched twice is the first one :: 43=90 42=01 *1 43=e8 *1 43=e8 42?10 43=e8 42?90
        several counters at once :: 43=10 40=03 43=90 42=09 *1 43=da *2 40?03 42?09 40?01 42?07
        counters that are not selected go on :: 43=10 40=03 43=90 42=09 *1 43=d8 *2 40?01 42?09
        ",
    );
}

#[test]
fn port_61_gates_counter_2_and_shows_its_output() {
    check(
        "
        low bits read back :: 61=fe 61?0e 61=03 61?03
        bit 5 is OUT2 :: 43=90 61?01 43=92 61?21
        speaker data does not touch the gate :: 43=90 42=02 *2 61=03 H
        bit 4 toggles each 18 pulses :: *18 61?01 *1 61?11 *17 61?11 *1 61?01 *36000000 61?01 *18
            61?11
        gates 0 and 1 are tied high :: 61=00 43=10 40=09 *3 40?07
        ",
    );
}

#[test]
fn edges_of_out0_are_counted_however_time_is_cut() {
    for (control, name) in [(0x34, "rate generator"), (0x36, "square wave")] {
        for reload in [2_u64, 3, 1_193, 11_932, 65_536] {
            let [low, high, ..] = reload.to_le_bytes();
            let mut rig = Rig::new();
            for (address, value) in [(0x43, control), (0x40, low), (0x40, high)] {
                rig.write(address, value);
            }
            let mut edges = 0;
            for step in [
                1,
                1,
                2,
                3,
                reload - 1,
                reload,
                reload + 1,
                7 * reload + 5,
                1_000_003,
                86_400 * HZ,
            ] {
                edges += rig.clock(step);
            }
            // The first pulse loads; OUT0 rises every `reload` pulses after it.
            assert_eq!(edges, (rig.pulses - 1) / reload, "{name} {reload}");
        }
    }
}

#[test]
fn out0_never_rises_with_a_count_of_1() {
    for control in [0x34, 0x36] {
        let mut rig = Rig::new();
        for (address, value) in [(0x43, control), (0x40, 1), (0x40, 0)] {
            rig.write(address, value);
        }
        assert_eq!(
            rig.clock(1) + rig.clock(1) + rig.clock(1_000),
            0,
            "control word {control:x}"
        );
    }
}

#[test]
fn next_edge_is_the_exact_time_of_the_next_rise_of_out0() {
    type Row<'a> = (&'a str, &'a [(u16, u8)], Option<u64>);
    let rows: [Row; 9] = [
        ("never programmed", &[], None),
        ("no count yet", &[(0x43, 0x30)], None),
        ("mode 0", &[(0x43, 0x30), (0x40, 10), (0x40, 0)], Some(11)),
        (
            "mode 0, second byte missing",
            &[(0x43, 0x30), (0x40, 10)],
            None,
        ),
        (
            "mode 1 has no trigger",
            &[(0x43, 0x32), (0x40, 10), (0x40, 0)],
            None,
        ),
        ("mode 2", &[(0x43, 0x34), (0x40, 10), (0x40, 0)], Some(11)),
        (
            "mode 2 with a count of 1",
            &[(0x43, 0x34), (0x40, 1), (0x40, 0)],
            None,
        ),
        (
            "mode 3, odd",
            &[(0x43, 0x36), (0x40, 5), (0x40, 0)],
            Some(6),
        ),
        ("mode 4", &[(0x43, 0x38), (0x40, 10), (0x40, 0)], Some(12)),
    ];
    for (name, writes, expected) in rows {
        let mut rig = Rig::new();
        rig.clock(1_000);
        for &(address, value) in writes {
            rig.write(address, value);
        }
        let deadline = rig.pit.next_edge();
        assert_eq!(
            deadline,
            expected.map(|pulses| pulse_time(1_000 + pulses)),
            "{name}"
        );
        if let Some(deadline) = deadline {
            assert_eq!(rig.pit.advance(deadline - 1), 0, "{name}: not before");
            assert_eq!(
                rig.pit.next_edge(),
                Some(deadline),
                "{name}: unchanged by waiting"
            );
            assert_eq!(rig.pit.advance(deadline), 1, "{name}: at the deadline");
        }
    }
}

#[test]
fn time_may_jump_to_its_end_and_never_runs_back() {
    let mut rig = Rig::new();
    for (address, value) in [(0x43, 0x34), (0x40, 0), (0x40, 0)] {
        rig.write(address, value);
    }
    let pulses = u128::from(u64::MAX) * u128::from(HZ) / 1_000_000_000;
    assert_eq!(u128::from(rig.pit.advance(u64::MAX)), (pulses - 1) / 65_536);
    let end = rig.pit.clone();
    assert_eq!(rig.pit.advance(5), 0);
    assert_eq!(rig.pit, end);
    assert_eq!(rig.pit.next_edge(), None, "past the end of time");
}

#[test]
fn a_clone_continues_like_its_original() {
    let mut rig = Rig::new();
    for (address, value) in [(0x43, 0x36), (0x40, 77), (0x40, 1), (0x43, 0x00)] {
        rig.write(address, value);
    }
    rig.clock(100);
    let mut saved = rig.pit.clone();
    assert_eq!(
        rig.pit.advance(pulse_time(12_345)),
        saved.advance(pulse_time(12_345))
    );
    assert_eq!(rig.pit, saved);
    assert_eq!(rig.pit.out(Channel::Timer), saved.out(Channel::Timer));
}

#[test]
fn only_the_timers_own_ports_exist() {
    let decoded: Vec<u16> = (0..=u16::MAX)
        .filter(|&address| PitPort::decode(address).is_some())
        .collect();
    assert_eq!(decoded, [0x40, 0x41, 0x42, 0x43, 0x61]);
}
