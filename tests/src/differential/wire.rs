//! Cases and outcomes as bytes: the records that the native program and the ring-0 program exchange with the host.

use super::case::{
    Case, Change, Exception, FX_SIZE, Outcome, PAGE_FAULT, Pointers, SANDBOX_BYTES, SS, State,
    Template,
};
use super::layout::{
    CHANGE_SIZE, CODE, CODE_BYTES, IN_CODE, IN_CODE_AT, IN_CODE_LENGTH, IN_CS, IN_DS, IN_FS_BASE,
    IN_FX, IN_RAX, IN_RFLAGS, IN_RIP, IN_SIZE, IN_SS, MAX_CODE, OUT_CR2, OUT_CS, OUT_DS, OUT_ERROR,
    OUT_FS_BASE, OUT_FX, OUT_RAX, OUT_RFLAGS, OUT_RIP, OUT_SIGNAL, OUT_TRAP, SANDBOX,
};
use super::mode::Mode;

/// The offset of a case's code in the code pages of its place.
pub fn offset_in_place(case: &Case) -> u32 {
    let pages = case.mode().places()[case.place()] + u64::from(CODE);
    u32::try_from(case.at.wrapping_sub(pages)).unwrap_or(u32::MAX)
}

/// One case as a record of [`IN_SIZE`] bytes.
pub fn case_record(case: &Case) -> Vec<u8> {
    assert!(
        case.code.len() <= MAX_CODE,
        "code of {} bytes",
        case.code.len()
    );
    let at = offset_in_place(case);
    assert!(
        at as usize + case.code.len() <= CODE_BYTES as usize,
        "code leaves its pages"
    );
    let at = at + case.place() as u32 * CODE_BYTES;
    let mut record = vec![0; IN_SIZE as usize];
    let mut put =
        |offset: u32, bytes: &[u8]| record[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    for (index, value) in (0u32..).zip(case.start.gpr) {
        put(IN_RAX + 8 * index, &value.to_le_bytes());
    }
    put(IN_RFLAGS, &case.start.eflags.to_le_bytes());
    for (index, selector) in (0u32..4).zip(case.start.segments) {
        put(IN_DS + 4 * index, &selector.to_le_bytes());
    }
    for (index, base) in (0u32..).zip(case.start.bases) {
        put(IN_FS_BASE + 8 * index, &base.to_le_bytes());
    }
    put(IN_CODE_AT, &at.to_le_bytes());
    put(IN_RIP, &case.start.rip.to_le_bytes());
    put(IN_CS, &case.start.cs.to_le_bytes());
    put(IN_SS, &case.start.segments[SS].to_le_bytes());
    put(IN_CODE_LENGTH, &(case.code.len() as u32).to_le_bytes());
    put(IN_FX, &case.start.fx);
    put(IN_CODE, &case.code);
    record
}

/// The LDT as an array of Linux's `struct user_desc`: entry number, base, limit and flags.
pub fn user_descriptors(template: &Template) -> Vec<u8> {
    (0u32..)
        .zip(template.segments.entries())
        .flat_map(|(number, entry)| [number, entry.base, entry.limit, entry.flags])
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// The LDT as the processor reads it.
pub fn descriptors(template: &Template) -> Vec<u8> {
    let entries = template.segments.entries().iter();
    entries
        .flat_map(|entry| entry.descriptor().to_le_bytes())
        .collect()
}

/// SS:ESP and CS:EIP at the start, as two far pointers of eight bytes each.
pub fn entry_pointers(case: &Case) -> Vec<u8> {
    let start = &case.start;
    [(start.gpr[4], start.segments[SS]), (start.rip, start.cs)]
        .into_iter()
        .flat_map(|(offset, selector)| [offset as u32, u32::from(selector)])
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// The doubleword at `offset` of a record.
pub fn word(record: &[u8], offset: u32) -> u32 {
    u32::from_le_bytes(
        record[offset as usize..][..4]
            .try_into()
            .expect("four bytes"),
    )
}

/// The quadword at `offset` of a record.
pub fn quad(record: &[u8], offset: u32) -> u64 {
    u64::from(word(record, offset)) | u64::from(word(record, offset + 4)) << 32
}

/// The changes in a list of [`CHANGE_SIZE`] bytes each: offsets in the template of `mode`, and values.
pub fn changes(mode: Mode, list: &[u8]) -> Vec<Change> {
    list.chunks_exact(CHANGE_SIZE as usize)
        .map(|change| {
            let at = word(change, 0);
            let base = mode.places()[at as usize / SANDBOX_BYTES];
            Change {
                address: base + u64::from(SANDBOX + at % SANDBOX_BYTES as u32),
                value: word(change, 4),
            }
        })
        .collect()
}

/// The outcome in a record; [`OUT_SIGNAL`] is 0 if there was no exception.
pub fn outcome(record: &[u8], changes: Vec<Change>) -> Outcome {
    let end = State {
        gpr: std::array::from_fn(|index| quad(record, OUT_RAX + 8 * index as u32)),
        cs: word(record, OUT_CS) as u16,
        rip: quad(record, OUT_RIP),
        eflags: word(record, OUT_RFLAGS),
        segments: std::array::from_fn(|index| word(record, OUT_DS + 4 * index as u32) as u16),
        bases: std::array::from_fn(|index| quad(record, OUT_FS_BASE + 8 * index as u32)),
        fx: record[OUT_FX as usize..][..FX_SIZE]
            .try_into()
            .expect("an FXSAVE image"),
    };
    let exception = (word(record, OUT_SIGNAL) != 0).then(|| {
        let vector = word(record, OUT_TRAP) as u8;
        let address = if vector == PAGE_FAULT {
            quad(record, OUT_CR2)
        } else {
            0
        };
        Exception {
            vector,
            error: word(record, OUT_ERROR),
            address,
        }
    });
    Outcome {
        end,
        exception,
        changes,
        pointers: Pointers::All,
    }
}
