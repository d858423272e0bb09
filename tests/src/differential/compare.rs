//! The comparison of outcomes, and the text of a disagreement.
//!
//! Engines are compared with each other in everything, what the manual leaves undefined included: code moves between them in
//! mid-flight. With the real CPU they are compared in what is defined. What is left out, and why, is in
//! [`super::exclusions::NOT_COMPARED`].

use super::case::{
    Case, DS, ES, Exception, FS, FX_SIZE, GS, Outcome, PAGE_FAULT, Pointers, SEGMENT_NAMES, SS,
};
use super::flags::{self, AC, DF, ID, NT, RF, STATUS, TF};
use super::layout::{EXIT, EXIT_FAR, TASK_END};
use super::mode::Mode;
use iced_x86::{Formatter, GasFormatter, Instruction, Mnemonic};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

/// Names of the general registers of 32-bit code in encoding order.
const REGISTER_NAMES_32: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
/// Names of the general registers of 64-bit code in encoding order.
const REGISTER_NAMES_64: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Names of the general registers in encoding order.
pub fn register_names(mode: Mode) -> &'static [&'static str] {
    if mode.is_64() {
        &REGISTER_NAMES_64
    } else {
        &REGISTER_NAMES_32
    }
}

/// Fields of the FXSAVE image before the pointers: name, offset, length (SDM Vol. 1, 10.5.1 "FXSAVE Area").
const FX_FIELDS: [(&str, usize, usize); 3] = [("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1)];
/// The pointers to the last x87 instruction in the FXSAVE image.
const POINTERS: [(&str, usize, usize); 5] = [
    ("fip", 8, 4),
    ("fdp", 16, 4),
    ("fop", 6, 2),
    ("fcs", 12, 2),
    ("fds", 20, 2),
];
/// Offset of MXCSR in the FXSAVE image.
const MXCSR: usize = 24;
/// The exception flags in the lowest byte of MXCSR.
const MXCSR_FLAGS: u8 = 0x3f;
/// Vector of #XM.
const SIMD_ERROR: u8 = 19;
/// MXCSR_MASK in the FXSAVE image.
const MXCSR_MASK: Range<usize> = 28..32;
/// Offset and stride of the x87 registers, and the bytes of one.
const ST: (usize, usize, usize) = (32, 16, 10);
/// Offset and stride of the XMM registers, and the bytes of one.
const XMM: (usize, usize, usize) = (160, 16, 16);

/// The two sides of a comparison, as reports name them.
type Names<'n> = [&'n str; 2];

/// Describes the differences between the real CPU and an engine in what is defined; empty if they agree.
pub fn differences(case: &Case, real: &Outcome, engine: &Outcome) -> Vec<String> {
    const NAMES: Names<'_> = ["real", "engine"];
    let flags = flags_mask(case, real);
    let mut seen = as_signal_handler_sees(case, engine);
    if ends_in_dot_product(case, real) {
        copy_simd_flags(&mut seen.to_mut().end.fx, &real.end.fx);
    }
    let mut found = state_differences(NAMES, case.mode(), real, &seen, flags);
    if !same_exception(case, real, engine) {
        found.push(exception_difference(NAMES, real, engine));
    }
    let scratch = scratch_of_far_call(case, real);
    found.extend(memory_differences(NAMES, case, real, engine, &scratch));
    found
}

/// `outcome` as a signal handler of 64-bit code finds it: the signal frame holds neither DS, ES, FS nor GS, and IRET to the handler
/// has loaded 0 where they held 1 to 3, null selectors, too.
fn as_signal_handler_sees<'o>(case: &Case, outcome: &'o Outcome) -> Cow<'o, Outcome> {
    let mut seen = Cow::Borrowed(outcome);
    if case.mode().is_64() && outcome.exception.is_some() {
        for index in [DS, ES, FS, GS] {
            if let 1..=3 = outcome.end.segments[index] {
                seen.to_mut().end.segments[index] = 0;
            }
        }
    }
    seen
}

/// Whether the case ends by a SIMD exception of DPPS or DPPD, which the real CPU looks for step by step: it reports what it has found
/// up to the first step that has one unmasked, the emulator what all steps find.
fn ends_in_dot_product(case: &Case, real: &Outcome) -> bool {
    let is_simd = real
        .exception
        .is_some_and(|exception| exception.vector == SIMD_ERROR);
    is_simd
        && instruction_at(case, real).is_some_and(|instruction| {
            matches!(instruction.mnemonic(), Mnemonic::Dpps | Mnemonic::Dppd)
        })
}

/// Copies the exception flags of MXCSR from one FXSAVE image to another.
fn copy_simd_flags(to: &mut [u8; FX_SIZE], from: &[u8; FX_SIZE]) {
    to[MXCSR] = to[MXCSR] & !MXCSR_FLAGS | from[MXCSR] & MXCSR_FLAGS;
}

/// Describes all differences between two engines, which have to agree in what is undefined, too.
pub fn engine_differences(
    names: Names<'_>,
    case: &Case,
    first: &Outcome,
    second: &Outcome,
) -> Vec<String> {
    let mut found = state_differences(names, case.mode(), first, second, u32::MAX);
    let masks = [first, second].map(|outcome| &outcome.end.fx[MXCSR_MASK]);
    if masks[0] != masks[1] {
        found.push("mxcsr_mask".to_owned());
    }
    if first.exception != second.exception {
        found.push(exception_difference(names, first, second));
    }
    found.extend(memory_differences(names, case, first, second, &(0..0)));
    found
}

/// Compares registers, the flags in `flags`, and the FXSAVE image but for what [`super::exclusions`] lists.
fn state_differences(
    [first_name, second_name]: Names<'_>,
    mode: Mode,
    first: &Outcome,
    second: &Outcome,
    flags: u32,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare =
        |name: &str, first: &dyn std::fmt::LowerHex, second: &dyn std::fmt::LowerHex| {
            let (first, second) = (format!("{first:x}"), format!("{second:x}"));
            if first != second {
                found.push(format!(
                    "{name}: {first_name} {first}, {second_name} {second}"
                ));
            }
        };
    for (index, name) in register_names(mode).iter().enumerate() {
        compare(name, &first.end.gpr[index], &second.end.gpr[index]);
    }
    compare("cs", &first.end.cs, &second.end.cs);
    compare("rip", &first.end.rip, &second.end.rip);
    compare("fs base", &first.end.bases[0], &second.end.bases[0]);
    compare("gs base", &first.end.bases[1], &second.end.bases[1]);
    for (index, name) in SEGMENT_NAMES.iter().enumerate() {
        compare(
            name,
            &first.end.segments[index],
            &second.end.segments[index],
        );
    }
    compare(
        "eflags",
        &(first.end.eflags & flags),
        &(second.end.eflags & flags),
    );
    let pointers = match first.pointers.min(second.pointers) {
        Pointers::Unknown => &[],
        Pointers::Addresses => &POINTERS[..2],
        Pointers::All => &POINTERS[..],
    };
    let pointers = pointers
        .iter()
        .map(|&(name, at, length)| (name.to_owned(), at..at + length));
    for (name, field) in fx_fields(mode).chain(pointers) {
        compare(
            &name,
            &Hex(&first.end.fx[field.clone()]),
            &Hex(&second.end.fx[field]),
        );
    }
    found
}

/// The fields of the FXSAVE image that are always compared, reserved ones included.
fn fx_fields(mode: Mode) -> impl Iterator<Item = (String, Range<usize>)> {
    let control = [
        ("fcw", 0..2),
        ("fsw", 2..4),
        ("ftw", 4..5),
        ("reserved byte 5", 5..6),
        ("mxcsr", MXCSR..MXCSR + 4),
        (
            "reserved bytes behind XMM registers",
            XMM.0 + mode.registers() * XMM.1..FX_SIZE,
        ),
    ];
    let registers = [("st", ST, 8), ("xmm", XMM, mode.registers())];
    let registers = registers
        .into_iter()
        .flat_map(|(name, (at, stride, _), count)| {
            (0..count).map(move |index| {
                let field = at + index * stride..at + (index + 1) * stride;
                (format!("{name}{index}"), field)
            })
        });
    control
        .into_iter()
        .map(|(name, field)| (name.to_owned(), field))
        .chain(registers)
}

fn exception_difference(
    [first_name, second_name]: Names<'_>,
    first: &Outcome,
    second: &Outcome,
) -> String {
    format!(
        "exception: {first_name} {}, {second_name} {}",
        describe(first.exception.as_ref()),
        describe(second.exception.as_ref())
    )
}

/// Whether both sides took the same exception, as far as the manual says which.
fn same_exception(case: &Case, real: &Outcome, engine: &Outcome) -> bool {
    match (real.exception, engine.exception) {
        (Some(real_one), Some(engine_one)) => {
            let order_is_open = real.end.rip == engine.end.rip
                && is_memory_fault(&real_one)
                && is_memory_fault(&engine_one)
                && instruction_at(case, real)
                    .is_some_and(|instruction| is_cmps(&instruction) || is_call(&instruction));
            as_linux_tells(real_one) == as_linux_tells(engine_one) || order_is_open
        }
        (None, None) => true,
        _ => false,
    }
}

/// `exception` as Linux tells a process of it: a page fault beyond its addresses always as a protection violation
/// (sanitize_error_code in arch/x86/mm/fault.c).
fn as_linux_tells(exception: Exception) -> Exception {
    const PROTECTION: u32 = 1 << 0;
    match exception {
        Exception {
            vector: PAGE_FAULT,
            error,
            address: TASK_END..,
        } => Exception {
            error: error | PROTECTION,
            ..exception
        },
        _ => exception,
    }
}

/// Whether the exception is one of memory accesses: #SS, #GP, #PF or #AC.
fn is_memory_fault(exception: &Exception) -> bool {
    matches!(exception.vector, 12 | 13 | 14 | 17)
}

/// Whether the instruction is CMPS, which reads two operands. If both fault, the manual does not say which fault is reported
/// (SDM Vol. 3A, 6.9: exceptions found while an instruction executes are in one class). The emulator reports the destination's;
/// the host's answer depends on prefixes, with REPE CMPSB it is often the source's.
fn is_cmps(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Cmpsb | Mnemonic::Cmpsw => true,
        Mnemonic::Cmpsd => instruction.is_string_instruction(),
        _ => false,
    }
}

/// Whether the instruction is CALL. If the return address cannot be pushed and the target lies beyond the limit of its segment,
/// AMD processors report the push, and the emulator the target, as Intel's manual has it.
fn is_call(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Call)
}

/// The instruction of the case at which `outcome` ended.
fn instruction_at(case: &Case, outcome: &Outcome) -> Option<Instruction> {
    let position = case.position(outcome.end.cs, outcome.end.rip);
    case.pieces()
        .flat_map(|piece| piece.instructions().collect::<Vec<_>>())
        .find(|instruction| instruction.ip32() == position)
}

/// The flags that are compared. At the exit, RF is that of the way out. A 16-bit transfer leaves the code at a point that
/// is not known: then all flags count that are undefined anywhere.
fn flags_mask(case: &Case, real: &Outcome) -> u32 {
    let pieces: Vec<_> = case.pieces().collect();
    let undefined = match flags::undefined(&pieces, 0) {
        Ok(before) => match before.get(&case.position(real.end.cs, real.end.rip)) {
            Some(&here) => here,
            None => before.values().fold(0, |all, here| all | here),
        },
        Err(_) => STATUS,
    };
    let exits = [EXIT, EXIT_FAR].map(|exit| case.mode().places()[case.place()] + u64::from(exit));
    let resume = if exits.contains(&real.end.rip) { 0 } else { RF };
    (STATUS & !undefined) | DF | NT | AC | ID | TF | resume
}

/// Compares memory outside `ignored`.
fn memory_differences(
    [first_name, second_name]: Names<'_>,
    case: &Case,
    first: &Outcome,
    second: &Outcome,
    ignored: &Range<u64>,
) -> Vec<String> {
    if first.changes == second.changes {
        return Vec::new();
    }
    let after = |outcome: &Outcome, address| {
        outcome
            .changes
            .iter()
            .find(|change| change.address == address)
            .map_or(case.template.dword(address), |change| change.value)
    };
    let mut addresses: Vec<u64> = first
        .changes
        .iter()
        .chain(&second.changes)
        .map(|change| change.address)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
        .into_iter()
        .filter(|&address| after(first, address) != after(second, address))
        .filter(|address| !ignored.contains(address))
        .map(|address| {
            let (was, first, second) = (
                case.template.dword(address),
                after(first, address),
                after(second, address),
            );
            format!(
                "[{address:08x}]: was {was:08x}, {first_name} {first:08x}, {second_name} {second:08x}"
            )
        })
        .collect()
}

/// The doublewords below the stack pointer that a far CALL may have written before it faulted: AMD processors push the return
/// address before they compare the target with the limit of its segment, Intel's manual has it the other way round.
fn scratch_of_far_call(case: &Case, real: &Outcome) -> Range<u64> {
    /// Bytes of the widest return address, and of a doubleword that it may share.
    const PUSHED: u64 = 8 + 3;
    if case.mode().is_64() {
        return 0..0;
    }
    let is_far_call =
        |instruction: Instruction| instruction.is_call_far() || instruction.is_call_far_indirect();
    let faulted = real.exception.is_some() && instruction_at(case, real).is_some_and(is_far_call);
    let stack = case.segment(real.end.segments[SS]).filter(|_| faulted);
    stack.map_or(0..0, |stack| {
        let esp = real.end.gpr[4] as u32;
        let top = stack
            .base
            .wrapping_add(if stack.big { esp } else { esp & 0xffff });
        u64::from(top).saturating_sub(PUSHED)..top.into()
    })
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
    let mut text = String::new();
    let start = &case.start;
    for (name, value) in register_names(case.mode()).iter().zip(start.gpr) {
        let _ = write!(text, "{name}={value:08x} ");
    }
    let _ = write!(
        text,
        "flags={:08x} cs={:04x} ip={:08x}",
        start.eflags, start.cs, start.rip
    );
    for (name, value) in SEGMENT_NAMES.iter().zip(start.segments) {
        let _ = write!(text, " {name}={value:04x}");
    }
    if case.mode().is_64() {
        let [fs, gs] = start.bases;
        let _ = write!(text, " fs_base={fs:x} gs_base={gs:x}");
    }
    let _ = write!(text, " mxcsr={:x}", Hex(&start.fx[MXCSR..MXCSR + 4]));
    for (name, at, length) in FX_FIELDS {
        let _ = write!(text, " {name}={:x}", Hex(&start.fx[at..at + length]));
    }
    text.push('\n');
    let xmm = case.mode().registers();
    for (name, (at, stride, length), count) in [("st", ST, 8), ("xmm", XMM, xmm)] {
        for index in 0..count {
            let _ = write!(
                text,
                "{name}{index}={:x} ",
                Hex(&start.fx[at + index * stride..][..length])
            );
        }
        text.push('\n');
    }
    for selector in case.selectors() {
        if let Some(segment) = case.segment(selector) {
            let _ = writeln!(text, "{selector:04x}: {segment:x?}");
        }
    }
    let mut formatter = GasFormatter::new();
    for piece in case.pieces() {
        for instruction in piece.instructions() {
            let at = instruction.ip() as usize;
            let bytes: String = case.code[at..at + instruction.len()]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            let linear = case.at + at as u64;
            let _ = writeln!(text, "  {linear:08x} {}: {bytes:<24} {line}", piece.bits);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::case::{Change, SANDBOX_BYTES, State, Template};
    use super::super::layout::{CODE, FLAT_CODE, SANDBOX};
    use super::super::segments::LocalTable;
    use super::*;
    use std::sync::Arc;

    /// `daa`, which leaves OF undefined.
    fn case() -> Case {
        let start = State {
            gpr: [0; 16],
            cs: FLAT_CODE,
            rip: CODE.into(),
            eflags: 2,
            segments: [0; 5],
            bases: [0; 2],
            fx: [0; 512],
        };
        let sandbox = vec![0; SANDBOX_BYTES];
        let template = Template::new(Mode::Protected, sandbox, LocalTable::default());
        let template = Arc::new(template);
        Case {
            start,
            at: CODE.into(),
            code: vec![0x27, 0x90],
            units: Vec::new(),
            last_code_segment: FLAT_CODE,
            template,
        }
    }

    fn outcome(case: &Case) -> Outcome {
        let end = State {
            rip: u64::from(CODE + 2),
            ..case.start.clone()
        };
        Outcome {
            end,
            exception: None,
            changes: Vec::new(),
            pointers: Pointers::All,
        }
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let case = case();
        let real = outcome(&case);
        let spoil: [fn(&mut Outcome); 9] = [
            |outcome| outcome.end.gpr[3] ^= 1,
            |outcome| outcome.end.rip += 1,
            |outcome| outcome.end.bases[1] = 1,
            |outcome| outcome.end.eflags ^= flags::CF,
            |outcome| outcome.end.segments[2] = 0x2b,
            |outcome| outcome.end.fx[32] = 1,
            |outcome| outcome.end.fx[8] = 1,
            |outcome| {
                outcome.exception = Some(Exception {
                    vector: 6,
                    error: 0,
                    address: 0,
                })
            },
            |outcome| {
                outcome.changes.push(Change {
                    address: u64::from(SANDBOX + 0x1000),
                    value: 1,
                })
            },
        ];
        assert_eq!(differences(&case, &real, &real), Vec::<String>::new());
        for spoil in spoil {
            let mut engine = real.clone();
            spoil(&mut engine);
            assert_eq!(differences(&case, &real, &engine).len(), 1);
        }
    }

    #[test]
    fn undefined_flags_and_unknown_x87_pointers_do_not_count() {
        let case = case();
        let real = Outcome {
            pointers: Pointers::Unknown,
            ..outcome(&case)
        };
        let mut engine = real.clone();
        engine.end.eflags ^= flags::OF;
        engine.end.fx[8] = 1;
        assert_eq!(differences(&case, &real, &engine), Vec::<String>::new());
    }
}
