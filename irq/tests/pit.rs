//! Conformance of the 8254 with its datasheet, row by row, through ports and time.
//!
//! Most rows run on counter 2, whose gate and output are bits of port 61h. The mode rows repeat the datasheet's timing
//! figures: a level of OUT and a count after each clock pulse.

use Step::{Clock, Counts, Gate, Read, Wave, Write};
use irq::{Channel, Level, Pit, PitPort};

/// Clock frequency of the counters, in Hz.
const HZ: u64 = irq::pit::FREQUENCY_HZ;

/// One action on counter 2, with what it must show.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u16, u8),
    Read(u16, u8),
    /// Drives GATE2 through port 61h.
    Gate(Level),
    /// A clock pulse a letter, after which OUT2 is (H)igh or (L)ow.
    Wave(&'static str),
    /// A clock pulse an item, after which the count, read byte by byte as the last control word said, is this.
    Counts(&'static [u16]),
    /// So many clock pulses.
    Clock(u64),
}

const LOW: Step = Gate(Level::Low);
const HIGH: Step = Gate(Level::High);
/// OUT2 is low now.
const OUT_LOW: Step = Wave("=L");
/// OUT2 is high now.
const OUT_HIGH: Step = Wave("=H");

type Row<'a> = (&'a str, &'a [Step]);

/// A timer whose time is told in clock pulses.
struct Rig {
    pit: Pit,
    pulses: u64,
    two_bytes: bool,
    high_byte_only: bool,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            pit: Pit::new(),
            pulses: 0,
            two_bytes: false,
            high_byte_only: false,
        };
        rig.write(0x61, 0x01);
        rig
    }

    fn clock(&mut self, pulses: u64) -> u64 {
        self.pulses += pulses;
        self.pit.advance(pulse_time(self.pulses))
    }

    fn write(&mut self, address: u16, value: u8) {
        let access = value >> 4 & 0b11;
        if address == 0x43 && access != 0 && value >> 6 != 0b11 {
            self.two_bytes = access == 0b11;
            self.high_byte_only = access == 0b10;
        }
        self.pit.write(port(address), value);
    }

    fn read(&mut self, address: u16) -> u8 {
        self.pit.read(port(address))
    }

    fn count2(&mut self) -> u16 {
        let first = self.read(0x42);
        if self.two_bytes {
            u16::from_le_bytes([first, self.read(0x42)])
        } else if self.high_byte_only {
            u16::from_le_bytes([0, first])
        } else {
            u16::from(first)
        }
    }

    fn out2(&mut self) -> char {
        if self.read(0x61) & 0x20 != 0 {
            'H'
        } else {
            'L'
        }
    }

    fn perform(&mut self, step: Step, place: &str) {
        match step {
            Write(address, value) => self.write(address, value),
            Read(address, value) => assert_eq!(self.read(address), value, "{place}"),
            Gate(level) => self.write(0x61, u8::from(level.is_high())),
            Wave("=L") => assert_eq!(self.out2(), 'L', "{place}"),
            Wave("=H") => assert_eq!(self.out2(), 'H', "{place}"),
            Wave(expected) => {
                let seen: String = expected
                    .chars()
                    .map(|_| {
                        self.clock(1);
                        self.out2()
                    })
                    .collect();
                assert_eq!(seen, expected, "{place}");
            }
            Counts(expected) => {
                let seen: Vec<u16> = expected
                    .iter()
                    .map(|_| {
                        self.clock(1);
                        self.count2()
                    })
                    .collect();
                assert_eq!(seen, expected, "{place}");
            }
            Clock(pulses) => {
                self.clock(pulses);
            }
        }
    }
}

fn port(address: u16) -> PitPort {
    PitPort::decode(address).expect("scripts name ports of the timer")
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

fn check(rows: &[Row]) {
    for (name, script) in rows {
        let mut rig = Rig::new();
        for (index, &step) in script.iter().enumerate() {
            rig.perform(step, &format!("row '{name}', step {index}: {step:x?}"));
        }
    }
}

/// Checks each row twice: once for the levels of OUT, once for the counts that the same pulses show.
fn check_figures(rows: &[(&str, &[Step], &[(&[Step], &'static str, &'static [u16])])]) {
    for (name, setup, parts) in rows {
        let (mut levels, mut counts) = (setup.to_vec(), setup.to_vec());
        for (actions, wave, values) in *parts {
            assert_eq!(
                wave.len(),
                values.len(),
                "row '{name}': a level and a count for each pulse"
            );
            levels.extend_from_slice(actions);
            levels.push(Wave(wave));
            counts.extend_from_slice(actions);
            counts.push(Counts(values));
        }
        check(&[(name, &levels), (name, &counts)]);
    }
}

/// Counter 2, low byte only, binary, mode given.
const fn mode(mode: u8) -> Step {
    Write(0x43, 0b1001_0000 | mode << 1)
}

/// Low byte of the count of counter 2.
const fn count(value: u8) -> Step {
    Write(0x42, value)
}

#[test]
fn mode_0_interrupts_on_terminal_count() {
    check_figures(&[
        (
            "N + 1 pulses after writing",
            &[mode(0), OUT_LOW, count(4), OUT_LOW],
            &[(&[], "LLLLHHH", &[4, 3, 2, 1, 0, 0xff, 0xfe])],
        ),
        (
            "gate low suspends counting",
            &[mode(0), count(3)],
            &[
                (&[], "LL", &[3, 2]),
                (&[LOW], "LLL", &[2, 2, 2]),
                (&[HIGH], "LHH", &[1, 0, 0xff]),
            ],
        ),
        (
            "gate low at the write: loading needs no gate, OUT rises N pulses after it",
            &[mode(0), LOW, count(3)],
            &[(&[], "LLL", &[3, 3, 3]), (&[HIGH], "LLH", &[2, 1, 0])],
        ),
        (
            "a new count while counting",
            &[mode(0), count(3)],
            &[
                (&[], "LLL", &[3, 2, 1]),
                (&[count(2)], "LLHH", &[2, 1, 0, 0xff]),
            ],
        ),
        (
            "a new count after terminal count lowers OUT",
            &[mode(0), count(1)],
            &[
                (&[], "LHH", &[1, 0, 0xff]),
                (&[count(2), OUT_LOW], "LLH", &[2, 1, 0]),
            ],
        ),
        (
            "the first of two bytes stops counting and lowers OUT",
            &[Write(0x43, 0xb0), count(2), count(0)],
            &[
                (&[], "LLH", &[2, 1, 0]),
                (&[count(3), OUT_LOW], "LLL", &[0, 0, 0]),
                (&[count(0)], "LLLH", &[3, 2, 1, 0]),
            ],
        ),
        (
            "nothing counts before the first count",
            &[mode(0)],
            &[(&[], "LLL", &[0, 0, 0])],
        ),
        (
            "the control word again lowers OUT",
            &[mode(0), count(1)],
            &[(&[], "LH", &[1, 0]), (&[mode(0), OUT_LOW], "LL", &[0, 0])],
        ),
    ]);
}

#[test]
fn mode_1_is_a_one_shot_that_gate_triggers() {
    check_figures(&[
        (
            "one pulse of N",
            &[
                mode(1),
                OUT_HIGH,
                count(3),
                Clock(3),
                OUT_HIGH,
                LOW,
                HIGH,
                OUT_HIGH,
            ],
            &[(&[], "LLLHH", &[3, 2, 1, 0, 0xff])],
        ),
        (
            "gate level does not matter",
            &[mode(1), count(3), LOW, HIGH],
            &[(&[], "L", &[3]), (&[LOW], "LLH", &[2, 1, 0])],
        ),
        (
            "a trigger in the pulse makes it longer",
            &[mode(1), count(3), LOW, HIGH],
            &[(&[], "LL", &[3, 2]), (&[LOW, HIGH], "LLLH", &[3, 2, 1, 0])],
        ),
        (
            "a new count waits for the next trigger",
            &[mode(1), count(2), LOW, HIGH],
            &[
                (&[], "L", &[2]),
                (&[count(4)], "LHH", &[1, 0, 0xff]),
                (&[LOW, HIGH], "LLLLH", &[4, 3, 2, 1, 0]),
            ],
        ),
        (
            "a trigger before the first count is none",
            &[mode(1), LOW, HIGH, count(2)],
            &[(&[], "HHH", &[0, 0, 0])],
        ),
    ]);
}

#[test]
fn mode_2_is_a_rate_generator() {
    check_figures(&[
        (
            "low for the last pulse of N",
            &[mode(2), OUT_HIGH, count(3)],
            &[(&[], "HHLHHLH", &[3, 2, 1, 3, 2, 1, 3])],
        ),
        (
            "gate low raises OUT at once and stops; a trigger starts a new period",
            &[mode(2), count(3)],
            &[
                (&[], "HHL", &[3, 2, 1]),
                (&[LOW, OUT_HIGH], "HH", &[1, 1]),
                (&[HIGH, OUT_HIGH], "HHLH", &[3, 2, 1, 3]),
            ],
        ),
        (
            "a new count waits for the end of the period",
            &[mode(2), count(4)],
            &[
                (&[], "HH", &[4, 3]),
                (&[count(2)], "HLHLHL", &[2, 1, 2, 1, 2, 1]),
            ],
        ),
        (
            "a new count is taken at a trigger",
            &[mode(2), count(4)],
            &[
                (&[], "HH", &[4, 3]),
                (&[count(5), LOW, HIGH], "HHHHLH", &[5, 4, 3, 2, 1, 5]),
            ],
        ),
        (
            "a count of 1 never lowers OUT",
            &[mode(2), count(1)],
            &[(&[], "HHHH", &[1, 1, 1, 1])],
        ),
        (
            "mode bits 110 are mode 2",
            &[mode(6), count(2)],
            &[(&[], "HLHL", &[2, 1, 2, 1])],
        ),
    ]);
}

#[test]
fn mode_3_is_a_square_wave() {
    check_figures(&[
        (
            "even: N/2 high, N/2 low, by two",
            &[mode(3), OUT_HIGH, count(4)],
            &[(&[], "HHLLHHLLH", &[4, 2, 4, 2, 4, 2, 4, 2, 4])],
        ),
        (
            "odd: (N+1)/2 high, (N-1)/2 low, from N-1",
            &[mode(3), count(5)],
            &[(&[], "HHHLLHHHLL", &[4, 2, 0, 4, 2, 4, 2, 0, 4, 2])],
        ),
        (
            "2 is the shortest",
            &[mode(3), count(2)],
            &[(&[], "HLHLH", &[2, 2, 2, 2, 2])],
        ),
        (
            "3",
            &[mode(3), count(3)],
            &[(&[], "HHLHHL", &[2, 0, 2, 2, 0, 2])],
        ),
        (
            "gate low raises OUT at once and stops; a trigger starts a high half",
            &[mode(3), count(4)],
            &[
                (&[], "HHL", &[4, 2, 4]),
                (&[LOW, OUT_HIGH], "HH", &[4, 4]),
                (&[HIGH], "HHLL", &[4, 2, 4, 2]),
            ],
        ),
        (
            "a new count waits for the end of the half period",
            &[mode(3), count(6)],
            &[
                (&[], "HH", &[6, 4]),
                (&[count(4)], "HLLHHL", &[2, 4, 2, 4, 2, 4]),
            ],
        ),
        (
            "odd to even in the high half",
            &[mode(3), count(5)],
            &[(&[], "H", &[4]), (&[count(2)], "HHLHL", &[2, 0, 2, 2, 2])],
        ),
        (
            "a new count is taken at a trigger",
            &[mode(3), count(6)],
            &[
                (&[], "HH", &[6, 4]),
                (&[count(2), LOW, HIGH], "HLHL", &[2, 2, 2, 2]),
            ],
        ),
        (
            "a count of 1 never lowers OUT",
            &[mode(3), count(1)],
            &[(&[], "HHHH", &[0, 0, 0, 0])],
        ),
        (
            "mode bits 111 are mode 3",
            &[mode(7), count(2)],
            &[(&[], "HLHL", &[2, 2, 2, 2])],
        ),
    ]);
}

#[test]
fn mode_4_strobes_after_a_write() {
    check_figures(&[
        (
            "N + 1 pulses after writing, for one pulse, once",
            &[mode(4), OUT_HIGH, count(3), OUT_HIGH],
            &[(&[], "HHHLHH", &[3, 2, 1, 0, 0xff, 0xfe])],
        ),
        (
            "gate low suspends counting",
            &[mode(4), count(3)],
            &[
                (&[], "HH", &[3, 2]),
                (&[LOW], "HH", &[2, 2]),
                (&[HIGH], "HLH", &[1, 0, 0xff]),
            ],
        ),
        (
            "gate low does not hold the strobe",
            &[mode(4), count(1)],
            &[(&[], "HL", &[1, 0]), (&[LOW, OUT_LOW], "HH", &[0, 0])],
        ),
        (
            "a new count while counting starts anew",
            &[mode(4), count(3)],
            &[
                (&[], "HHH", &[3, 2, 1]),
                (&[count(2)], "HHLH", &[2, 1, 0, 0xff]),
            ],
        ),
        (
            "the first of two bytes does not disturb",
            &[Write(0x43, 0xb8), count(2), count(0)],
            &[
                (&[], "H", &[2]),
                (&[count(3)], "HLH", &[1, 0, 0xffff]),
                (&[count(0)], "HHHLH", &[3, 2, 1, 0, 0xffff]),
            ],
        ),
    ]);
}

#[test]
fn mode_5_strobes_after_a_trigger() {
    check_figures(&[
        (
            "N + 1 pulses after the trigger",
            &[mode(5), OUT_HIGH, count(3), Clock(5), OUT_HIGH, LOW, HIGH],
            &[(&[], "HHHLHH", &[3, 2, 1, 0, 0xff, 0xfe])],
        ),
        (
            "gate level does not matter",
            &[mode(5), count(2), LOW, HIGH],
            &[(&[], "H", &[2]), (&[LOW], "HLH", &[1, 0, 0xff])],
        ),
        (
            "a trigger while counting starts anew",
            &[mode(5), count(3), LOW, HIGH],
            &[
                (&[], "HHH", &[3, 2, 1]),
                (&[LOW, HIGH], "HHHLH", &[3, 2, 1, 0, 0xff]),
            ],
        ),
        (
            "a new count waits for the next trigger",
            &[mode(5), count(2), LOW, HIGH],
            &[
                (&[], "H", &[2]),
                (&[count(4)], "HLHH", &[1, 0, 0xff, 0xfe]),
                (&[LOW, HIGH], "HHHHLH", &[4, 3, 2, 1, 0, 0xff]),
            ],
        ),
    ]);
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
    check(&[
        (
            "low byte only: the high byte is zero",
            &[
                Write(0x43, 0x90),
                count(5),
                Counts(&[5, 4]),
                Write(0x43, 0x80),
                Read(0x42, 4),
                Read(0x42, 4),
            ],
        ),
        (
            "high byte only: the low byte is zero",
            &[
                Write(0x43, 0xa0),
                count(2),
                Clock(1),
                Read(0x42, 2),
                Clock(1),
                Read(0x42, 1),
                Clock(0x100),
                Read(0x42, 0),
                Clock(0xfe),
                OUT_LOW,
                Wave("H"),
            ],
        ),
        (
            "both bytes, low first",
            &[
                Write(0x43, 0xb0),
                count(0x34),
                count(0x12),
                Counts(&[0x1234, 0x1233]),
            ],
        ),
        (
            "reading and writing have their own turns",
            &[
                Write(0x43, 0xb4),
                count(0x34),
                count(0x12),
                Clock(1),
                Read(0x42, 0x34),
                count(0x78),
                Read(0x42, 0x12),
                count(0x56),
                Clock(0x1234),
                Read(0x42, 0x78),
                Read(0x42, 0x56),
            ],
        ),
        (
            "a control word starts with the low byte again",
            &[
                Write(0x43, 0xb0),
                count(0x99),
                Write(0x43, 0xb0),
                count(0x34),
                count(0x12),
                Clock(1),
                Read(0x42, 0x34),
                Write(0x43, 0xb0),
                Read(0x42, 0x34),
                Read(0x42, 0x12),
            ],
        ),
        ("the control port reads as ones", &[Read(0x43, 0xff)]),
    ]);
}

#[test]
fn a_count_of_zero_is_the_largest() {
    check(&[
        (
            "binary: 65,536",
            &[
                Write(0x43, 0xb0),
                count(0),
                count(0),
                Clock(1),
                Read(0x42, 0),
                Read(0x42, 0),
                Clock(65_535),
                OUT_LOW,
                Wave("H"),
            ],
        ),
        (
            "decimal: 10,000",
            &[
                Write(0x43, 0xb1),
                count(0),
                count(0),
                Counts(&[0, 0x9999]),
                Clock(9_998),
                OUT_LOW,
                Wave("H"),
            ],
        ),
        (
            "rate generator",
            &[
                Write(0x43, 0xb4),
                count(0),
                count(0),
                Clock(65_535),
                OUT_HIGH,
                Wave("LH"),
                Clock(65_534),
                Wave("LH"),
            ],
        ),
        (
            "square wave",
            &[
                Write(0x43, 0xb6),
                count(0),
                count(0),
                Clock(32_768),
                OUT_HIGH,
                Wave("L"),
                Clock(32_766),
                Wave("LH"),
            ],
        ),
        (
            "decimal square wave",
            &[
                Write(0x43, 0xb7),
                count(0),
                count(0),
                Clock(5_000),
                OUT_HIGH,
                Wave("L"),
                Clock(4_998),
                Wave("LH"),
            ],
        ),
        (
            "low byte only",
            &[
                Write(0x43, 0x90),
                count(0),
                Clock(65_536),
                OUT_LOW,
                Wave("H"),
            ],
        ),
        (
            "high byte only",
            &[
                Write(0x43, 0xa0),
                count(0),
                Clock(65_536),
                OUT_LOW,
                Wave("H"),
            ],
        ),
    ]);
}

#[test]
fn decimal_counts_borrow_by_decades() {
    check(&[
        (
            "across two decades",
            &[
                Write(0x43, 0xb1),
                count(0x01),
                count(0x10),
                Counts(&[0x1001, 0x1000, 0x0999, 0x0998]),
            ],
        ),
        (
            "wraps to 9999",
            &[
                Write(0x43, 0xb1),
                count(0x01),
                count(0x00),
                Counts(&[1, 0, 0x9999, 0x9998]),
            ],
        ),
        (
            "square wave by two",
            &[
                Write(0x43, 0xb7),
                count(0x12),
                count(0x00),
                Counts(&[0x12, 0x10, 0x08, 0x06, 0x04, 0x02, 0x12]),
            ],
        ),
        (
            "low byte only: 99 at most",
            &[
                Write(0x43, 0x91),
                count(0x99),
                Counts(&[0x99, 0x98]),
                Clock(97),
                OUT_LOW,
                Wave("H"),
            ],
        ),
        (
            "high byte only: hundreds",
            &[
                Write(0x43, 0xa1),
                count(0x02),
                Clock(200),
                OUT_LOW,
                Wave("H"),
            ],
        ),
    ]);
}

#[test]
fn a_latched_count_stands_still_until_it_is_read() {
    check(&[
        (
            "two bytes",
            &[
                Write(0x43, 0xb4),
                count(0x00),
                count(0x10),
                Clock(1),
                Write(0x43, 0x80),
                Clock(0x345),
                Read(0x42, 0x00),
                Clock(7),
                Read(0x42, 0x10),
                Read(0x42, 0xb4),
                Read(0x42, 0x0c),
            ],
        ),
        (
            "one byte",
            &[
                mode(0),
                count(9),
                Clock(1),
                Write(0x43, 0x80),
                Clock(3),
                Read(0x42, 9),
                Read(0x42, 6),
            ],
        ),
        (
            "latching again before reading changes nothing",
            &[
                mode(0),
                count(9),
                Clock(1),
                Write(0x43, 0x80),
                Clock(1),
                Write(0x43, 0x80),
                Read(0x42, 9),
                Write(0x43, 0x80),
                Clock(1),
                Read(0x42, 8),
            ],
        ),
        (
            "a new control word drops the latch",
            &[
                mode(0),
                count(9),
                Clock(3),
                Write(0x43, 0x80),
                Clock(2),
                mode(0),
                Read(0x42, 5),
            ],
        ),
        (
            "a new count does not",
            &[
                mode(0),
                count(9),
                Clock(2),
                Write(0x43, 0x80),
                count(50),
                Clock(1),
                Read(0x42, 8),
                Read(0x42, 50),
            ],
        ),
        (
            "latching starts with the low byte",
            &[
                Write(0x43, 0xb4),
                count(0x34),
                count(0x12),
                Clock(1),
                Read(0x42, 0x34),
                Write(0x43, 0x80),
                Read(0x42, 0x34),
                Read(0x42, 0x12),
            ],
        ),
    ]);
}

#[test]
fn read_back_latches_what_it_selects() {
    check(&[
        (
            "status: OUT, null count, programmed bits",
            &[Write(0x43, 0xb7), Write(0x43, 0xe8), Read(0x42, 0xf7)],
        ),
        (
            "null count clears when the count is loaded",
            &[
                mode(4),
                count(7),
                Write(0x43, 0xe8),
                Read(0x42, 0xd8),
                Clock(1),
                Write(0x43, 0xe8),
                Read(0x42, 0x98),
                count(7),
                Write(0x43, 0xe8),
                Read(0x42, 0xd8),
            ],
        ),
        (
            "null count in mode 2 lasts to the end of the period",
            &[
                mode(2),
                count(4),
                Clock(2),
                count(5),
                Write(0x43, 0xe8),
                Clock(3),
                Read(0x42, 0xd4),
                Write(0x43, 0xe8),
                Read(0x42, 0x94),
            ],
        ),
        (
            "null count in mode 1 lasts to the trigger",
            &[
                mode(1),
                count(4),
                Clock(9),
                Write(0x43, 0xe8),
                Read(0x42, 0xd2),
                LOW,
                HIGH,
                Clock(1),
                Write(0x43, 0xe8),
                Read(0x42, 0x12),
            ],
        ),
        (
            "null count with two bytes: set by the second",
            &[
                Write(0x43, 0xb4),
                count(4),
                count(0),
                Clock(1),
                count(9),
                Write(0x43, 0xe8),
                Read(0x42, 0xb4),
                count(0),
                Write(0x43, 0xe8),
                Read(0x42, 0xf4),
            ],
        ),
        (
            "status shows OUT low",
            &[
                mode(0),
                count(4),
                Clock(1),
                Write(0x43, 0xe8),
                Read(0x42, 0x10),
            ],
        ),
        (
            "mode bits as written",
            &[mode(7), Write(0x43, 0xe8), Read(0x42, 0xde)],
        ),
        (
            "count and status: status first",
            &[
                mode(2),
                count(8),
                Clock(2),
                Write(0x43, 0xc8),
                Clock(2),
                Read(0x42, 0x94),
                Read(0x42, 7),
                Read(0x42, 5),
            ],
        ),
        (
            "count alone",
            &[
                mode(2),
                count(8),
                Clock(2),
                Write(0x43, 0xd8),
                Clock(2),
                Read(0x42, 7),
                Read(0x42, 5),
            ],
        ),
        (
            "neither",
            &[
                mode(2),
                count(8),
                Clock(2),
                Write(0x43, 0xf8),
                Clock(2),
                Read(0x42, 5),
            ],
        ),
        (
            "status latched twice is the first one",
            &[
                mode(0),
                count(1),
                Clock(1),
                Write(0x43, 0xe8),
                Clock(1),
                Write(0x43, 0xe8),
                Read(0x42, 0x10),
                Write(0x43, 0xe8),
                Read(0x42, 0x90),
            ],
        ),
        (
            "several counters at once",
            &[
                Write(0x43, 0x10),
                Write(0x40, 3),
                mode(0),
                count(9),
                Clock(1),
                Write(0x43, 0xda),
                Clock(2),
                Read(0x40, 3),
                Read(0x42, 9),
                Read(0x40, 1),
                Read(0x42, 7),
            ],
        ),
        (
            "counters that are not selected go on",
            &[
                Write(0x43, 0x10),
                Write(0x40, 3),
                mode(0),
                count(9),
                Clock(1),
                Write(0x43, 0xd8),
                Clock(2),
                Read(0x40, 1),
                Read(0x42, 9),
            ],
        ),
    ]);
}

#[test]
fn port_61_gates_counter_2_and_shows_its_output() {
    check(&[
        (
            "low bits read back",
            &[
                Write(0x61, 0xfe),
                Read(0x61, 0x0e),
                Write(0x61, 0x03),
                Read(0x61, 0x03),
            ],
        ),
        (
            "bit 5 is OUT2",
            &[mode(0), Read(0x61, 0x01), mode(1), Read(0x61, 0x21)],
        ),
        (
            "speaker data does not touch the gate",
            &[mode(0), count(2), Clock(2), Write(0x61, 0x03), Wave("H")],
        ),
        (
            "bit 4 toggles each 18 pulses",
            &[
                Clock(18),
                Read(0x61, 0x01),
                Clock(1),
                Read(0x61, 0x11),
                Clock(17),
                Read(0x61, 0x11),
                Clock(1),
                Read(0x61, 0x01),
                Clock(36 * 1_000_000),
                Read(0x61, 0x01),
                Clock(18),
                Read(0x61, 0x11),
            ],
        ),
        (
            "gates 0 and 1 are tied high",
            &[
                Write(0x61, 0),
                Write(0x43, 0x10),
                Write(0x40, 9),
                Clock(3),
                Read(0x40, 7),
            ],
        ),
    ]);
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
            // The first pulse loads; OUT0 rises each `reload` pulses after it.
            assert_eq!(edges, (rig.pulses - 1) / reload, "{name} {reload}");
        }
    }
}

#[test]
fn next_edge_is_the_exact_time_of_the_next_rise_of_out0() {
    let scripts: [(&str, &[(u16, u8)], Option<u64>); 9] = [
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
    for (name, writes, expected) in scripts {
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
