//! Scripts of accesses to a PC's ports, and the machine that they run on.
//!
//! A row is `name :: script`; a line without `::` continues the script above it. Each row runs on a new machine. The words
//! of a script:
//!
//! ```text
//! 3f8=41       writes 0x41 to port 0x3f8
//! 3f8?41       reads port 0x3f8 and expects 0x41
//! 3fd?01/1f    reads port 0x3fd and expects 0x01 under the mask 0x1f
//! +250us +1s   lets so much time pass (ns, us, ms, s)
//! intr idle    expects INTR high, low
//! ack:24       runs an INTA cycle and expects vector 0x24
//! <41.42       COM1's peer sends 0x41 and 0x42
//! <break       COM1's peer sends a break
//! >41.42       expects that COM1's peer has received 0x41 and 0x42 since the last look; `>` alone, nothing
//! reset        expects that the machine has been reset
//! running      expects that it has not
//! ```

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mmu::Memory;
use sbe::{Bus, Width};
use vmm::{
    Board,
    bus::Stop,
    clock::Clock,
    devices::{self, Backends},
};

/// 2024-02-29 23:59:58.0 UTC, a Thursday, in nanoseconds since 1970.
const LEAP_DAY: i128 = 1_709_251_198_000_000_000;
const MEMORY: u64 = 1 << 20;

/// A PC whose time the scripts tell.
struct Rig {
    board: Board,
    backends: Backends,
    time: Arc<AtomicU64>,
}

impl Rig {
    fn new(setup: &str) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let source = Arc::clone(&time);
        let clock = Clock::from_fn(move || source.load(Ordering::Relaxed));
        let (board, backends) = devices::pc(clock, LEAP_DAY, Memory::new(MEMORY).unwrap());
        let mut rig = Self {
            board,
            backends,
            time,
        };
        for word in setup.split_whitespace() {
            rig.perform(word, "setup");
        }
        rig
    }

    fn read(&mut self, port: u16) -> u8 {
        self.board.port_read(port, Width::Byte) as u8
    }

    /// Performs one word of a script and checks what it expects.
    fn perform(&mut self, word: &str, place: &str) {
        if let Some((port, value)) = word.split_once('=') {
            self.board
                .port_write(hex(port), Width::Byte, byte(value).into());
        } else if let Some((port, expected)) = word.split_once('?') {
            let (value, mask) = expected.split_once('/').unwrap_or((expected, "ff"));
            let seen = self.read(hex(port)) & byte(mask);
            assert_eq!(seen, byte(value), "{place}: {seen:#04x}");
        } else if let Some(pass) = word.strip_prefix('+') {
            self.board.advance();
            self.time.fetch_add(nanoseconds(pass), Ordering::Relaxed);
            self.board.advance();
        } else if let Some(vector) = word.strip_prefix("ack:") {
            assert_eq!(self.board.acknowledge(), byte(vector), "{place}");
        } else if word == "<break" {
            self.backends.com1.send_break();
            self.board.advance();
        } else if let Some(sent) = word.strip_prefix('<') {
            self.backends.com1.send(&bytes(sent));
            self.board.advance();
        } else if let Some(received) = word.strip_prefix('>') {
            let seen = self.backends.com1.take_transmitted();
            assert_eq!(seen, bytes(received), "{place}");
        } else {
            let (seen, expected) = match word {
                "intr" | "idle" => (self.board.intr(), word == "intr"),
                "reset" | "running" => (self.board.stop() == Some(Stop::Reset), word == "reset"),
                _ => panic!("{place}: not a word of a script"),
            };
            assert_eq!(seen, expected, "{place}");
        }
    }
}

fn hex(digits: &str) -> u16 {
    u16::from_str_radix(digits, 16).expect("ports are hexadecimal")
}

fn byte(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).expect("bytes are hexadecimal")
}

fn bytes(digits: &str) -> Vec<u8> {
    digits
        .split('.')
        .filter(|digits| !digits.is_empty())
        .map(byte)
        .collect()
}

fn nanoseconds(time: &str) -> u64 {
    let unit = time.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = time[..time.len() - unit.len()]
        .parse()
        .expect("times are decimal");
    number
        * match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            _ => panic!("{time}: not a unit of time"),
        }
}

/// Runs each row on a new machine after `setup`.
pub fn check(setup: &str, rows: &str) {
    let mut rig = Rig::new(setup);
    let mut name = "";
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let script = match row.split_once(" :: ") {
            Some((new_name, script)) => {
                name = new_name;
                rig = Rig::new(setup);
                script
            }
            None => row,
        };
        for (index, word) in script.split_whitespace().enumerate() {
            let place = format!("row '{name}', word {index} of its line: {word}");
            rig.perform(word, &place);
        }
    }
}
