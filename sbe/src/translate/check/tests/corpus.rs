//! Many encodings, one by one and in sequences.

use super::*;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use std::collections::BTreeMap;

const PREFIXES: [&[u8]; 9] = [
    &[],
    &[0x66],
    &[0xf3],
    &[0xf2],
    &[0x64],
    &[0x65],
    &[0x2e],
    &[0x67],
    &[0xf0],
];

/// Prefixes that only 64-bit code has (SDM Vol. 2A, 2.2.1 "REX Prefixes"), and those of 32-bit code.
const PREFIXES_64: [&[u8]; 17] = [
    &[],
    &[0x48],
    &[0x41],
    &[0x44],
    &[0x42],
    &[0x4f],
    &[0x40],
    &[0x66, 0x45],
    &[0xf3, 0x48],
    &[0xf2, 0x48],
    &[0x65, 0x48],
    &[0x64, 0x4d],
    &[0xf0, 0x48],
    &[0x66],
    &[0xf3],
    &[0xf2],
    &[0x67],
];

/// A small generator of numbers, the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // Knuth, "The Art of Computer Programming", 3.3.4: MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// A machine's width of addresses, and modes of its code.
#[derive(Clone, Copy)]
struct Machine {
    width: LinearWidth,
    modes: &'static [Mode],
}

impl Machine {
    fn is_64(self) -> bool {
        self.modes.iter().all(|mode| mode.is_64())
    }

    fn prefixes(self) -> &'static [&'static [u8]] {
        match self.is_64() {
            true => &PREFIXES_64,
            false => &PREFIXES,
        }
    }
}

const MACHINES: [Machine; 3] = [
    Machine {
        width: LinearWidth::Bits32,
        modes: &NARROW,
    },
    Machine {
        width: LinearWidth::Bits48,
        modes: &COMPATIBLE,
    },
    Machine {
        width: LinearWidth::Bits48,
        modes: &LONG,
    },
];

/// Checks the code emitted for `guest`; returns the number of modes in which any was.
fn passes(
    bench: &mut Bench,
    failures: &mut BTreeMap<String, usize>,
    modes: &[Mode],
    guest: &[u8],
    at: u32,
) -> u32 {
    let mut emitted = 0;
    for &mode in modes {
        let Some((emission, _)) = bench.emit(guest, at, mode) else {
            continue;
        };
        emitted += 1;
        if let Err(violation) = bench.check(&emission) {
            *failures
                .entry(describe(guest, &emission, &violation))
                .or_default() += 1;
        }
    }
    emitted
}

fn describe(guest: &[u8], emission: &Emission, violation: &Violation) -> String {
    let list = |bits, bytes: &[u8], ip: u32| {
        let mut formatter = GasFormatter::new();
        let mut text = String::new();
        for instruction in Decoder::with_ip(bits, bytes, ip.into(), DecoderOptions::NONE) {
            text += &format!("\n  {:#x} ", instruction.ip());
            formatter.format(&instruction, &mut text);
        }
        text
    };
    let [hot, cold] = &emission.code;
    format!(
        "{violation}\nguest {guest:02x?}{}\nhot{}\ncold{}",
        list(
            if emission.mode.is_64() { 64 } else { 32 },
            &guest[..guest.len().min(12)],
            emission.at
        ),
        list(64, hot, emission.origins[0]),
        list(64, cold, emission.origins[1])
    )
}

fn report(failures: BTreeMap<String, usize>) {
    for (text, _) in failures.iter().take(4) {
        eprintln!("{text}\n");
    }
    assert!(failures.is_empty(), "{} kinds of failures", failures.len());
}

#[test]
fn every_encoding_alone() {
    let [narrow, _, _] = MACHINES;
    every_encoding(narrow);
}

#[test]
fn every_encoding_alone_with_wide_tables() {
    let [_, compatible, _] = MACHINES;
    every_encoding(compatible);
}

#[test]
fn every_encoding_of_64_bit_code_alone() {
    let [_, _, long] = MACHINES;
    every_encoding(long);
}

fn every_encoding(machine: Machine) {
    let (mut bench, mut failures) = (Bench::new(machine.width), BTreeMap::new());
    let mut numbers = Numbers(1);
    let mut emitted = 0;
    for &prefix in machine.prefixes() {
        for opcode in 0..512_u32 {
            let escape: &[u8] = if opcode < 256 { &[] } else { &[0x0f] };
            for modrm in 0..256_u32 {
                // All forms without prefix, in one mode or another; some with one, in all.
                let modes = match prefix {
                    [] => {
                        std::slice::from_ref(&machine.modes[modrm as usize % machine.modes.len()])
                    }
                    _ if numbers.next().is_multiple_of(16) => machine.modes,
                    _ => continue,
                };
                let mut guest = [prefix, escape, &[opcode as u8, modrm as u8]].concat();
                guest.extend(numbers.bytes::<6>());
                guest.extend([0xc3; 4]);
                emitted += passes(&mut bench, &mut failures, modes, &guest, 0x123);
            }
        }
        for guest in longer_opcodes(prefix, &mut numbers) {
            emitted += passes(&mut bench, &mut failures, machine.modes, &guest, 0x123);
        }
    }
    report(failures);
    let modes = machine.modes.len() as u32;
    assert!(emitted > 33_000 * modes, "only {emitted}");
}

/// Every opcode of the three-byte maps behind `prefix`, with two ModR/M bytes each.
fn longer_opcodes(prefix: &[u8], numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let maps = [[0x0f, 0x38], [0x0f, 0x3a]];
    let opcodes = maps
        .into_iter()
        .flat_map(|map| (0..=0xff).map(move |opcode| (map, opcode)));
    let once = |(map, opcode): ([u8; 2], u8), numbers: &mut Numbers| {
        let operands = numbers.bytes::<7>();
        [prefix, &map, &[opcode], &operands, &[0xc3; 4]].concat()
    };
    opcodes
        .flat_map(|opcode| [once(opcode, numbers), once(opcode, numbers)])
        .collect()
}

/// Instructions of which anything is emitted in `machine`, one encoding each.
fn emittable(bench: &mut Bench, numbers: &mut Numbers, machine: Machine) -> Vec<Vec<u8>> {
    let prefixes = machine.prefixes();
    let bits = if machine.is_64() { 64 } else { 32 };
    let mut all = Vec::new();
    for _ in 0..20_000 {
        let prefix = match numbers.next() as usize % (2 * prefixes.len() - 2) {
            prefix if prefix < prefixes.len() => prefix,
            _ => 0,
        };
        let opcode = numbers.next();
        let escape: &[u8] = if opcode & 0x300 == 0 { &[0x0f] } else { &[] };
        let mut bytes = [prefixes[prefix], escape, &numbers.bytes::<8>()].concat();
        bytes.truncate(12);
        let mut decoder = Decoder::new(bits, &bytes, DecoderOptions::NONE);
        let length = decoder.decode().len();
        let emitted = bench.emit(&bytes, 0x100, machine.modes[0]).is_some();
        if !decoder.decode().is_invalid() && emitted {
            all.push(bytes[..length].to_vec());
        }
    }
    all
}

#[test]
fn sequences_anywhere_in_a_page() {
    for machine in MACHINES {
        sequences(machine);
    }
}

fn sequences(machine: Machine) {
    let (mut bench, mut failures) = (Bench::new(machine.width), BTreeMap::new());
    let mut numbers = Numbers(2);
    let instructions = emittable(&mut bench, &mut numbers, machine);
    assert!(instructions.len() > 5_000, "only {}", instructions.len());
    let mut emitted = 0;
    for _ in 0..20_000 {
        let mut guest = Vec::new();
        for _ in 0..numbers.next() % 12 + 1 {
            let index = numbers.next() as usize % instructions.len();
            guest.extend(&instructions[index]);
        }
        let at = match numbers.next() % 2 {
            0 => numbers.next() % 4096,
            _ => 4095 - numbers.next() % 16,
        };
        guest.truncate(4096 - at as usize + fragment::TAIL_BYTES);
        emitted += passes(&mut bench, &mut failures, machine.modes, &guest, at as u32);
    }
    report(failures);
    assert!(emitted > 20_000, "only {emitted}");
}
