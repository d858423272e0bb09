//! Slow paths of checks that fail, and the islands by which JRCXZ reaches them.
//!
//! JRCXZ reaches 127 bytes only, and nothing else tests a register without touching flags. So failed checks jump to islands,
//! jumps that stand between instructions every hundred bytes or so, or behind code that does not fall through, and from there to
//! their slow paths at the end of the fragment.

use super::Emitter;
use super::room::Room;
use crate::translate::asm::*;
use crate::translate::context::AccessKind;
use crate::translate::trampoline::Trampoline;

/// The reach of JRCXZ in bytes.
const REACH: usize = 127;
/// The size in bytes of a jump to or from an island.
const JUMP_BYTES: usize = 5;

/// A check that may fail.
#[derive(Clone, Copy)]
pub(super) struct Miss {
    near: Label,
    /// Offset of the instruction in the page.
    offset: u32,
    cause: Cause,
}

/// The cause of a failed check, which decides what the slow path does.
#[derive(Clone, Copy)]
pub(super) enum Cause {
    /// The emulator has to execute the instruction.
    Refused,
    /// The polls are used up.
    Budget,
    /// The slot for an access to the address in a register was empty; the code continues at the label with the slot in RCX.
    Slot(AccessKind, Reg, Label),
    /// The host's unit does not hold the guest's FPU state; the code continues at the label when it does.
    Fpu(Label),
}

impl Emitter {
    /// Creates a label for a JRCXZ that jumps when a check of the instruction at `offset` fails.
    pub(super) fn miss(&mut self, offset: u32, cause: Cause) -> Label {
        let near = self.asm.label();
        if self.misses.is_empty() {
            self.first_miss = self.asm.here();
        }
        self.misses.push(Miss {
            near,
            offset,
            cause,
        });
        near
    }

    /// Emits the islands now if they would be out of reach behind so much more code.
    pub(super) fn keep_islands_near(&mut self, more: Room) {
        if self.misses.is_empty() {
            return;
        }
        // The islands that an instruction may add, and the jump over them.
        let islands = JUMP_BYTES * (self.misses.len() + more.checks);
        let distance = (self.asm.here() - self.first_miss) as usize;
        if distance + more.bytes + islands > REACH {
            self.islands(true);
        }
    }

    /// Emits the islands within an instruction whose code is longer on a wide processor.
    pub(super) fn keep_wide_islands_near(&mut self) {
        if self.is_wide() {
            self.keep_islands_near(Room::WIDE_ACCESS);
        }
    }

    /// Emits the islands of all checks that wait for theirs, and a jump over them if the code before falls through.
    pub(super) fn islands(&mut self, falls_through: bool) {
        if self.misses.is_empty() {
            return;
        }
        let copied = self.copied().filter(|_| falls_through);
        let over = self.asm.label();
        if falls_through {
            self.asm.jmp_short(over);
        }
        for &miss in &self.misses {
            let far = self.asm.label();
            self.asm.bind(miss.near);
            self.asm.jmp(far);
            self.far.push((far, miss));
        }
        self.misses.clear();
        self.asm.bind(over);
        self.note_copy(copied);
    }

    /// Emits the slow path of a failed check.
    pub(super) fn slow_path(&mut self, label: Label, miss: Miss) {
        self.asm.bind(label);
        match miss.cause {
            Cause::Refused => {
                self.asm.mov_imm32(R9, miss.offset);
                self.jmp_to(Trampoline::EmulateAt);
            }
            Cause::Budget => {
                self.asm.mov_imm32(R9, miss.offset);
                self.jmp_to(Trampoline::BudgetAt);
            }
            Cause::Slot(kind, address, back) => {
                if address != R8 {
                    self.mov(R8, address);
                }
                self.asm.mov_imm32(R9, miss.offset);
                self.call_to(Trampoline::Miss(kind));
                self.asm.jmp(back);
            }
            Cause::Fpu(back) => {
                self.asm.mov_imm32(R9, miss.offset);
                self.call_to(Trampoline::LoadFpu);
                self.asm.jmp(back);
            }
        }
    }
}
