//! The memory layout, on the real CPU and in every engine: linear addresses, selectors, and the shared file.
//!
//! ```text
//!   0x0900_0000  exit page: the code of a case ends with a jump to it
//!   0x0900_1000  where the way into a case finds its CS:EIP and SS:ESP    (engines only)
//!   0x1000_0000  code: 2 pages, executable and read-only      (unmapped around)
//!   0x2000_0000  sandbox, 8 pages:  -  RW RW RO  -  RW RW  -
//!   0x6000_0000  the shared file (native program only; elsewhere for 64-bit code)
//! ```
//!
//! 64-bit code has all of these but the last at several *places*: [`PLACES`] are what is added to the addresses above.
//!
//! The native program is compiled against [`c_header`], so the two sides cannot disagree.

use super::mode::Mode;
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

/// What is added to the addresses of exit page, code and sandbox. The first place is that of 32-bit code. In the second a run of
/// writable pages crosses 4 GiB; in the third the code crosses a multiple of 4 GiB; in the last the sandbox ends with the lower
/// half of the canonical addresses, the last page of which Linux maps for no process.
pub const PLACES: [u64; 4] = [0, 0xdfff_e000, 0x1233_efff_f000, 0x7fff_dfff_8000];
/// The first address that Linux maps for no process. It reports faults there and beyond as protection violations, whatever is
/// mapped.
pub const TASK_END: u64 = 0x7fff_ffff_f000;

/// Ring-3 flat code, as Linux sets it up for 32-bit programs on a 64-bit kernel.
pub const FLAT_CODE: u16 = 0x23;
/// Ring-3 64-bit code.
pub const FLAT_CODE_64: u16 = 0x33;
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
pub const MAX_CODE: usize = 640;

impl Mode {
    /// The selector of the flat code segment.
    pub fn flat_code(self) -> u16 {
        if self.is_64() {
            FLAT_CODE_64
        } else {
            FLAT_CODE
        }
    }

    /// What is added to the linear addresses of the layout: each place has an exit page, code and a sandbox.
    pub fn places(self) -> &'static [u64] {
        if self.is_64() { &PLACES } else { &PLACES[..1] }
    }
}

/// Linear address of the shared file in the native program.
fn shared(mode: Mode) -> u64 {
    if mode.is_64() {
        0x5a5a_6000_0000
    } else {
        0x6000_0000
    }
}

/// Linear address of the writable view of the code pages in the native program.
fn code_alias(mode: Mode) -> u64 {
    if mode.is_64() {
        0x5a5a_5000_0000
    } else {
        0x5000_0000
    }
}

/// Word index in the header of the shared file: number of cases in the batch.
pub const HEADER_COUNT: u32 = 0;
/// Word index in the header of the shared file: index of the case being run.
pub const HEADER_CURRENT: u32 = 1;
/// File offset of the LDT: [`LDT_ENTRIES`] times `struct user_desc`.
pub const SHARED_LDT: u32 = 64;
/// File offset of the code pages of all places.
pub const SHARED_CODE: u32 = PAGE;
/// File offset of the template of the sandboxes of all places.
pub const SHARED_TEMPLATE: u32 = SHARED_CODE + PLACES.len() as u32 * CODE_BYTES;
/// File offset of the cases.
pub const SHARED_IN: u32 = SHARED_TEMPLATE + PLACES.len() as u32 * SANDBOX_PAGES * PAGE;
/// File offset of the outcomes.
pub const SHARED_OUT: u32 = SHARED_IN + BATCH as u32 * IN_SIZE;
/// File offset of the list of changed doublewords.
pub const SHARED_CHANGES: u32 = SHARED_OUT + BATCH as u32 * OUT_SIZE;
/// Bytes of one changed doubleword: offset in the template and value.
pub const CHANGE_SIZE: u32 = 8;

/// Bytes of the shared file: every case may change every doubleword that can be written.
pub fn shared_size(mode: Mode) -> u32 {
    let dwords = SANDBOX_WRITABLE.count_ones() * (PAGE / 4) * mode.places().len() as u32;
    SHARED_CHANGES + BATCH as u32 * dwords * CHANGE_SIZE
}

/// Offsets of the fields of one case in the shared file, in bytes: 16 general registers in encoding order, eight bytes each.
pub const IN_RAX: u32 = 0;
/// Instruction pointer at the start.
pub const IN_RIP: u32 = 128;
/// Flags at the start, eight bytes.
pub const IN_RFLAGS: u32 = 136;
/// Base of FS at the start; that of GS follows.
pub const IN_FS_BASE: u32 = 144;
/// DS at the start; ES, FS and GS follow, a doubleword each.
pub const IN_DS: u32 = 160;
/// SS at the start.
pub const IN_SS: u32 = 176;
/// CS at the start.
pub const IN_CS: u32 = 180;
/// Offset of the code in the code pages of all places.
pub const IN_CODE_AT: u32 = 184;
/// Bytes of code.
pub const IN_CODE_LENGTH: u32 = 188;
/// FXSAVE image at the start.
pub const IN_FX: u32 = 192;
/// The code.
pub const IN_CODE: u32 = 704;
/// Bytes of one case.
pub const IN_SIZE: u32 = IN_CODE + MAX_CODE as u32;

/// Offsets of the fields of one outcome in the shared file, in bytes: 16 general registers.
pub const OUT_RAX: u32 = 0;
/// Instruction pointer at the end, or as the exception saved it.
pub const OUT_RIP: u32 = 128;
/// Flags at the end, or as the exception saved them.
pub const OUT_RFLAGS: u32 = 136;
/// Base of FS at the end; that of GS follows.
pub const OUT_FS_BASE: u32 = 144;
/// Faulting linear address of a page fault.
pub const OUT_CR2: u32 = 160;
/// DS at the end; ES, FS, GS and SS follow, a doubleword each.
pub const OUT_DS: u32 = 168;
/// CS at the end.
pub const OUT_CS: u32 = 188;
/// Linux signal number of the exception, or 0.
pub const OUT_SIGNAL: u32 = 192;
/// Vector of the exception.
pub const OUT_TRAP: u32 = 196;
/// Error code of the exception.
pub const OUT_ERROR: u32 = 200;
/// Index of the first changed doubleword in the list.
pub const OUT_FIRST_CHANGE: u32 = 204;
/// Number of changed doublewords.
pub const OUT_CHANGES: u32 = 208;
/// FXSAVE image at the end.
pub const OUT_FX: u32 = 224;
/// Bytes of one outcome.
pub const OUT_SIZE: u32 = OUT_FX + 512;

/// Linear address of physical address 0 in the ring-0 program's view; supervisor pages.
pub fn kernel_base(mode: Mode) -> u64 {
    match mode {
        Mode::Protected => 0xc000_0000,
        Mode::Compatibility | Mode::Bits64 => 0xffff_ffff_8000_0000,
    }
}

/// Levels of the page tables of the ring-0 program: PAE or 4-level paging.
pub fn paging_levels(mode: Mode) -> u32 {
    match mode {
        Mode::Protected => 3,
        Mode::Compatibility | Mode::Bits64 => 4,
    }
}

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
/// Physical address of the exit page of the first place.
pub const EXIT_FRAME: u32 = 0x12_0000;
/// Physical address of the page at [`ENTRY`].
pub const ENTRY_FRAME: u32 = EXIT_FRAME + PAGE;
/// Physical address of the code pages of the first place.
pub const CODE_FRAME: u32 = 0x13_0000;
/// Physical address of the sandbox of the first place; frames of unmapped pages are unused.
pub const SANDBOX_FRAME: u32 = 0x14_0000;
/// Physical address of the root of the page tables. The tables that map the ring-0 program at its physical address while it turns
/// paging on come first behind it.
pub const PAGE_TABLES: u32 = 0x15_0000;
/// Bytes from the frames of a place to those of the next.
pub const PLACE_FRAMES: u32 = 0x10_0000;
/// I/O port that stops the machine when written.
pub const STOP_PORT: u16 = 0xf4;

/// General registers in encoding order, as the header names them.
const REGISTERS: [&str; 16] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// The constants that the native program needs, the same in all modes.
const CONSTANTS: [(&str, u32); 57] = [
    ("PAGE", PAGE),
    ("EXIT", EXIT),
    ("CODE", CODE),
    ("CODE_BYTES", CODE_BYTES),
    ("FILLER", FILLER as u32),
    ("SANDBOX", SANDBOX),
    ("SANDBOX_PAGES", SANDBOX_PAGES),
    ("SANDBOX_WRITABLE", SANDBOX_WRITABLE),
    ("SANDBOX_READ_ONLY", SANDBOX_READ_ONLY),
    ("EXIT_FAR", EXIT_FAR),
    ("EXIT_FAR_OFFSET", EXIT_FAR_OFFSET),
    ("ENTER", ENTER),
    ("FLAT_CODE", FLAT_CODE as u32),
    ("FLAT_CODE_64", FLAT_CODE_64 as u32),
    ("FLAT_DATA", FLAT_DATA as u32),
    ("SEGMENT_LIMITED", SEGMENT_LIMITED as u32),
    ("SEGMENT_DOWN", SEGMENT_DOWN as u32),
    ("SEGMENT_READ_ONLY", SEGMENT_READ_ONLY as u32),
    ("SEGMENT_BASE", SEGMENT_BASE),
    ("SEGMENT_LIMITED_LIMIT", SEGMENT_LIMITED_LIMIT),
    ("SEGMENT_DOWN_LIMIT", SEGMENT_DOWN_LIMIT),
    ("SEGMENT_READ_ONLY_LIMIT", SEGMENT_READ_ONLY_LIMIT),
    ("LDT_ENTRIES", LDT_ENTRIES as u32),
    ("SHARED_LDT", SHARED_LDT),
    ("SHARED_CODE", SHARED_CODE),
    ("SHARED_TEMPLATE", SHARED_TEMPLATE),
    ("SHARED_IN", SHARED_IN),
    ("SHARED_OUT", SHARED_OUT),
    ("SHARED_CHANGES", SHARED_CHANGES),
    ("HEADER_COUNT", HEADER_COUNT),
    ("HEADER_CURRENT", HEADER_CURRENT),
    ("IN_RIP", IN_RIP),
    ("IN_RFLAGS", IN_RFLAGS),
    ("IN_FS_BASE", IN_FS_BASE),
    ("IN_GS_BASE", IN_FS_BASE + 8),
    ("IN_SS", IN_SS),
    ("IN_CS", IN_CS),
    ("IN_CODE_AT", IN_CODE_AT),
    ("IN_CODE_LENGTH", IN_CODE_LENGTH),
    ("IN_FX", IN_FX),
    ("IN_CODE", IN_CODE),
    ("IN_SIZE", IN_SIZE),
    ("OUT_RIP", OUT_RIP),
    ("OUT_RFLAGS", OUT_RFLAGS),
    ("OUT_FS_BASE", OUT_FS_BASE),
    ("OUT_GS_BASE", OUT_FS_BASE + 8),
    ("OUT_CR2", OUT_CR2),
    ("OUT_SS", OUT_DS + 16),
    ("OUT_CS", OUT_CS),
    ("OUT_SIGNAL", OUT_SIGNAL),
    ("OUT_TRAP", OUT_TRAP),
    ("OUT_ERROR", OUT_ERROR),
    ("OUT_FIRST_CHANGE", OUT_FIRST_CHANGE),
    ("OUT_CHANGES", OUT_CHANGES),
    ("OUT_FX", OUT_FX),
    ("OUT_SIZE", OUT_SIZE),
    ("STOP_PORT", STOP_PORT as u32),
];

/// The constants that depend on the mode; those from `KERNEL_BASE` on are the ring-0 program's.
fn constants_of(mode: Mode) -> [(&'static str, u64); 14] {
    let base = kernel_base(mode);
    let high = |physical: u32| base + u64::from(physical);
    let identity = PAGE_TABLES + (paging_levels(mode) - 1) * PAGE + KERNEL / PAGE * 8;
    [
        ("SHARED", shared(mode)),
        ("SHARED_SIZE", shared_size(mode).into()),
        ("CODE_ALIAS", code_alias(mode)),
        ("PLACES", mode.places().len() as u64),
        ("KERNEL_BASE", base),
        ("CODE_BITS", mode.bits().into()),
        ("KERNEL_TSS_OFFSET", KERNEL_TSS_OFFSET.into()),
        ("TSS_ADDRESS", high(KERNEL + KERNEL_TSS_OFFSET)),
        ("MAILBOX", high(MAILBOX)),
        ("MAILBOX_OUT", high(MAILBOX_OUT)),
        ("LDT_ADDRESS", high(LDT_FRAME)),
        ("PAGE_TABLES", PAGE_TABLES.into()),
        ("IDENTITY_ENTRY", high(identity)),
        ("LDT_LIMIT", LDT_ENTRIES as u64 * 8 - 1),
    ]
}

/// The constants of this module that the programs for the cases of `mode` need, as C preprocessor definitions.
pub fn c_header(mode: Mode) -> String {
    let mut header = String::new();
    let mut define = |name: &str, value: u64| {
        writeln!(header, "#define {name} {value:#x}").expect("writing to a string does not fail");
    };
    for (name, value) in CONSTANTS {
        define(name, value.into());
    }
    for (name, value) in constants_of(mode) {
        define(name, value);
    }
    for (index, register) in (0u32..).zip(REGISTERS) {
        define(&format!("IN_{register}"), u64::from(IN_RAX + 8 * index));
        define(&format!("OUT_{register}"), u64::from(OUT_RAX + 8 * index));
    }
    for (index, register) in (0u32..).zip(["DS", "ES", "FS", "GS"]) {
        define(&format!("IN_{register}"), u64::from(IN_DS + 4 * index));
        define(&format!("OUT_{register}"), u64::from(OUT_DS + 4 * index));
    }
    let bases = mode.places().iter().map(|base| format!("{base:#x}, "));
    writeln!(header, "#define PLACE_BASES {}", bases.collect::<String>())
        .expect("writing to a string does not fail");
    header
}
