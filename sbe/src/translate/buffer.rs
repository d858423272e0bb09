//! [`CodeBuffer`]: all emitted code of one processor, checked when it is added and when it is patched.
//!
//! ```text
//!   arena:  trampolines │ fragment │ fragment │ ...      a fragment's links are patchable jumps
//!   sites:  number            -> page and link           the branch that an exit wants linked
//!   fault map: arena offset   -> guest instruction       which instruction a fault of the host belongs to
//! ```

use super::arena::Arena;
use super::asm::AsmError;
use super::check::{FragmentEntry, Verifier};
use super::context::Context;
use super::emit::{Emitter, Link};
use super::fault_map::FaultMap;
use super::fragment::{self, GuestCode, Translated};
use super::mode::PageKey;
use super::setup::Setup;
use super::signal::{Executing, with_faults_handled};
use super::trampoline::{Trampoline, Trampolines};
use super::x87_note::DeferredNote;
use std::io;
use std::ops::Range;

/// A branch that may be linked.
#[derive(Clone, Copy)]
pub struct Site {
    /// The page whose code it belongs to.
    pub page: PageKey,
    /// The patchable jumps of the branch.
    pub link: Link,
}

/// A guest instruction whose code has faulted.
pub struct FaultedInstruction {
    /// Host address at which its code begins, if that can execute anew.
    pub restart: Option<u64>,
    /// Offset of the instruction in its page.
    pub offset: u32,
    /// The note of the x87 instruction before it, if that is not stored.
    pub deferred: Option<DeferredNote>,
}

/// Trampolines and fragments, and what is known of them by their place.
pub struct CodeBuffer {
    arena: Arena,
    trampolines: Trampolines,
    verifier: Verifier,
    fault_map: FaultMap,
    /// Branches by the numbers that emitted code names them by.
    sites: Vec<Site>,
}

impl CodeBuffer {
    /// Creates a buffer that holds the trampolines only.
    ///
    /// # Errors
    /// The host's, where it grants no memory for code; a size out of range.
    pub fn new(setup: &Setup) -> io::Result<Self> {
        let mut arena = Arena::new(setup.code_cache)?;
        let trampolines = Trampolines::emit(&mut arena, setup.width)?;
        let verifier = match setup.verify {
            true => Verifier::new(&trampolines),
            false => Verifier::default(),
        };
        Ok(Self {
            arena,
            trampolines,
            verifier,
            fault_map: FaultMap::default(),
            sites: Vec::new(),
        })
    }

    /// The trampolines.
    pub fn trampolines(&self) -> &Trampolines {
        &self.trampolines
    }

    /// The verifier of all that is added and patched.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Makes the checker examine a system call, as if it had been emitted.
    #[cfg(test)]
    pub fn check_system_call(&mut self) {
        let code = [[0x0f, 0x05].as_slice(), &[]];
        let origins = self.arena.next();
        let mode = crate::translate::mode::Mode::Supervisor;
        let entry = FragmentEntry { at: 0, mode };
        let passes = self
            .verifier
            .fragment(code, origins, entry, &self.fault_map);
        assert!(!passes);
    }

    /// The host address at which the byte at arena offset `offset` executes.
    pub fn address_of(&self, offset: u32) -> u64 {
        self.arena.address_of(offset)
    }

    /// The host address of a trampoline.
    pub fn trampoline(&self, trampoline: Trampoline) -> u64 {
        self.arena.address_of(self.trampolines.at(trampoline))
    }

    /// The arena offsets at which the next code goes, hot and cold.
    pub fn next(&self) -> [u32; 2] {
        self.arena.next()
    }

    /// The number of bytes of code held.
    pub fn used(&self) -> usize {
        self.arena.used()
    }

    /// The part of the fuller half that is in use, in hundredths.
    pub fn percent_used(&self) -> usize {
        self.arena.percent_used()
    }

    /// Copies the code at the arena offsets `range`.
    pub fn read(&self, range: Range<u32>) -> Vec<u8> {
        self.arena.read(range)
    }

    /// The branch with this number.
    pub fn site(&self, number: u32) -> Option<Site> {
        self.sites.get(number as usize).copied()
    }

    /// Translates `code` at offset `at` of the page of `key`. A fragment that the checker rejects is never executed: the
    /// emulator executes its first instruction.
    ///
    /// # Errors
    /// The encoder's.
    pub fn translate(
        &mut self,
        emitter: &mut Emitter,
        code: &GuestCode<'_>,
        key: PageKey,
        at: u32,
    ) -> Result<Translated, AsmError> {
        let origins = self.arena.next();
        let first_site = self.sites.len() as u32;
        let translated = fragment::translate(&mut self.arena, emitter, code, at, first_site)?;
        if let Translated::Fragment(_) = &translated {
            let sites = emitter.links().map(|link| Site { page: key, link });
            self.sites.extend(sites);
            self.fault_map
                .add(&emitter.fault_entries, &emitter.fault_notes);
            let emitted = emitter.asm.finish()?;
            let entry = FragmentEntry { at, mode: key.mode };
            if !self
                .verifier
                .fragment(emitted, origins, entry, &self.fault_map)
            {
                return Ok(Translated::Emulate);
            }
        }
        Ok(translated)
    }

    /// Runs emitted code at the host address `target` until it exits.
    pub fn run(&mut self, context: &mut Context, target: u64) {
        self.arena.publish();
        let address = self.trampoline(Trampoline::Enter);
        let context: *mut Context = context;
        let executing = Executing {
            code: self.arena.addresses(),
            fault_exit: self.trampoline(Trampoline::WindowFault),
            context,
        };
        // SAFETY: `address` is the `Enter` trampoline, a function of this signature that keeps the C ABI's promises. Code at
        // `target` was made by `fragment`: it touches the context, the stack that the context names, and guest memory
        // through the tables and the window in the context only, and ends at the `Exit` trampoline. `WindowFault` can be
        // entered from wherever code faults.
        with_faults_handled(&executing, || unsafe {
            let enter: extern "C" fn(*mut Context, u64) = std::mem::transmute(address as *const ());
            enter(context, target);
        });
    }

    /// Finds the guest instruction to which the code at host address `rip` belongs.
    pub fn instruction_at(&self, rip: u64) -> Option<FaultedInstruction> {
        let at = rip.wrapping_sub(self.arena.address_of(0)) as u32;
        let found = self.fault_map.find(at)?;
        let code = self.arena.address_of(found.code);
        Some(FaultedInstruction {
            restart: found.restarts.then_some(code),
            offset: found.offset,
            deferred: self.fault_map.deferred(found.code),
        })
    }

    /// Leads the patchable jump that ends at arena offset `jump` to `target`.
    pub fn redirect(&mut self, jump: u32, target: u32) {
        if !self.verifier.link(jump, target) {
            return;
        }
        let distance = i64::from(target) - i64::from(jump);
        let displacement = jump - size_of::<i32>() as u32;
        self.arena.patch(displacement, distance as i32);
    }

    /// Leads the patchable jump that ends at arena offset `jump` to a trampoline.
    pub fn redirect_to(&mut self, jump: u32, trampoline: Trampoline) {
        self.redirect(jump, self.trampolines.at(trampoline));
    }

    /// Replaces the operand of a guard, which ends at arena offset `guard`.
    pub fn set_guard(&mut self, guard: u32, operand: u64) {
        if self.verifier.number(guard) {
            let start = guard - size_of::<u64>() as u32;
            self.arena.patch64(start, operand);
        }
    }

    /// Leads a branch to another page to its exit stub again, as when it was emitted.
    pub fn unlink(&mut self, link: Link) {
        let Some(stub) = link.stub else { return };
        if let Some(bypass) = link.bypass {
            self.redirect(bypass.get(), link.check);
        }
        match link.guard {
            Some(guard) => {
                // No entry has this address.
                self.set_guard(guard.get(), 0);
                self.redirect(link.exit, stub.get());
            }
            None => self.redirect(link.jump, stub.get()),
        }
    }

    /// Removes everything but the trampolines.
    pub fn clear(&mut self) {
        self.sites.clear();
        self.fault_map.clear();
        self.verifier.clear();
        self.arena.truncate(self.trampolines.end());
    }
}
