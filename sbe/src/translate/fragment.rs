//! A fragment: the code made from one entry of a page, up to where control leaves it for good.

use super::arena::Arena;
use super::asm::AsmError;
use super::emit::{Emitted, Emitter};
use crate::decode::decoder::{CodeSize, decode_announced};
use mmu::{PAGE_SIZE, Privilege};

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
    /// The branches that can be linked.
    pub branches: Vec<Link>,
    /// Offset in the page behind the last instruction that the code stands for.
    pub end: u32,
}

/// A branch that can be linked.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Offset of its target in the page; `None`: in another page.
    pub target: Option<u16>,
    /// Arena offset behind the branch.
    pub after: u32,
    /// Arena offset behind the jump that leaves to have it linked.
    pub left: u32,
}

/// Translates the code at `at` of `page` for `privilege`; its branches are numbered from `first_site` on.
///
/// # Errors
/// What the encoder says.
pub fn translate(
    arena: &mut Arena,
    emitter: &mut Emitter,
    page: &[u8; PAGE_SIZE],
    privilege: Privilege,
    at: u32,
    first_site: u32,
) -> Result<Translated, AsmError> {
    emitter.begin(arena.next(), privilege, first_site, at);
    let end = body(emitter, page, at)?;
    if end == at {
        return Ok(Translated::Emulate);
    }
    let [entry, _] = arena.next();
    if !arena.append(emitter.finish()?) {
        return Ok(Translated::Full);
    }
    let branches = emitter.branches.iter().map(|branch| Link {
        target: branch.target,
        after: emitter.asm.offset_of(branch.after),
        left: emitter.asm.offset_of(branch.left),
    });
    Ok(Translated::Fragment(Fragment {
        entry,
        branches: branches.collect(),
        end,
    }))
}

/// Emits instruction after instruction from `start`, code that does not fall through. Returns the offset behind the last;
/// `start` when the first is not for us.
fn body(emitter: &mut Emitter, page: &[u8; PAGE_SIZE], start: u32) -> Result<u32, AsmError> {
    let mut at = start;
    for _ in 0..MOST_INSTRUCTIONS {
        if at as usize == PAGE_SIZE {
            break;
        }
        // An instruction that goes on in the next page, or is none, is the emulator's.
        let Ok(raw) = decode_announced(&page[at as usize..], CodeSize::Bits32, at) else {
            return Ok(stop(emitter, start, at));
        };
        match emitter.instruction(&raw)? {
            Emitted::Inline => {}
            Emitted::Ends => return Ok(raw.next_ip32()),
            Emitted::Emulate => return Ok(stop(emitter, start, at)),
        }
        at = raw.next_ip32();
    }
    emitter.go_on(at);
    Ok(at)
}

/// Ends the fragment before the instruction at `at`, which the emulator has to execute.
fn stop(emitter: &mut Emitter, start: u32, at: u32) -> u32 {
    if at != start {
        emitter.emulate(at);
    }
    at
}
