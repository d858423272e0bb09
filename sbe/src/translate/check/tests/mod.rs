//! The emitter's code obeys the rules; code that it must not emit does not.

mod corpus;
mod mutations;
mod trampolines;

use super::{Checker, FragmentEntry, Violation};
use crate::cpu::model::Level;
use crate::translate::arena::Arena;
use crate::translate::context::AccessKind;
use crate::translate::emit::Emitter;
use crate::translate::fault_map::{FaultEntry, FaultMap};
use crate::translate::fragment::{self, Fragment, GuestCode, Tail, Translated};
use crate::translate::mode::Mode;
use crate::translate::reach::Reach;
use crate::translate::trampoline::Trampolines;
use mmu::{LinearWidth, PAGE_SIZE};

/// The modes of code with 32-bit linear addresses.
const NARROW: [Mode; 3] = [Mode::Supervisor, Mode::User, Mode::Windowed];
/// The modes of 32-bit code with 48-bit linear addresses.
const COMPATIBLE: [Mode; 2] = [Mode::Supervisor, Mode::User];
/// The modes of 64-bit code.
const LONG: [Mode; 3] = [Mode::Supervisor64, Mode::User64, Mode::Windowed64];

/// Everything that is needed to translate and check.
struct Bench {
    arena: Arena,
    trampolines: Trampolines,
    checker: Checker,
    sites: u32,
    width: LinearWidth,
}

/// A fragment as it was emitted.
#[derive(Clone)]
struct Emission {
    code: [Vec<u8>; 2],
    origins: [u32; 2],
    mode: Mode,
    at: u32,
    faults: [Vec<FaultEntry>; 2],
}

impl Bench {
    fn new(width: LinearWidth) -> Self {
        let mut arena = Arena::new(16 << 20).expect("memory for code");
        let trampolines = Trampolines::emit(&mut arena, width).expect("the trampolines fit");
        Self {
            checker: Checker::new(&trampolines),
            arena,
            trampolines,
            sites: 0,
            width,
        }
    }

    /// Translates `guest` at offset `at` of a page of NOPs; `None` when the emulator has to execute it.
    fn emit(&mut self, guest: &[u8], at: u32, mode: Mode) -> Option<(Emission, Fragment)> {
        let mut page = [0x90; PAGE_SIZE];
        let here = &mut page[at as usize..];
        let inside = guest.len().min(here.len());
        here[..inside].copy_from_slice(&guest[..inside]);
        let mut tail = Tail {
            frame: mmu::Frame::new(1),
            bytes: [0x90; fragment::TAIL_BYTES],
            host: 0x1234_5678_9000,
        };
        tail.bytes[..guest.len() - inside].copy_from_slice(&guest[inside..]);
        let code = GuestCode {
            groups: true,
            page: &page,
            tail: Some(&tail),
            mode,
            level: Level::V2,
            breakpoints: &[],
            reach: Reach::ALL,
        };
        if self.arena.used() > 8 << 20 {
            *self = Self::new(self.width);
        }
        let mut emitter = Emitter::new(self.trampolines, self.width);
        let origins = self.arena.next();
        let translated = fragment::translate(&mut self.arena, &mut emitter, &code, at, self.sites);
        let Ok(Translated::Fragment(fragment)) = translated else {
            return None;
        };
        self.sites += emitter.links().count() as u32;
        let emitted = emitter.asm.finish().expect("is resolved");
        let emission = Emission {
            code: emitted.map(<[u8]>::to_vec),
            origins,
            mode,
            at,
            faults: emitter.fault_entries.clone(),
        };
        Some((emission, fragment))
    }

    fn check(&mut self, emission: &Emission) -> Result<(), Violation> {
        let [hot, cold] = &emission.code;
        let mut fault_map = FaultMap::default();
        fault_map.add(&emission.faults, &[]);
        let entry = FragmentEntry {
            at: emission.at,
            mode: emission.mode,
        };
        self.checker
            .fragment([hot, cold], emission.origins, entry, &fault_map)
    }
}
