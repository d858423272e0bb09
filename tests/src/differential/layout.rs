//! The memory layout, on the real CPU and in every engine: linear addresses, selectors, and the shared file.
//!
//! ```text
//!   0x0900_0000  exit page: the code of a case ends with a jump to it
//!   0x0900_1000  where the way into a case finds its CS:EIP and SS:ESP    (engines only)
//!   0x1000_0000  code: 2 pages, executable and read-only      (unmapped around)
//!   0x2000_0000  sandbox, 8 pages:  -  RW RW RO  -  RW RW  -
//!   0x6000_0000  the shared file (native program only)
//! ```
//!
//! The native program is compiled against [`c_header`], so the two sides cannot disagree.

use std::fmt::Write as _;

/// Bytes of a page.
pub const PAGE: u32 = 0x1000;
/// Linear address of the exit page; its first byte is where a case ends.
pub const EXIT: u32 = 0x0900_0000;
/// Linear address at which a case with segments of the LDT ends: HLT, which raises #GP.
pub const EXIT_FAR: u32 = EXIT + EXIT_FAR_OFFSET;
/// Offset of [`EXIT_FAR`] in the exit page.
pub const EXIT_FAR_OFFSET: u32 = 0x800;
/// Linear address of the way into a case in an engine: loads SS:ESP and CS:EIP from [`ENTRY`].
pub const ENTER: u32 = EXIT + ENTER_OFFSET;
/// Offset of [`ENTER`] in the exit page.
pub const ENTER_OFFSET: u32 = 0x900;
/// Linear address of the page with SS:ESP and CS:EIP of a case: two far pointers, eight bytes each.
pub const ENTRY: u32 = EXIT + PAGE;
/// Linear address of the first code page.
pub const CODE: u32 = 0x1000_0000;
/// Bytes of the code pages.
pub const CODE_BYTES: u32 = 2 * PAGE;
/// Byte that fills the code pages around the code of a case: INT3.
pub const FILLER: u8 = 0xcc;
/// Linear address of the sandbox.
pub const SANDBOX: u32 = 0x2000_0000;
/// Pages of the sandbox, mapped or not.
pub const SANDBOX_PAGES: u32 = 8;
/// Bit set of the sandbox pages that can be written.
pub const SANDBOX_WRITABLE: u32 = 0b0110_0110;
/// Bit set of the sandbox pages that can only be read.
pub const SANDBOX_READ_ONLY: u32 = 0b0000_1000;

/// Ring-3 flat code, as Linux sets it up for 32-bit programs on a 64-bit kernel.
pub const FLAT_CODE: u16 = 0x23;
/// Ring-3 flat data.
pub const FLAT_DATA: u16 = 0x2b;
/// Ring-3 data with a base and a limit of two pages.
pub const SEGMENT_LIMITED: u16 = 0x63;
/// Ring-3 expand-down data: offsets above the limit are valid.
pub const SEGMENT_DOWN: u16 = 0x6b;
/// Ring-3 read-only data.
pub const SEGMENT_READ_ONLY: u16 = 0x73;
/// Base of the three segments that are not flat.
pub const SEGMENT_BASE: u32 = SANDBOX + PAGE;
/// Limit of [`SEGMENT_LIMITED`].
pub const SEGMENT_LIMITED_LIMIT: u32 = 2 * PAGE - 1;
/// Limit of [`SEGMENT_DOWN`].
pub const SEGMENT_DOWN_LIMIT: u32 = PAGE - 1;
/// Limit of [`SEGMENT_READ_ONLY`].
pub const SEGMENT_READ_ONLY_LIMIT: u32 = 2 * PAGE - 1;

/// Entries of the LDT.
pub const LDT_ENTRIES: usize = 26;

/// Cases of one round trip to the native program.
pub const BATCH: usize = 1024;
/// Room for the code of one case.
pub const MAX_CODE: usize = 448;

/// Linear address of the shared file in the native program.
const SHARED: u32 = 0x6000_0000;
/// Linear address of the writable view of the code pages in the native program.
const CODE_ALIAS: u32 = 0x5000_0000;

/// Word index in the header of the shared file: number of cases in the batch.
pub const HEADER_COUNT: u32 = 0;
/// Word index in the header of the shared file: index of the case being run.
pub const HEADER_CURRENT: u32 = 1;
/// File offset of the LDT: [`LDT_ENTRIES`] times `struct user_desc`.
pub const SHARED_LDT: u32 = 64;
/// File offset of the code pages.
pub const SHARED_CODE: u32 = PAGE;
/// File offset of the template of the sandbox.
pub const SHARED_TEMPLATE: u32 = SHARED_CODE + CODE_BYTES;
/// File offset of the cases.
pub const SHARED_IN: u32 = SHARED_TEMPLATE + SANDBOX_PAGES * PAGE;
/// File offset of the outcomes.
pub const SHARED_OUT: u32 = SHARED_IN + BATCH as u32 * IN_SIZE;
/// File offset of the list of changed doublewords.
pub const SHARED_CHANGES: u32 = SHARED_OUT + BATCH as u32 * OUT_SIZE;
/// Bytes of one changed doubleword: address and value.
pub const CHANGE_SIZE: u32 = 8;
/// Bytes of the shared file: every case may change every doubleword that can be written.
pub const SHARED_SIZE: u32 =
    SHARED_CHANGES + BATCH as u32 * SANDBOX_WRITABLE.count_ones() * (PAGE / 4) * CHANGE_SIZE;

/// Offsets of the fields of one case in the shared file, in bytes.
pub const IN_EAX: u32 = 0;
/// EFLAGS at the start.
pub const IN_EFLAGS: u32 = 32;
/// DS at the start; ES, FS and GS follow, a doubleword each.
pub const IN_DS: u32 = 36;
/// Linear address of the code.
pub const IN_CODE_AT: u32 = 52;
/// Bytes of code.
pub const IN_CODE_LENGTH: u32 = 56;
/// EIP at the start.
pub const IN_EIP: u32 = 60;
/// CS at the start.
pub const IN_CS: u32 = 64;
/// SS at the start.
pub const IN_SS: u32 = 68;
/// FXSAVE image at the start.
pub const IN_FX: u32 = 80;
/// The code.
pub const IN_CODE: u32 = 592;
/// Bytes of one case.
pub const IN_SIZE: u32 = IN_CODE + MAX_CODE as u32;

/// Offsets of the fields of one outcome in the shared file, in bytes.
pub const OUT_EAX: u32 = 0;
/// EFLAGS at the end, or as the exception saved it.
pub const OUT_EFLAGS: u32 = 32;
/// EIP at the end, or as the exception saved it.
pub const OUT_EIP: u32 = 36;
/// DS at the end; ES, FS, GS and SS follow, a doubleword each.
pub const OUT_DS: u32 = 40;
/// Linux signal number of the exception, or 0.
pub const OUT_SIGNAL: u32 = 60;
/// Vector of the exception.
pub const OUT_TRAP: u32 = 64;
/// Error code of the exception.
pub const OUT_ERROR: u32 = 68;
/// Faulting linear address of a page fault.
pub const OUT_CR2: u32 = 72;
/// Index of the first changed doubleword in the list.
pub const OUT_FIRST_CHANGE: u32 = 76;
/// Number of changed doublewords.
pub const OUT_CHANGES: u32 = 80;
/// CS at the end.
pub const OUT_CS: u32 = 84;
/// FXSAVE image at the end.
pub const OUT_FX: u32 = 128;
/// Bytes of one outcome.
pub const OUT_SIZE: u32 = OUT_FX + 512;

/// Linear address of physical address 0 in the ring-0 program's view; supervisor pages.
pub const KERNEL_BASE: u32 = 0xc000_0000;
/// Physical address of the ring-0 program.
pub const KERNEL: u32 = 0x10_0000;
/// Bytes from its start to its task-state segment.
const KERNEL_TSS_OFFSET: u32 = 0x2000;
/// Physical address of the record of the case to run.
pub const MAILBOX: u32 = 0x11_0000;
/// Physical address of the record of the outcome.
pub const MAILBOX_OUT: u32 = MAILBOX + PAGE;
/// Physical address of the LDT.
pub const LDT_FRAME: u32 = MAILBOX + 2 * PAGE;
/// Physical address of the exit page.
pub const EXIT_FRAME: u32 = 0x12_0000;
/// Physical address of the page at [`ENTRY`].
pub const ENTRY_FRAME: u32 = EXIT_FRAME + PAGE;
/// Physical address of the code pages.
pub const CODE_FRAME: u32 = 0x13_0000;
/// Physical address of the sandbox; frames of unmapped pages are unused.
pub const SANDBOX_FRAME: u32 = 0x14_0000;
/// Physical address of the page-directory-pointer table.
pub const PAGE_DIRECTORY_POINTERS: u32 = 0x15_0000;
/// Physical address of the page-table entry that maps the ring-0 program at its physical address while it turns paging on.
pub const IDENTITY_ENTRY: u32 = 0x15_5000 + KERNEL / PAGE * 8;
/// I/O port that stops the machine when written.
pub const STOP_PORT: u16 = 0xf4;

/// General registers in encoding order, as the header names them.
const REGISTERS: [&str; 8] = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];

/// The constants of this module that the native program needs, as C preprocessor definitions.
pub fn c_header() -> String {
    let constants = [
        ("PAGE", PAGE),
        ("CODE", CODE),
        ("CODE_BYTES", CODE_BYTES),
        ("CODE_ALIAS", CODE_ALIAS),
        ("FILLER", u32::from(FILLER)),
        ("SANDBOX", SANDBOX),
        ("SANDBOX_PAGES", SANDBOX_PAGES),
        ("SANDBOX_WRITABLE", SANDBOX_WRITABLE),
        ("SANDBOX_READ_ONLY", SANDBOX_READ_ONLY),
        ("EXIT_FAR", EXIT_FAR),
        ("EXIT_FAR_OFFSET", EXIT_FAR_OFFSET),
        ("ENTER", ENTER),
        ("FLAT_CODE", u32::from(FLAT_CODE)),
        ("FLAT_DATA", u32::from(FLAT_DATA)),
        ("SEGMENT_LIMITED", u32::from(SEGMENT_LIMITED)),
        ("SEGMENT_DOWN", u32::from(SEGMENT_DOWN)),
        ("SEGMENT_READ_ONLY", u32::from(SEGMENT_READ_ONLY)),
        ("SEGMENT_BASE", SEGMENT_BASE),
        ("SEGMENT_LIMITED_LIMIT", SEGMENT_LIMITED_LIMIT),
        ("SEGMENT_DOWN_LIMIT", SEGMENT_DOWN_LIMIT),
        ("SEGMENT_READ_ONLY_LIMIT", SEGMENT_READ_ONLY_LIMIT),
        ("SHARED", SHARED),
        ("SHARED_SIZE", SHARED_SIZE),
        ("LDT_ENTRIES", LDT_ENTRIES as u32),
        ("SHARED_LDT", SHARED_LDT),
        ("SHARED_CODE", SHARED_CODE),
        ("SHARED_TEMPLATE", SHARED_TEMPLATE),
        ("SHARED_IN", SHARED_IN),
        ("SHARED_OUT", SHARED_OUT),
        ("SHARED_CHANGES", SHARED_CHANGES),
        ("HEADER_COUNT", HEADER_COUNT),
        ("HEADER_CURRENT", HEADER_CURRENT),
        ("IN_EFLAGS", IN_EFLAGS),
        ("IN_DS", IN_DS),
        ("IN_ES", IN_DS + 4),
        ("IN_FS", IN_DS + 8),
        ("IN_GS", IN_DS + 12),
        ("IN_CODE_AT", IN_CODE_AT),
        ("IN_CODE_LENGTH", IN_CODE_LENGTH),
        ("IN_EIP", IN_EIP),
        ("IN_CS", IN_CS),
        ("IN_SS", IN_SS),
        ("IN_FX", IN_FX),
        ("IN_CODE", IN_CODE),
        ("IN_SIZE", IN_SIZE),
        ("OUT_EFLAGS", OUT_EFLAGS),
        ("OUT_EIP", OUT_EIP),
        ("OUT_DS", OUT_DS),
        ("OUT_ES", OUT_DS + 4),
        ("OUT_FS", OUT_DS + 8),
        ("OUT_GS", OUT_DS + 12),
        ("OUT_SS", OUT_DS + 16),
        ("OUT_SIGNAL", OUT_SIGNAL),
        ("OUT_TRAP", OUT_TRAP),
        ("OUT_ERROR", OUT_ERROR),
        ("OUT_CR2", OUT_CR2),
        ("OUT_FIRST_CHANGE", OUT_FIRST_CHANGE),
        ("OUT_CHANGES", OUT_CHANGES),
        ("OUT_CS", OUT_CS),
        ("OUT_FX", OUT_FX),
        ("OUT_SIZE", OUT_SIZE),
        ("KERNEL_BASE", KERNEL_BASE),
        ("KERNEL_ADDRESS", KERNEL_BASE + KERNEL),
        ("KERNEL_TSS_OFFSET", KERNEL_TSS_OFFSET),
        ("MAILBOX", KERNEL_BASE + MAILBOX),
        ("MAILBOX_OUT", KERNEL_BASE + MAILBOX_OUT),
        ("LDT_ADDRESS", KERNEL_BASE + LDT_FRAME),
        ("LDT_LIMIT", LDT_ENTRIES as u32 * 8 - 1),
        ("PAGE_DIRECTORY_POINTERS", PAGE_DIRECTORY_POINTERS),
        ("IDENTITY_ENTRY", IDENTITY_ENTRY),
        ("STOP_PORT", u32::from(STOP_PORT)),
    ];
    let mut header = String::new();
    let mut define = |name: &str, value: u32| {
        writeln!(header, "#define {name} {value:#x}").expect("writing to a string does not fail");
    };
    for (name, value) in constants {
        define(name, value);
    }
    for (index, register) in (0u32..).zip(REGISTERS) {
        define(&format!("IN_{register}"), IN_EAX + 4 * index);
        define(&format!("OUT_{register}"), OUT_EAX + 4 * index);
    }
    header
}
