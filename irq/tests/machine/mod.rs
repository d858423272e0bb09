//! A machine around the chipset, with a clock, a guest that handles the timer's interrupt, and random guests.

use irq::chipset::GAP;
use irq::{Chipset, Port};
use proptest::prelude::*;

/// The vector of IRQ 0.
pub const TIMER: u8 = 0x20;

/// A chipset with a clock, and a guest that counts the timer's interrupts and answers each with an EOI.
pub struct Machine {
    pub chipset: Chipset,
    pub now: u64,
    /// The times at which the guest took an interrupt of the timer.
    pub taken: Vec<u64>,
}

impl Machine {
    /// Returns a machine whose controllers are initialized with vectors 0x20 and 0x28 and the given ICW1 and ICW4 of
    /// the master, and whose counter 0 counts `count` in `mode`. The tick that programming makes has been taken.
    pub fn with_master(icw1: u8, icw4: u8, mode: u8, count: u16) -> Self {
        let mut machine = Self {
            chipset: Chipset::new(),
            now: 0,
            taken: Vec::new(),
        };
        machine.write(&[(0x20, icw1), (0x21, 0x20), (0x21, 0x04), (0x21, icw4)]);
        machine.write(&[(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01)]);
        machine.program(mode, count);
        machine.run_handlers();
        machine.wait(GAP);
        machine
    }

    pub fn new(mode: u8, count: u16) -> Self {
        Self::with_master(0x11, 0x01, mode, count)
    }

    pub fn program(&mut self, mode: u8, count: u16) {
        let [low, high] = count.to_le_bytes();
        self.write(&[(0x43, 0x30 | mode << 1), (0x40, low), (0x40, high)]);
    }

    pub fn write(&mut self, writes: &[(u16, u8)]) {
        for &(address, value) in writes {
            self.chipset.advance(self.now);
            self.chipset.write(port(address), value);
        }
    }

    pub fn read(&mut self, address: u16) -> u8 {
        self.chipset.advance(self.now);
        self.chipset.read(port(address))
    }

    /// Lets `time` pass, then advances the chipset.
    pub fn wait(&mut self, time: u64) {
        self.now = self.now.saturating_add(time);
        self.chipset.advance(self.now);
    }

    /// Lets the guest take what is requested, each with a handler of 5 µs.
    pub fn run_handlers(&mut self) {
        while self.chipset.intr() {
            assert_eq!(self.chipset.acknowledge(), TIMER);
            self.taken.push(self.now);
            self.now += 5_000;
            self.write(&[(0x20, 0x20)]);
        }
    }
}

pub fn port(address: u16) -> Port {
    Port::decode(address).expect("tests name ports of the chipset")
}

/// An action of a guest, or of the machine that it runs in.
#[derive(Clone, Debug)]
pub enum Action {
    Advance(u64),
    Pause(u64),
    Acknowledge,
    Interrupt,
    Write(u16, u8),
    Read(u16),
    /// Programs counter 0 with mode and count.
    Program(u8, u16),
    EndService(u8),
    /// Initializes the master with ICW1 and ICW4.
    Initialize(u8, u8),
}

pub fn action() -> impl Strategy<Value = Action> {
    let time = prop_oneof![
        Just(0),
        0..20_000_u64,
        0..2_000_000_u64,
        0..3_000_000_000_u64,
    ];
    let count = prop_oneof![1..30_u16, 100..2_000_u16, any::<u16>()];
    prop_oneof![
        8 => time.clone().prop_map(Action::Advance),
        1 => time.prop_map(Action::Pause),
        8 => Just(Action::Interrupt),
        1 => Just(Action::Acknowledge),
        6 => Just(Action::Write(0x20, 0x20)),
        2 => (0..=255_u8).prop_map(|word| Action::Write(0x20, word & 0xef)),
        2 => prop_oneof![Just(0), Just(1), any::<u8>()].prop_map(|mask| Action::Write(0x21, mask)),
        1 => Just(Action::Write(0x20, 0x0c)),
        2 => prop::sample::select(vec![0x20, 0x21, 0x40, 0xa0]).prop_map(Action::Read),
        1 => any::<u8>().prop_map(|word| Action::Write(0x43, word)),
        1 => any::<u8>().prop_map(|byte| Action::Write(0x40, byte)),
        2 => (0..6_u8, count).prop_map(|(mode, count)| Action::Program(mode, count)),
        1 => prop_oneof![Just(0x20), any::<u8>()].prop_map(Action::EndService),
        1 => prop::sample::select(vec![(0x11, 0x01), (0x11, 0x03), (0x19, 0x01)])
            .prop_map(|(icw1, icw4)| Action::Initialize(icw1, icw4)),
    ]
}

/// Performs `action` and returns whether it took the interrupt of IRQ 0.
pub fn perform(machine: &mut Machine, action: &Action) -> bool {
    match *action {
        Action::Advance(time) => machine.wait(time),
        Action::Pause(time) => {
            machine.now = machine.now.saturating_add(time);
            machine.chipset.advance_paused(machine.now);
        }
        Action::Interrupt if !machine.chipset.intr() => {}
        Action::Acknowledge | Action::Interrupt => {
            return machine.chipset.acknowledge() == TIMER;
        }
        Action::Write(address, value) => machine.write(&[(address, value)]),
        Action::Read(address) => {
            // The slave requests nothing, so only a poll of the master reads as this.
            let before = machine.chipset.timer_stats().delivered;
            let value = machine.read(address);
            return machine.chipset.timer_stats().delivered > before && value == 0x80;
        }
        Action::Program(mode, count) => machine.program(mode, count),
        Action::EndService(vector) => machine.chipset.end_service(vector),
        Action::Initialize(icw1, icw4) => {
            machine.write(&[(0x20, icw1), (0x21, 0x20), (0x21, 0x04), (0x21, icw4)]);
        }
    }
    false
}
