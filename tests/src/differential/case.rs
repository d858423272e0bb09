//! Cases and their outcomes: the vocabulary that the generator, the engines and the comparison share.

use super::layout::{PAGE, SANDBOX, SANDBOX_PAGES};
use std::sync::Arc;

/// Bytes of an FXSAVE image.
pub const FX_SIZE: usize = 512;

/// The state of the processor that a user program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// General registers in encoding order: EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// Flags.
    pub eflags: u32,
    /// DS, ES, FS, GS and SS.
    pub segments: [u16; 5],
    /// x87, MMX and SSE state in FXSAVE format.
    pub fx: [u8; FX_SIZE],
}

/// Index of DS in [`State::segments`].
pub const DS: usize = 0;
/// Index of ES in [`State::segments`].
pub const ES: usize = 1;
/// Index of FS in [`State::segments`].
pub const FS: usize = 2;
/// Index of GS in [`State::segments`].
pub const GS: usize = 3;
/// Index of SS in [`State::segments`].
pub const SS: usize = 4;
/// Names of [`State::segments`].
pub const SEGMENT_NAMES: [&str; 5] = ["ds", "es", "fs", "gs", "ss"];

/// The contents of the sandbox before a case runs; a batch of cases shares one.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Box<[u8]>);

/// Bytes of the sandbox.
pub const SANDBOX_BYTES: usize = (SANDBOX_PAGES * PAGE) as usize;

impl Template {
    /// A template with these contents, [`SANDBOX_BYTES`] long; what lies in unmapped pages is ignored.
    pub fn new(bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), SANDBOX_BYTES, "a template covers the sandbox");
        Self(bytes.into_boxed_slice())
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of one page, by its index in the sandbox.
    pub fn page(&self, index: u32) -> &[u8] {
        &self.0[(index * PAGE) as usize..][..PAGE as usize]
    }

    /// The doubleword at a linear address, which must be aligned and inside the sandbox.
    pub fn dword(&self, address: u32) -> u32 {
        let at = (address - SANDBOX) as usize;
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

/// One sequence of instructions with the state it starts from.
#[derive(Clone, Debug)]
pub struct Case {
    /// State at the first instruction; `eip` is where the code lies.
    pub start: State,
    /// The code, ending with a jump to [`super::layout::EXIT`].
    pub code: Vec<u8>,
    /// Lengths of the units that `code` consists of, the jump at the end left out. A unit is dropped as a whole.
    pub units: Vec<Unit>,
    /// Contents of the sandbox.
    pub template: Arc<Template>,
}

/// Some bytes of code that belong together: an instruction under test and what prepares its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Offset of the first byte in the code.
    pub at: usize,
    /// Offset of the instruction under test.
    pub main: usize,
    /// Number of bytes.
    pub len: usize,
    /// The form under test.
    pub form: iced_x86::Code,
}

/// An exception as the program saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector number.
    pub vector: u8,
    /// Error code, 0 for vectors without one.
    pub error: u32,
    /// CR2 for a page fault, 0 otherwise.
    pub address: u32,
}

/// Vector of #PF.
pub const PAGE_FAULT: u8 = 14;

/// A doubleword of the sandbox that the case changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Linear address, a multiple of 4.
    pub address: u32,
    /// Contents after the case.
    pub value: u32,
}

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// State at the end of the code, or as the exception saved it.
    pub end: State,
    /// The exception that ended the case.
    pub exception: Option<Exception>,
    /// Doublewords that differ from the template, by address.
    pub changes: Vec<Change>,
    /// The pointers to the last x87 instruction in [`State::fx`] that are what the processor had.
    pub pointers: Pointers,
}

/// The known ones of the pointers to the last x87 instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pointers {
    /// None.
    Unknown,
    /// FIP and FDP.
    Addresses,
    /// FOP, FIP, FCS, FDP and FDS.
    All,
}
