//! Cases and outcomes as bytes: the records that the native program and the ring-0 program exchange with the host.

use super::case::{
    Case, Change, Exception, FX_SIZE, Outcome, PAGE_FAULT, Pointers, SS, State, Template,
};
use super::layout::{
    CODE, CODE_BYTES, IN_CODE, IN_CODE_AT, IN_CODE_LENGTH, IN_CS, IN_DS, IN_EAX, IN_EFLAGS, IN_EIP,
    IN_FX, IN_SIZE, IN_SS, MAX_CODE, OUT_CR2, OUT_CS, OUT_DS, OUT_EAX, OUT_EFLAGS, OUT_EIP,
    OUT_ERROR, OUT_FX, OUT_SIGNAL, OUT_TRAP,
};

/// One case as a record of [`IN_SIZE`] bytes.
pub fn case_record(case: &Case) -> Vec<u8> {
    assert!(
        case.code.len() <= MAX_CODE,
        "code of {} bytes",
        case.code.len()
    );
    assert!(
        case.at.wrapping_sub(CODE) as usize + case.code.len() <= CODE_BYTES as usize,
        "code leaves its pages"
    );
    let mut record = vec![0; IN_SIZE as usize];
    let mut put =
        |offset: u32, bytes: &[u8]| record[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    for (index, value) in (0u32..).zip(case.start.gpr) {
        put(IN_EAX + 4 * index, &value.to_le_bytes());
    }
    put(IN_EFLAGS, &case.start.eflags.to_le_bytes());
    for (index, selector) in (0u32..4).zip(case.start.segments) {
        put(IN_DS + 4 * index, &selector.to_le_bytes());
    }
    put(IN_CODE_AT, &case.at.to_le_bytes());
    put(IN_EIP, &case.start.eip.to_le_bytes());
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
    [(start.gpr[4], start.segments[SS]), (start.eip, start.cs)]
        .into_iter()
        .flat_map(|(offset, selector)| [offset, u32::from(selector)])
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

/// The outcome in a record; [`OUT_SIGNAL`] is 0 if there was no exception.
pub fn outcome(record: &[u8], changes: Vec<Change>) -> Outcome {
    let end = State {
        gpr: std::array::from_fn(|index| word(record, OUT_EAX + 4 * index as u32)),
        cs: word(record, OUT_CS) as u16,
        eip: word(record, OUT_EIP),
        eflags: word(record, OUT_EFLAGS),
        segments: std::array::from_fn(|index| word(record, OUT_DS + 4 * index as u32) as u16),
        fx: record[OUT_FX as usize..][..FX_SIZE]
            .try_into()
            .expect("an FXSAVE image"),
    };
    let exception = (word(record, OUT_SIGNAL) != 0).then(|| {
        let vector = word(record, OUT_TRAP) as u8;
        let address = if vector == PAGE_FAULT {
            word(record, OUT_CR2)
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
