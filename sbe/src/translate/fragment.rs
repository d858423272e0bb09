//! [`Fragment`]: the code made from one entry of a page, up to the point where control never falls through.

use super::arena::Arena;
use super::asm::AsmError;
use super::emit::{Emitted, Emitter};
use super::mode::Mode;
use super::reach::Reach;
use crate::cpu::model::Level;
use crate::decode::decoder::{CodeDecoder, DecodeError, MAX_LENGTH, decode_announced};
use iced_x86::{Instruction, Mnemonic, OpKind};
use mmu::{Frame, PAGE_SIZE};

/// The most guest instructions in one fragment.
const MOST_INSTRUCTIONS: usize = 64;

/// The outcome of translating from an entry.
#[derive(Debug)]
pub enum Translated {
    /// Code was emitted.
    Fragment(Fragment),
    /// The emulator has to execute the instruction at the entry.
    Emulate,
    /// The emulator has to execute it as long as its end, in the next page, is not known.
    Incomplete,
    /// The arena is full.
    Full,
}

/// The start of the page that follows a page in linear memory, where that was fetched last.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The frame of the next page.
    pub frame: Frame,
    /// The first bytes of that frame: as many as an instruction that begins in the page before can have.
    pub bytes: [u8; TAIL_BYTES],
    /// Host address of that frame as fetch slots give it: slot plus linear address.
    pub host: u64,
}

/// The most bytes of an instruction that can lie in the next page.
pub const TAIL_BYTES: usize = MAX_LENGTH - 1;

/// Guest code to be translated.
pub struct GuestCode<'a> {
    /// The bytes of the page.
    pub page: &'a [u8; PAGE_SIZE],
    /// The page behind it, if that is known.
    pub tail: Option<&'a Tail>,
    /// The mode in which the code executes.
    pub mode: Mode,
    /// The instructions that the processor has.
    pub level: Level,
    /// Whether accesses may be grouped.
    pub groups: bool,
    /// Offsets in the page at which instructions may have breakpoints, and so are left to the emulator.
    pub breakpoints: &'a [u16],
    /// How far direct branches may lead; those that lead further are left to the emulator, which raises their fault.
    pub reach: Reach,
}

impl GuestCode<'_> {
    fn has_breakpoint_at(&self, at: u32) -> bool {
        self.breakpoints
            .iter()
            .any(|&offset| u32::from(offset) == at)
    }

    /// Whether `raw` is a direct branch that leads too far.
    fn leads_too_far(&self, raw: &Instruction) -> bool {
        raw.op0_kind() == OpKind::NearBranch64 && !self.reach.contains(raw.near_branch64() as i32)
    }
}

/// The code emitted from one entry.
#[derive(Debug)]
pub struct Fragment {
    /// Arena offset of the entry.
    pub entry: u32,
    /// Offset in the page of the end of the last instruction translated.
    pub end: u32,
}

/// Translates the instructions from offset `at` of `code` on; their branches are numbered from `first_site` on.
///
/// # Errors
/// The encoder's.
pub fn translate(
    arena: &mut Arena,
    emitter: &mut Emitter,
    code: &GuestCode<'_>,
    at: u32,
    first_site: u32,
) -> Result<Translated, AsmError> {
    emitter.begin(arena.next(), code.mode, first_site, at);
    let mut decoder = CodeDecoder::new(code.page, code.mode.code_size(), code.level);
    if code.groups {
        look_ahead(emitter, code, &mut decoder, at);
    }
    let end = match body(emitter, code, &mut decoder, at)? {
        End::At(end) => end,
        End::Never => return Ok(Translated::Emulate),
        End::Across => match across(emitter, code, at)? {
            Some(end) => end,
            None if code.tail.is_some() => return Ok(Translated::Emulate),
            None => return Ok(Translated::Incomplete),
        },
    };
    let [entry, _] = arena.next();
    if !arena.append(emitter.finish()?) {
        return Ok(Translated::Full);
    }
    Ok(Translated::Fragment(Fragment { entry, end }))
}

/// Decodes the instructions that [`body`] will emit, for the emitter to plan groups.
fn look_ahead(
    emitter: &mut Emitter,
    code: &GuestCode<'_>,
    decoder: &mut CodeDecoder<'_>,
    start: u32,
) {
    let mut at = start;
    for _ in 0..MOST_INSTRUCTIONS {
        if code.has_breakpoint_at(at) {
            return;
        }
        match decoder.decode_at(at as usize) {
            Ok(raw) if !code.leads_too_far(&raw) && emitter.plan(&raw) => at = raw.next_ip32(),
            _ => return,
        }
    }
}

/// The end of a fragment.
enum End {
    /// The fragment ends at this offset of the page, the end of its last instruction.
    At(u32),
    /// No fragment is made: the emulator has to execute the first instruction.
    Never,
    /// No fragment can be made yet: the first instruction continues in the next page.
    Across,
}

/// Emits instruction after instruction from `start` on, up to code that does not fall through.
fn body(
    emitter: &mut Emitter,
    code: &GuestCode<'_>,
    decoder: &mut CodeDecoder<'_>,
    start: u32,
) -> Result<End, AsmError> {
    let mut at = start;
    for number in 0..MOST_INSTRUCTIONS {
        if at as usize == PAGE_SIZE {
            break;
        }
        if code.has_breakpoint_at(at) {
            return Ok(stop(emitter, start, at));
        }
        let planned = emitter.planned(number);
        let decoded = planned.map_or_else(|| decoder.decode_at(at as usize), Ok);
        let raw = match decoded {
            Ok(raw) => raw,
            Err(DecodeError::NeedMoreBytes) if at == start => return Ok(End::Across),
            // An instruction that continues in the next page is a fragment of its own.
            Err(DecodeError::NeedMoreBytes) => break,
            Err(_) => return Ok(stop(emitter, start, at)),
        };
        if code.leads_too_far(&raw) {
            return Ok(stop(emitter, start, at));
        }
        // The next fragment knows nothing of the shadow of STI.
        let is_last =
            number + 1 == MOST_INSTRUCTIONS || raw.next_ip32() as usize + MAX_LENGTH > PAGE_SIZE;
        if raw.mnemonic() == Mnemonic::Sti && is_last {
            return Ok(stop(emitter, start, at));
        }
        match emitter.instruction(&raw, &code.page[at as usize..], number)? {
            Emitted::Inline => {}
            Emitted::Ends => return Ok(End::At(raw.next_ip32())),
            Emitted::Emulate => return Ok(stop(emitter, start, at)),
        }
        at = raw.next_ip32();
    }
    emitter.go_on(at);
    Ok(End::At(at))
}

/// Ends the fragment before the instruction at `at`, which the emulator has to execute.
fn stop(emitter: &mut Emitter, start: u32, at: u32) -> End {
    if at == start {
        return End::Never;
    }
    emitter.emulate(at);
    End::At(at)
}

/// Emits the instruction at `at`, which continues in the next page, behind a check that the next page is still `code.tail`.
/// Returns the fragment's end; `None` when the emulator has to execute the instruction.
fn across(emitter: &mut Emitter, code: &GuestCode<'_>, at: u32) -> Result<Option<u32>, AsmError> {
    let Some(tail) = code.tail else {
        return Ok(None);
    };
    let head = &code.page[at as usize..];
    let mut bytes = [0; 2 * MAX_LENGTH];
    bytes[..head.len()].copy_from_slice(head);
    bytes[head.len()..head.len() + TAIL_BYTES].copy_from_slice(&tail.bytes);
    let Ok(raw) = decode_announced(
        &bytes[..head.len() + TAIL_BYTES],
        code.mode.code_size(),
        code.level,
        at.into(),
    ) else {
        return Ok(None);
    };
    if code.leads_too_far(&raw) {
        return Ok(None);
    }
    emitter.check_next_page(at, tail.host);
    match emitter.instruction(&raw, &bytes, MOST_INSTRUCTIONS)? {
        Emitted::Inline => emitter.go_on(raw.next_ip32()),
        Emitted::Ends => {}
        Emitted::Emulate => return Ok(None),
    }
    Ok(Some(PAGE_SIZE as u32))
}
