//! Random programs on the 8254's closed form and on a second, naive model of it that takes every clock pulse by itself
//! and counts on the digits, as the datasheet describes the counting element.

use std::collections::VecDeque;

use irq::{Channel, Level, Pit, PitPort};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const CHANNELS: [Channel; 3] = [Channel::Timer, Channel::Refresh, Channel::Speaker];
/// The farthest rise of OUT: the rest of a period and a whole one, the loading pulse and the strobe.
const FARTHEST_RISE: u64 = 2 * 65_536 + 2;

/// A naive model of one counter.
#[derive(Clone, Debug)]
struct NaiveCounter {
    /// The last control word's lower six bits.
    control: u8,
    gate: bool,
    out: bool,
    /// The counting element, as the digits that a read shows.
    element: u16,
    count_register: Option<u16>,
    first_byte: Option<u8>,
    load_next: bool,
    loaded: bool,
    /// The one-shot action of modes 0, 1, 4, 5 is still to come.
    waiting_for_zero: bool,
    odd: bool,
    null_count: bool,
    second_read: bool,
    latched_status: Option<u8>,
    latched_count: VecDeque<u8>,
}

impl NaiveCounter {
    fn new(gate: bool) -> Self {
        let mut counter = Self {
            control: 0,
            gate,
            out: false,
            element: 0,
            count_register: None,
            first_byte: None,
            load_next: false,
            loaded: false,
            waiting_for_zero: false,
            odd: false,
            null_count: true,
            second_read: false,
            latched_status: None,
            latched_count: VecDeque::new(),
        };
        counter.program(0x30);
        counter
    }

    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            mode @ 0..=5 => mode,
            mode => mode - 4,
        }
    }

    fn is_decimal(&self) -> bool {
        self.control & 1 != 0
    }

    fn access(&self) -> u8 {
        self.control >> 4
    }

    fn program(&mut self, control: u8) {
        let was_decimal = self.is_decimal();
        self.control = control & 0x3f;
        self.out = self.mode() != 0;
        // A change of radix keeps the number, as far as four decades hold it.
        if was_decimal && !self.is_decimal() {
            self.element = format!("{:x}", self.element)
                .parse()
                .expect("decimal digits");
        } else if !was_decimal && self.is_decimal() {
            let number = format!("{}", self.element % 10_000);
            self.element = u16::from_str_radix(&number, 16).expect("decimal digits");
        }
        (self.count_register, self.first_byte) = (None, None);
        (self.load_next, self.loaded, self.waiting_for_zero) = (false, false, false);
        (self.null_count, self.second_read) = (true, false);
        self.latched_status = None;
        self.latched_count.clear();
    }

    fn write(&mut self, byte: u8) {
        let count = match (self.access(), self.first_byte) {
            (1, _) => [byte, 0],
            (2, _) => [0, byte],
            (_, Some(first)) => [first, byte],
            (_, None) => {
                self.first_byte = Some(byte);
                if self.mode() == 0 {
                    self.out = false;
                }
                return;
            }
        };
        self.first_byte = None;
        let initial = self.count_register.is_none();
        self.count_register = Some(u16::from_le_bytes(count));
        self.null_count = true;
        match self.mode() {
            0 => (self.out, self.load_next) = (false, true),
            4 => self.load_next = true,
            2 | 3 if initial => self.load_next = true,
            _ => {}
        }
    }

    fn set_gate(&mut self, gate: bool) {
        let trigger = gate && !self.gate && self.count_register.is_some();
        self.gate = gate;
        if trigger && matches!(self.mode(), 1 | 2 | 3 | 5) {
            self.load_next = true;
        }
        if !gate && matches!(self.mode(), 2 | 3) {
            self.out = true;
        }
    }

    fn decrement(&mut self) {
        if !self.is_decimal() {
            self.element = self.element.wrapping_sub(1);
            return;
        }
        for digit in [0, 4, 8, 12] {
            if self.element >> digit & 0xf > 0 {
                self.element -= 1 << digit;
                return;
            }
            self.element |= 9 << digit;
        }
    }

    fn load(&mut self) {
        self.element = self.count_register.expect("a load follows a count");
        self.null_count = false;
        if self.mode() == 3 {
            self.odd = self.element & 1 != 0;
            self.element &= !1;
        }
    }

    /// Takes one clock pulse and returns whether OUT rose.
    fn pulse(&mut self) -> bool {
        let was_out = self.out;
        if self.load_next {
            self.load();
            (self.load_next, self.loaded, self.waiting_for_zero) = (false, true, true);
            self.out = !matches!(self.mode(), 0 | 1);
        } else {
            if matches!(self.mode(), 4 | 5) {
                self.out = true;
            }
            let enabled = match self.mode() {
                0 => self.gate && self.first_byte.is_none(),
                1 | 5 => true,
                _ => self.gate,
            };
            if self.loaded && enabled {
                self.count();
            }
        }
        self.out && !was_out
    }

    fn count(&mut self) {
        match self.mode() {
            2 if self.element == 1 => {
                self.load();
                self.out = true;
            }
            2 => {
                self.decrement();
                self.out = self.element != 1;
            }
            3 => {
                let last = if self.odd && self.out { 0 } else { 2 };
                if self.element == last {
                    self.out = !self.out || self.count_register == Some(1);
                    self.load();
                } else {
                    self.decrement();
                    self.decrement();
                }
            }
            mode => {
                self.decrement();
                if self.element == 0 && self.waiting_for_zero {
                    self.waiting_for_zero = false;
                    self.out = mode < 2;
                }
            }
        }
    }

    fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        if let Some(byte) = self.latched_count.pop_front() {
            return byte;
        }
        let [low, high] = self.element.to_le_bytes();
        match self.access() {
            1 => low,
            2 => high,
            _ => {
                self.second_read = !self.second_read;
                if self.second_read { low } else { high }
            }
        }
    }

    fn latch_count(&mut self) {
        if self.latched_count.is_empty() {
            let [low, high] = self.element.to_le_bytes();
            self.latched_count = match self.access() {
                1 => [low].into(),
                2 => [high].into(),
                _ => [low, high].into(),
            };
            self.second_read = false;
        }
    }

    fn latch_status(&mut self) {
        let status =
            self.control + if self.null_count { 0x40 } else { 0 } + if self.out { 0x80 } else { 0 };
        self.latched_status.get_or_insert(status);
    }
}

/// A naive model of the timer, with port 0x61.
#[derive(Clone, Debug)]
struct NaivePit {
    counters: [NaiveCounter; 3],
    pulses: u64,
    port_61: u8,
    refresh: bool,
}

impl NaivePit {
    fn new() -> Self {
        let mut counters = [
            NaiveCounter::new(true),
            NaiveCounter::new(true),
            NaiveCounter::new(false),
        ];
        counters[1].program(0x14);
        counters[1].write(18);
        Self {
            counters,
            pulses: 0,
            port_61: 0,
            refresh: false,
        }
    }

    fn pulse(&mut self) -> bool {
        self.pulses += 1;
        let [rose, refresh, _] = self.counters.each_mut().map(NaiveCounter::pulse);
        self.refresh ^= refresh;
        rose
    }

    /// Takes each pulse up to `now` and returns how often OUT0 rose.
    fn advance(&mut self, now: u64) -> u64 {
        let mut rises = 0;
        while pulse_time(self.pulses + 1) <= now {
            rises += u64::from(self.pulse());
        }
        rises
    }

    /// The number of pulses until OUT0 rises, if it does within `limit`.
    fn pulses_to_rise(&self, limit: u64) -> Option<u64> {
        let mut timer = self.counters[0].clone();
        (1..=limit).find(|_| timer.pulse())
    }

    fn read(&mut self, port: u16) -> u8 {
        match port {
            0x40..=0x42 => self.counters[usize::from(port - 0x40)].read(),
            0x43 => 0xff,
            _ => self.port_61 | u8::from(self.refresh) << 4 | u8::from(self.counters[2].out) << 5,
        }
    }

    fn write(&mut self, port: u16, byte: u8) {
        match port {
            0x40..=0x42 => self.counters[usize::from(port - 0x40)].write(byte),
            0x43 if byte >> 6 == 3 => {
                for (_, counter) in (1..)
                    .zip(&mut self.counters)
                    .filter(|(bit, _)| byte >> bit & 1 == 1)
                {
                    if byte & 0x10 == 0 {
                        counter.latch_status();
                    }
                    if byte & 0x20 == 0 {
                        counter.latch_count();
                    }
                }
            }
            0x43 if byte & 0x30 == 0 => self.counters[usize::from(byte >> 6)].latch_count(),
            0x43 => self.counters[usize::from(byte >> 6)].program(byte),
            _ => {
                self.port_61 = byte & 0xf;
                self.counters[2].set_gate(byte & 1 == 1);
            }
        }
    }
}

/// The first whole nanosecond not before clock pulse `pulse`.
fn pulse_time(pulse: u64) -> u64 {
    let hz = u128::from(irq::pit::FREQUENCY_HZ);
    u64::try_from((u128::from(pulse) * 1_000_000_000).div_ceil(hz))
        .expect("tests stay within 584 years")
}

/// An action of a guest, or the passing of time.
#[derive(Clone, Debug)]
enum Action {
    Write(u16, u8),
    /// Writes a byte of a count, in a decimal counter with digits of at most 9.
    Count(u8, u8),
    Read(u16),
    Pulses(u64),
    Nanoseconds(u64),
}

fn counter_byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 6 => 1_u8..8, 2 => any::<u8>()]
}

fn action() -> impl Strategy<Value = Action> {
    let control =
        (0_u8..3, 1_u8..4, 0_u8..8, any::<bool>()).prop_map(|(counter, access, mode, decimal)| {
            Action::Write(
                0x43,
                counter << 6 | access << 4 | mode << 1 | u8::from(decimal),
            )
        });
    let latch = (0_u8..3).prop_map(|counter| Action::Write(0x43, counter << 6));
    let read_back = any::<u8>().prop_map(|bits| Action::Write(0x43, 0xc0 | bits));
    prop_oneof![
        3 => control,
        2 => latch,
        3 => read_back,
        10 => (0_u8..3, counter_byte()).prop_map(|(counter, byte)| Action::Count(counter, byte)),
        8 => (0x40_u16..0x43).prop_map(Action::Read),
        2 => Just(Action::Read(0x61)),
        5 => any::<u8>().prop_map(|byte| Action::Write(0x61, byte)),
        10 => (0_u64..24).prop_map(Action::Pulses),
        1 => (0_u64..150_000).prop_map(Action::Pulses),
        2 => (0_u64..10_000).prop_map(Action::Nanoseconds),
    ]
}

/// The timer and its model, which are driven alike.
struct Both {
    pit: Pit,
    naive: NaivePit,
    now: u64,
}

impl Both {
    fn write(&mut self, port: u16, byte: u8) {
        self.pit.write(decode(port), byte);
        self.naive.write(port, byte);
    }

    fn advance(&mut self, now: u64) -> (u64, u64) {
        self.now = now;
        (self.pit.advance(now), self.naive.advance(now))
    }

    /// Performs `action` and returns what each showed.
    fn perform(&mut self, action: &Action) -> (u64, u64) {
        match *action {
            Action::Write(port, byte) => self.write(port, byte),
            Action::Count(counter, byte) => {
                let decimal = self.naive.counters[usize::from(counter)].is_decimal();
                let digits = if decimal {
                    (byte >> 4).min(9) << 4 | (byte & 0xf).min(9)
                } else {
                    byte
                };
                self.write(0x40 + u16::from(counter), digits);
            }
            Action::Read(port) => {
                return (
                    self.pit.read(decode(port)).into(),
                    self.naive.read(port).into(),
                );
            }
            Action::Pulses(pulses) => {
                return self.advance(pulse_time(self.naive.pulses + pulses).max(self.now));
            }
            Action::Nanoseconds(time) => return self.advance(self.now + time),
        }
        (0, 0)
    }

    fn levels(&self) -> ([Level; 3], [Level; 3]) {
        let naive = self
            .naive
            .counters
            .each_ref()
            .map(|counter| Level::from_active(counter.out));
        (CHANNELS.map(|channel| self.pit.out(channel)), naive)
    }

    /// Checks the deadline as far as `limit` pulses ahead.
    fn check_deadline(&self, limit: u64) -> Result<(), TestCaseError> {
        let horizon = pulse_time(self.naive.pulses + limit);
        let expected = self
            .naive
            .pulses_to_rise(limit)
            .map(|pulses| pulse_time(self.naive.pulses + pulses));
        let deadline = self.pit.next_edge();
        prop_assert_eq!(
            deadline.filter(|&deadline| deadline <= horizon),
            expected,
            "deadline within {} pulses",
            limit
        );
        prop_assert!(
            limit < FARTHEST_RISE || deadline == expected,
            "no deadline beyond the farthest"
        );
        Ok(())
    }
}

fn decode(port: u16) -> PitPort {
    PitPort::decode(port).expect("strategies name ports of the timer")
}

/// The configuration that makes the same guests in every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1_000,
        rng_seed: RngSeed::Fixed(8254),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_closed_form_agrees_with_counting_pulse_by_pulse(actions in prop::collection::vec(action(), 1..80)) {
        let mut both = Both { pit: Pit::new(), naive: NaivePit::new(), now: 0 };
        for (index, action) in actions.iter().enumerate() {
            let (seen, expected) = both.perform(action);
            prop_assert_eq!(seen, expected, "action {}: {:x?}", index, action);
            let (levels, expected) = both.levels();
            prop_assert_eq!(levels, expected, "OUT after action {}: {:x?}", index, action);
            both.check_deadline(50)?;
        }
        both.check_deadline(FARTHEST_RISE)?;
        for counter in 0..3 {
            both.write(0x43, 0xc0 | 2 << counter);
            for _ in 0..3 {
                let (seen, expected) = both.perform(&Action::Read(0x40 + counter));
                prop_assert_eq!(seen, expected, "counter {} read back", counter);
            }
        }
    }
}
