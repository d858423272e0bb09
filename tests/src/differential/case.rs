//! Cases and their outcomes: the vocabulary that the generator, the engines and the comparison share.

use super::layout::{CODE, PAGE, SANDBOX, SANDBOX_PAGES};
use super::mode::Mode;
use super::segments::{LocalTable, Segment, is_local};
use iced_x86::{Decoder, DecoderOptions, Instruction};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of an FXSAVE image.
pub const FX_SIZE: usize = 512;

/// The state of the processor that a user program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// General registers in encoding order: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. 32-bit code has the low halves of
    /// the first eight.
    pub gpr: [u64; 16],
    /// CS.
    pub cs: u16,
    /// Instruction pointer: an offset in CS.
    pub rip: u64,
    /// Flags. The upper half of RFLAGS is reserved.
    pub eflags: u32,
    /// DS, ES, FS, GS and SS.
    pub segments: [u16; 5],
    /// Bases of FS and GS; zeros for 32-bit code, which has those of the segments.
    pub bases: [u64; 2],
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

/// The contents of the sandbox before a case runs, and the LDT; a batch of cases shares one.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// The mode of the cases.
    pub mode: Mode,
    sandbox: Box<[u8]>,
    /// The LDT.
    pub segments: LocalTable,
}

/// Bytes of the sandbox of one place.
pub const SANDBOX_BYTES: usize = (SANDBOX_PAGES * PAGE) as usize;

impl Template {
    /// A template with these contents, [`SANDBOX_BYTES`] for each place; what lies in unmapped pages is ignored.
    pub fn new(mode: Mode, bytes: Vec<u8>, segments: LocalTable) -> Self {
        let expected = SANDBOX_BYTES * mode.places().len();
        assert_eq!(bytes.len(), expected, "a template covers the sandboxes");
        Self {
            mode,
            sandbox: bytes.into_boxed_slice(),
            segments,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.sandbox
    }

    /// The bytes of the sandbox of a place.
    pub fn sandbox(&self, place: usize) -> &[u8] {
        &self.sandbox[place * SANDBOX_BYTES..][..SANDBOX_BYTES]
    }

    /// The doubleword at a linear address, which must be aligned and inside a sandbox.
    pub fn dword(&self, address: u64) -> u32 {
        let bytes = self
            .mode
            .places()
            .iter()
            .enumerate()
            .find_map(|(place, base)| {
                let at = address.checked_sub(base + u64::from(SANDBOX))?;
                self.sandbox(place).get(at as usize..)?.first_chunk()
            });
        u32::from_le_bytes(*bytes.expect("an address of a sandbox"))
    }
}

/// One sequence of instructions with the state it starts from.
#[derive(Clone, Debug)]
pub struct Case {
    /// State at the first instruction.
    pub start: State,
    /// Linear address of the code.
    pub at: u64,
    /// The code, ending with a jump to [`super::layout::EXIT`] or [`super::layout::EXIT_FAR`].
    pub code: Vec<u8>,
    /// Lengths of the units that `code` consists of, the jump at the end left out. A unit is dropped as a whole.
    pub units: Vec<Unit>,
    /// CS at the jump at the end.
    pub last_code_segment: u16,
    /// Contents of the sandbox, and the LDT.
    pub template: Arc<Template>,
}

/// A part of a case's code that runs in one code segment.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'c> {
    /// Offset of its first byte in the code.
    pub at: u32,
    /// Bits of its code segment: 16, 32 or 64.
    pub bits: u32,
    /// The bytes.
    pub bytes: &'c [u8],
}

impl Piece<'_> {
    /// The instructions of the piece; the addresses that they have are offsets in the code of the case.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction> {
        let at = u64::from(self.at);
        Decoder::with_ip(self.bits, self.bytes, at, DecoderOptions::NONE).into_iter()
    }
}

impl Case {
    /// The segment that `selector` names, if it names one.
    pub fn segment(&self, selector: u16) -> Option<Segment> {
        self.template.segments.segment(selector)
    }

    /// The mode in which the case runs.
    pub fn mode(&self) -> Mode {
        self.template.mode
    }

    /// The index of the place of the code.
    pub fn place(&self) -> usize {
        place_of_code(self.mode(), self.at)
    }

    /// The offset in the code of `rip` in the code segment `cs`; `u32::MAX` for all that are larger.
    pub fn position(&self, cs: u16, rip: u64) -> u32 {
        let base = self.segment(cs).map_or(0, |segment| segment.base);
        let at = u64::from(base).wrapping_add(rip).wrapping_sub(self.at);
        let at = if self.mode().is_64() {
            at
        } else {
            at & u64::from(u32::MAX)
        };
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The parts of the code: units, and the jump at the end.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let units = self
            .units
            .iter()
            .map(|unit| (unit.at, unit.len, unit.code_segment));
        let end = self
            .units
            .last()
            .map_or(0, |unit| unit.at + unit.len)
            .min(self.code.len());
        let rest = (end, self.code.len() - end, self.last_code_segment);
        units.chain([rest]).map(|(at, len, code_segment)| Piece {
            at: at as u32,
            bits: self
                .segment(code_segment)
                .map_or(self.mode().bits(), |segment| segment.bits()),
            bytes: &self.code[at..(at + len).min(self.code.len())],
        })
    }

    /// The selectors that name a segment of the case, each once.
    pub fn selectors(&self) -> BTreeSet<u16> {
        let code = self.units.iter().map(|unit| unit.code_segment);
        let start = [self.start.cs, self.last_code_segment];
        code.chain(start).chain(self.start.segments).collect()
    }

    /// Whether the case starts in segments of the LDT, or runs code in one.
    pub fn is_local(&self) -> bool {
        self.selectors().into_iter().any(is_local)
    }
}

/// The index of the place whose code pages have the address `at`.
pub fn place_of_code(mode: Mode, at: u64) -> usize {
    let starts_before = |base: &u64| base + u64::from(CODE) <= at;
    let places = mode.places().iter().take_while(|base| starts_before(base));
    places.count().saturating_sub(1)
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
    /// CS.
    pub code_segment: u16,
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
    pub address: u64,
}

/// Vector of #PF.
pub const PAGE_FAULT: u8 = 14;

/// A doubleword of the sandbox that the case changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Linear address, a multiple of 4.
    pub address: u64,
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
