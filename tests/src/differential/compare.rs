//! What has to agree, and how a disagreement is told.
//!
//! Everything is compared but:
//! * status flags that the manual leaves undefined at that point ([`super::flags`]);
//! * in the FXSAVE image: FOP, FIP, FCS, FDP and FDS (bytes 6 to 23), the pointers to the last x87 instruction. AMD
//!   processors keep them in their own way, and a kernel that switches tasks with 64-bit XSAVE drops the selectors.
//!   MXCSR_MASK (bytes 28 to 31), a property of the model. Bytes from 288 on, which the 32-bit format leaves undefined.

use super::case::{Case, Exception, Outcome, SEGMENT_NAMES};
use super::flags::{self, AC, DF, ID, NT, RF, STATUS, TF};
use super::layout::EXIT;
use std::fmt::Write as _;

/// Names of the general registers in encoding order.
pub const REGISTER_NAMES: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];

/// Fields of the FXSAVE image that are compared: name, offset, length (SDM Vol. 1, 10.5.1 "FXSAVE Area").
const FX_FIELDS: [(&str, usize, usize); 4] = [
    ("fcw", 0, 2),
    ("fsw", 2, 2),
    ("ftw", 4, 1),
    ("mxcsr", 24, 4),
];
/// Offset and stride of the x87 registers, and the bytes of one.
const ST: (usize, usize, usize) = (32, 16, 10);
/// Offset and stride of the XMM registers, and the bytes of one.
const XMM: (usize, usize, usize) = (160, 16, 16);

/// What the real CPU and an engine disagree about; empty if they agree.
pub fn differences(case: &Case, real: &Outcome, engine: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare =
        |name: &str, real: &dyn std::fmt::LowerHex, engine: &dyn std::fmt::LowerHex| {
            let (real, engine) = (format!("{real:x}"), format!("{engine:x}"));
            if real != engine {
                found.push(format!("{name}: real {real}, engine {engine}"));
            }
        };
    for (index, name) in REGISTER_NAMES.iter().enumerate() {
        compare(name, &real.end.gpr[index], &engine.end.gpr[index]);
    }
    compare("eip", &real.end.eip, &engine.end.eip);
    for (index, name) in SEGMENT_NAMES.iter().enumerate() {
        compare(name, &real.end.segments[index], &engine.end.segments[index]);
    }
    let mask = flags_mask(case, real);
    compare(
        "eflags",
        &(real.end.eflags & mask),
        &(engine.end.eflags & mask),
    );
    let (real_fx, engine_fx) = (&real.end.fx, &engine.end.fx);
    for (name, at, length) in FX_FIELDS {
        compare(
            name,
            &Hex(&real_fx[at..at + length]),
            &Hex(&engine_fx[at..at + length]),
        );
    }
    for (name, (at, stride, length)) in [("st", ST), ("xmm", XMM)] {
        for index in 0..8 {
            let field = at + index * stride..at + index * stride + length;
            compare(
                &format!("{name}{index}"),
                &Hex(&real_fx[field.clone()]),
                &Hex(&engine_fx[field]),
            );
        }
    }
    if real.exception != engine.exception {
        found.push(format!(
            "exception: real {}, engine {}",
            describe(real.exception.as_ref()),
            describe(engine.exception.as_ref())
        ));
    }
    found.extend(memory_differences(case, real, engine));
    found
}

/// The flags that are compared. At the exit, RF is that of the way out. A 16-bit transfer leaves the code at a point that
/// is not known: then all flags count that are undefined anywhere.
fn flags_mask(case: &Case, real: &Outcome) -> u32 {
    let undefined = match flags::undefined(&case.code, case.start.eip, 0) {
        Ok(before) => match before.get(&real.end.eip) {
            Some(&here) => here,
            None => before.values().fold(0, |all, here| all | here),
        },
        Err(_) => STATUS,
    };
    let resume = if real.end.eip == EXIT { 0 } else { RF };
    (STATUS & !undefined) | DF | NT | AC | ID | TF | resume
}

fn memory_differences(case: &Case, real: &Outcome, engine: &Outcome) -> Vec<String> {
    if real.changes == engine.changes {
        return Vec::new();
    }
    let after = |outcome: &Outcome, address| {
        outcome
            .changes
            .iter()
            .find(|change| change.address == address)
            .map_or(case.template.dword(address), |change| change.value)
    };
    let mut addresses: Vec<u32> = real
        .changes
        .iter()
        .chain(&engine.changes)
        .map(|change| change.address)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
        .into_iter()
        .filter(|&address| after(real, address) != after(engine, address))
        .map(|address| {
            let (was, real, engine) = (
                case.template.dword(address),
                after(real, address),
                after(engine, address),
            );
            format!("[{address:08x}]: was {was:08x}, real {real:08x}, engine {engine:08x}")
        })
        .collect()
}

/// An exception in words.
pub fn describe(exception: Option<&Exception>) -> String {
    match exception {
        None => "none".to_owned(),
        Some(Exception {
            vector,
            error,
            address,
        }) => format!("vector {vector} error {error:x} address {address:08x}"),
    }
}

/// Bytes as one little-endian number.
struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The case in full: the state it starts from and its code, disassembled.
pub fn show(case: &Case) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
    let mut text = String::new();
    let start = &case.start;
    for (name, value) in REGISTER_NAMES.iter().zip(start.gpr) {
        let _ = write!(text, "{name}={value:08x} ");
    }
    let _ = write!(text, "eflags={:08x}", start.eflags);
    for (name, value) in SEGMENT_NAMES.iter().zip(start.segments) {
        let _ = write!(text, " {name}={value:04x}");
    }
    for (name, at, length) in FX_FIELDS {
        let _ = write!(text, " {name}={:x}", Hex(&start.fx[at..at + length]));
    }
    text.push('\n');
    for (name, (at, stride, length)) in [("st", ST), ("xmm", XMM)] {
        for index in 0..8 {
            let _ = write!(
                text,
                "{name}{index}={:x} ",
                Hex(&start.fx[at + index * stride..][..length])
            );
        }
        text.push('\n');
    }
    let mut decoder = Decoder::with_ip(32, &case.code, u64::from(start.eip), DecoderOptions::NONE);
    let mut formatter = GasFormatter::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let at = (instruction.ip32() - start.eip) as usize;
        let bytes: String = case.code[at..at + instruction.len()]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        let _ = writeln!(text, "  {:08x} {bytes:<24} {line}", instruction.ip32());
    }
    text
}
