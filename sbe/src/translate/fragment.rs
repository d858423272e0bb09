//! A fragment: the code made from one entry of a page, up to where control leaves it for good.

use super::arena::Arena;
use super::emit::{Emitted, Emitter};
use super::runtime::Runtime;
use crate::decode::decoder::{CodeSize, decode_announced};
use iced_x86::{BlockEncoderOptions, IcedError};
use mmu::PAGE_SIZE;

/// Guest instructions in one fragment at most.
const MOST_INSTRUCTIONS: usize = 64;

/// What translating from an entry gave.
#[derive(Debug)]
pub enum Translated {
    /// Code was emitted.
    Fragment(Fragment),
    /// The instruction at the entry is one for the emulator.
    Emulate,
    /// The arena is full.
    Full,
}

/// Emitted code and its branches.
#[derive(Debug)]
pub struct Fragment {
    /// Arena offset of the entry.
    pub entry: u32,
    /// For each branch inside the page: offset of its target in the page, and arena offset of its displacement.
    pub branches: Vec<(u16, u32)>,
    /// Offset in the page behind the last instruction that the code stands for.
    pub end: u32,
}

/// Translates the code at `at` of `page`; its branches are numbered from `first_site` on.
pub fn translate(
    arena: &mut Arena,
    runtime: &Runtime,
    page: &[u8; PAGE_SIZE],
    at: u32,
    first_site: u32,
) -> Result<Translated, IcedError> {
    let mut emitter = Emitter::new(runtime, |offset| arena.address_of(offset), first_site)?;
    emitter.entry(at)?;
    let end = body(&mut emitter, page, at)?;
    if end == at {
        return Ok(Translated::Emulate);
    }
    emitter.finish()?;
    let rip = arena.address_of(arena.next());
    let options = BlockEncoderOptions::DONT_FIX_BRANCHES
        | BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let result = emitter.code.assemble_options(rip, options)?;
    let Some(entry) = arena.append(&result.inner.code_buffer) else {
        return Ok(Translated::Full);
    };
    let branches = emitter
        .branches
        .iter()
        .map(|branch| {
            let after = result.label_ip(&branch.after)?;
            Ok((
                branch.target,
                entry + (after - rip) as u32 - size_of::<i32>() as u32,
            ))
        })
        .collect::<Result<_, IcedError>>()?;
    Ok(Translated::Fragment(Fragment {
        entry,
        branches,
        end,
    }))
}

/// Emits instruction after instruction from `start`, code that does not fall through. Returns the offset behind the last;
/// `start` when the first is not for us.
fn body(emitter: &mut Emitter, page: &[u8; PAGE_SIZE], start: u32) -> Result<u32, IcedError> {
    let (mut at, mut last) = (start, start);
    for _ in 0..MOST_INSTRUCTIONS {
        if at as usize == PAGE_SIZE {
            break;
        }
        // An instruction that goes on in the next page, or is none, is the emulator's.
        let Ok(raw) = decode_announced(&page[at as usize..], CodeSize::Bits32, at) else {
            return stop(emitter, start, at);
        };
        match emitter.instruction(&raw)? {
            Emitted::Inline => {}
            Emitted::Ends => return Ok(raw.next_ip32()),
            Emitted::Emulate => return stop(emitter, start, at),
        }
        last = at;
        at = raw.next_ip32();
    }
    emitter.go_on(last, at)?;
    Ok(at)
}

/// Ends the fragment before the instruction at `at`, which the emulator has to execute.
fn stop(emitter: &mut Emitter, start: u32, at: u32) -> Result<u32, IcedError> {
    if at != start {
        emitter.emulate(at)?;
    }
    Ok(at)
}
