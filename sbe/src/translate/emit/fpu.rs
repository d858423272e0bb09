//! x87, MMX and SSE instructions, on the host's unit, and notes of the x87 instructions.
//!
//! The guest can read where its last x87 instruction lies and what memory it accessed. The host's unit knows addresses of
//! emitted code at best: processors differ in when they record them, and AMD's lose them when the host's kernel switches
//! tasks. So emitted code notes each instruction behind it, or the last one of several that follow each other:
//!
//! ```text
//!   lea   r8d, [effective address]       ; with a memory operand only
//!   mov   [r15 + X87_OPERAND], r8d
//!   mov   ecx, [r15 + SELECTORS + ...]   ; where the fragment has not stored the same before
//!   mov   [r15 + X87_SELECTOR], ecx
//!   mov   [r15 + X87_PAGE], r13d         ; the first time in the fragment
//!   mov   [r15 + X87_NOTE], note
//! ```
//!
//! Nothing of this happens if the instruction faults, and emitted code is left in between in one way only: through a window, a
//! memory operand can fault while the note of the instruction before is *deferred*. Then the engine stores it, from the fault
//! map. The engine makes the pointers from the last note when it gives the state back to the processor.

use super::memory::is_in_thread_segment;
use super::misses::Cause;
use super::{Emitted, Emitter, Result};
use crate::cpu::segment::SegReg;
use crate::decode::decoder::memory_segment;
use crate::emulate::fpu::sets_pointers;
use crate::host_fpu::last_opcode;
use crate::translate::asm::*;
use crate::translate::classify::Verdict;
use crate::translate::context::field;
use crate::translate::operands::{Counter, memory_operand};
use crate::translate::sequences::context;
use crate::translate::x87_note::{DeferredNote, NotedOperand, X87Note};
use iced_x86::{Instruction, Mnemonic};

/// The parts of notes that the present fragment has stored so far.
#[derive(Default)]
pub(super) struct Noted {
    /// The page was stored.
    page: bool,
    /// The segment register whose present selector was stored last.
    selector: Option<SegReg>,
    /// The note that is not stored yet.
    deferred: Option<DeferredNote>,
}

impl Noted {
    /// The note of the instruction before, if it is not stored yet.
    pub(super) fn deferred(&self) -> Option<DeferredNote> {
        self.deferred
    }

    /// Takes into account that segment registers may get other selectors.
    pub(super) fn forget_selector(&mut self) {
        self.selector = None;
    }
}

/// Whether the instruction is a string comparison that writes an index to ECX, which is none of its operands.
fn returns_index(raw: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(raw.mnemonic(), Pcmpestri | Pcmpestri64 | Pcmpistri)
}

impl Emitter {
    /// Emits an x87, MMX or SSE instruction, decoded from `bytes`, on the host's unit, into which the guest's state is loaded on
    /// first use.
    pub(super) fn copy_fpu(&mut self, raw: &Instruction, bytes: &[u8]) -> Result<Emitted> {
        let memory = memory_operand(raw);
        let size = raw.memory_size().size() as u32;
        if memory.is_some()
            && !(matches!(size, 1 | 2 | 4 | 8 | 16) && self.is_addressable(raw, true))
        {
            return Ok(Emitted::Emulate);
        }
        self.check_fpu(raw);
        let place = match memory {
            None => None,
            Some(index) => {
                let writes = self.writes(raw, index);
                match self.probe_operand(raw, writes) {
                    Some(probed) => Some(probed.operand()),
                    None => return Ok(Emitted::Emulate),
                }
            }
        };
        let emitted = self.encode(raw, Counter::R11, place)?;
        if emitted == Emitted::Inline && returns_index(raw) {
            self.mov(R11, RCX);
        }
        if emitted == Emitted::Inline && sets_pointers(raw) {
            self.note_x87(raw, bytes);
        }
        Ok(emitted)
    }

    /// Emits a check that the host's unit holds the guest's state, unless the fragment has had one.
    pub(super) fn check_fpu(&mut self, raw: &Instruction) {
        if self.fpu_checked {
            return;
        }
        let loaded = self.asm.label();
        let miss = self.miss(raw.ip32(), Cause::Fpu(loaded));
        self.asm.load64(RCX, context(field::FPU_LIVE));
        self.asm.jrcxz(miss);
        self.asm.bind(loaded);
        self.fpu_checked = true;
    }

    /// Whether the note of the instruction before may wait until `raw` has executed, and replaced it: `raw` leaves all
    /// registers as they are, and emitted code is not left here or is left by a fault in the window.
    pub(super) fn can_defer_note_over(&self, raw: &Instruction, verdict: Verdict) -> bool {
        let only_faults = || self.windowed && !is_in_thread_segment(raw);
        verdict == Verdict::CopyFpu
            && sets_pointers(raw)
            && (memory_operand(raw).is_none() || only_faults())
    }

    /// Defers the note of the x87 instruction `raw`, which has executed.
    fn note_x87(&mut self, raw: &Instruction, bytes: &[u8]) {
        let operand = memory_operand(raw).map(|_| NotedOperand {
            address: self.effective(raw),
            segment: memory_segment(raw),
        });
        let operand = match operand {
            Some(operand) if self.mode.is_64() => {
                // Its registers may be loaded into scratch registers, and lie elsewhere then.
                self.store_operand(operand);
                None
            }
            operand => operand,
        };
        let before = self.noted.deferred.and_then(|before| before.operand);
        if let (Some(before), Some(operand)) = (before, operand)
            && before.segment != operand.segment
        {
            // The engine has stored the one of before, if this operand has faulted.
            self.noted.forget_selector();
        }
        self.noted.deferred = Some(DeferredNote {
            note: X87Note {
                offset: raw.ip32(),
                fop: last_opcode(raw, bytes),
                privilege: self.mode.privilege(),
            },
            operand: operand.or(before),
        });
    }

    /// Emits the deferred note, if there is one.
    pub(super) fn store_note(&mut self) {
        let Some(DeferredNote { note, operand }) = self.noted.deferred.take() else {
            return;
        };
        if let Some(operand) = operand {
            self.store_operand(operand);
        }
        if !self.noted.page {
            self.noted.page = true;
            let page = self.page(R8);
            self.store_noted(context(field::X87_PAGE), page);
        }
        self.asm
            .store_imm32(context(field::X87_NOTE), note.to_bits());
    }

    /// Stores an address in the context: all of it where code of both widths may execute.
    fn store_noted(&mut self, place: Mem, address: Reg) {
        match self.is_wide() {
            true => self.asm.store64(place, address),
            false => self.asm.store32(place, address),
        }
    }

    /// Emits the note of a memory operand.
    fn store_operand(&mut self, operand: NotedOperand) {
        let place = context(field::X87_OPERAND);
        match operand.address {
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } if self.is_wide() => {
                self.mov_address(R8, disp);
                self.asm.store64(place, R8);
            }
            Mem {
                base: None,
                index: None,
                disp,
                ..
            } => self.asm.store_imm32(place, disp as u32),
            Mem {
                base: Some(register),
                index: None,
                disp: 0,
                ..
            } => self.store_noted(place, register),
            address => {
                self.lea(R8, address);
                self.store_noted(place, R8);
            }
        }
        if self.noted.selector != Some(operand.segment) {
            self.noted.selector = Some(operand.segment);
            let selector = field::SELECTORS + 4 * operand.segment as i32;
            self.asm.load32(RCX, context(selector));
            self.asm.store32(context(field::X87_SELECTOR), RCX);
        }
    }
}
