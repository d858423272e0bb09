//! Near jumps, calls and returns, and the stubs by which fragments are linked.
//!
//! A guest call makes a host call. The host's return comes back behind it, where the guest's return address is compared with the
//! one that the call pushed; if they differ, or the host's stack is empty, the dispatcher continues.
//!
//! ```text
//!   push r13 ; call target             ; guest: push return address
//!   ...                                ; guest: pop into r8d; host: ret
//!   pop r9 ; not r8 ; lea rcx, [r9 + r8 + ...] ; jrcxz matches ; jmp return_mismatch
//!   matches: mov r13d, r9d             ; the page of the caller
//! ```
//!
//! Where linear addresses have 48 bits, `[r15 + PAGE]` takes the place of R13.
//!
//! Every cycle of guest code goes through a poll: backward branches, calls, indirect jumps and returns that do not match.

use super::misses::Cause;
use super::{Branch, Emitted, Emitter, PAGE, Target, in_page};
use crate::translate::asm::*;
use crate::translate::context::{CODE_TABLE, FETCH_TABLE, field};
use crate::translate::origin::Origin;
use crate::translate::sequences::{WORD_ROTATION, context, poll};
use crate::translate::trampoline::Trampoline;
use iced_x86::{ConditionCode, Instruction, OpKind};
use mmu::Privilege;

/// A stub to which a direct branch leads until it is linked, or for good.
#[derive(Clone, Copy)]
pub(super) struct Stub {
    label: Label,
    target: u32,
    kind: StubKind,
}

/// The kind of a stub, with the branch's site.
#[derive(Clone, Copy)]
enum StubKind {
    /// The stub of a branch to another page.
    Across(u32),
    /// The stub of a guarded branch to another page, which goes to the code it is linked to only where that is right.
    Guarded(u32),
    /// The stub of a branch inside the page.
    Inside(u32),
    /// The stub of a branch to the same offset in the plain variant.
    Plain(u32),
    /// The stub that has the instruction at the offset emulated; its branch is never linked.
    Emulate,
}

/// The upper bits of 64 that say nothing in a canonical address.
const UNUSED_BITS: u32 = 16;
/// The number of the condition E.
pub(super) const EQUAL: u8 = 4;
/// The number of the condition NE.
pub(super) const NOT_EQUAL: u8 = 5;

/// The number of a condition in opcodes (SDM Vol. 1, B.1 "Condition Codes").
fn condition_number(condition: ConditionCode) -> u8 {
    match condition {
        ConditionCode::o => 0,
        ConditionCode::no => 1,
        ConditionCode::b => 2,
        ConditionCode::ae => 3,
        ConditionCode::e => 4,
        ConditionCode::ne => 5,
        ConditionCode::be => 6,
        ConditionCode::a => 7,
        ConditionCode::s => 8,
        ConditionCode::ns => 9,
        ConditionCode::p => 10,
        ConditionCode::np => 11,
        ConditionCode::l => 12,
        ConditionCode::ge => 13,
        ConditionCode::le => 14,
        ConditionCode::g | ConditionCode::None => 15,
    }
}

/// The target of a near branch, as an offset from the page.
fn near(raw: &Instruction) -> u32 {
    raw.near_branch64() as u32
}

impl Emitter {
    /// Emits a check that the next page is the one whose fetch slot plus linear address is `host`; else the instruction at `offset`
    /// is emulated.
    pub fn check_next_page(&mut self, offset: u32, host: u64) {
        let same = self.asm.label();
        let other = self.emulate_out_of_line(offset);
        let page = self.page(R8);
        self.lea(R8, at(page, in_page(PAGE)));
        self.load_page_slot(field::FETCH_TABLE, FETCH_TABLE);
        if self.mode.is_64() {
            self.asm.lea64(RCX, indexed(RCX, R8, 0, 0));
        } else {
            // No page follows the last one below 4 GiB: the sum is then too large.
            let page = self.page(R8);
            self.asm.lea64(RCX, indexed(RCX, page, 0, in_page(PAGE)));
        }
        self.asm.mov_imm64(R9, host.wrapping_neg());
        self.asm.lea64(RCX, indexed(RCX, R9, 0, 0));
        self.asm.jrcxz(same);
        self.asm.jmp(other);
        self.asm.bind(same);
    }

    /// Emits Jcc.
    pub(super) fn branch_if(&mut self, raw: &Instruction) -> Emitted {
        let target = near(raw);
        self.poll_if_backward(raw, target);
        let (label, site) = self.open_stub(target);
        self.asm.jcc(condition_number(raw.condition_code()), label);
        self.mark_site(site);
        Emitted::Inline
    }

    /// Emits JECXZ.
    pub(super) fn branch_if_zero(&mut self, raw: &Instruction) -> Emitted {
        let target = near(raw);
        self.poll_if_backward(raw, target);
        self.mov(RCX, R11);
        self.branch_if_rcx_zero(target);
        Emitted::Inline
    }

    /// Emits LOOP, which branches unless the count reaches zero.
    pub(super) fn branch_loop(&mut self, raw: &Instruction) -> Emitted {
        let target = near(raw);
        self.poll_if_backward(raw, target);
        let done = self.asm.label();
        self.lea(R11, at(R11, -1));
        self.mov(RCX, R11);
        self.asm.jrcxz(done);
        self.go_to(target);
        self.asm.bind(done);
        Emitted::Inline
    }

    /// Emits a branch to `target` if RCX is zero.
    fn branch_if_rcx_zero(&mut self, target: u32) {
        let (taken, not_taken) = (self.asm.label(), self.asm.label());
        self.asm.jrcxz(taken);
        self.asm.jmp_short(not_taken);
        self.asm.bind(taken);
        self.go_to(target);
        self.asm.bind(not_taken);
    }

    /// Emits JMP.
    pub(super) fn jump(&mut self, raw: &Instruction) -> Emitted {
        let target = near(raw);
        self.poll_if_backward(raw, target);
        self.go_to(target);
        Emitted::Ends
    }

    /// Emits CALL.
    pub(super) fn call(&mut self, raw: &Instruction) -> Emitted {
        self.poll(raw);
        self.push_return_address(raw);
        self.keep_wide_islands_near();
        let (label, site) = self.open_stub(near(raw));
        self.push_page();
        self.asm.call(label);
        self.mark_site(site);
        self.return_point(raw);
        Emitted::Ends
    }

    /// Emits an indirect JMP.
    pub(super) fn jump_indirect(&mut self, raw: &Instruction) -> Emitted {
        if !self.target(raw) {
            return Emitted::Emulate;
        }
        self.note_origin(raw, 0);
        self.jmp_to(Trampoline::PolledDispatch);
        Emitted::Ends
    }

    /// Emits an indirect CALL.
    pub(super) fn call_indirect(&mut self, raw: &Instruction) -> Emitted {
        if !self.target(raw) {
            return Emitted::Emulate;
        }
        self.check_target(raw);
        self.keep_wide_islands_near();
        self.keeping(R8, |emitter| emitter.push_return_address(raw));
        self.keep_wide_islands_near();
        self.push_page();
        self.call_to(Trampoline::PolledDispatch);
        self.return_point(raw);
        Emitted::Ends
    }

    /// Emits RET.
    pub(super) fn ret(&mut self, raw: &Instruction) -> Emitted {
        let released = if raw.op_count() == 0 {
            0
        } else {
            raw.immediate16()
        };
        let top = self.stack_top(raw);
        self.load_word(R8, top.mem());
        self.lea(R12, at(R12, self.word() + i32::from(released)));
        self.note_origin(raw, self.word() as u32 + u32::from(released));
        self.asm.ret();
        Emitted::Ends
    }

    /// Emits R8D = target of an indirect jump or call. Returns whether that was possible.
    fn target(&mut self, raw: &Instruction) -> bool {
        if raw.op0_kind() == OpKind::Memory {
            let Some(probed) = self.probe_operand(raw, false) else {
                return false;
            };
            self.load_word(R8, probed.mem());
            return true;
        }
        let register = self.held(raw.op0_register(), R8);
        if let Some(register) = register.filter(|&register| register != R8) {
            self.mov(R8, register);
        }
        register.is_some()
    }

    /// Emits RCX = the slot for the page of the address in R8, in a table of the present privilege that lies `distance` behind the
    /// read table, or at `place` in the context if linear addresses have 48 bits. R9 is then overwritten.
    fn load_page_slot(&mut self, place: i32, distance: i32) {
        if self.is_wide() {
            self.asm.pext64(RCX, R8, context(field::MASKS));
            self.asm.load64(R9, context(place));
            self.asm.load64(RCX, indexed(R9, RCX, 3, 0));
        } else {
            self.asm.shrx32(RCX, R8, R13);
            self.asm.load64(RCX, indexed(R14, RCX, 3, distance));
        }
    }

    /// Emits R10 = an [`Origin`]: where the target is not canonical, the engine has the emulator execute the instruction, which
    /// raises the fault. It has added `popped` to the stack pointer.
    fn note_origin(&mut self, raw: &Instruction, popped: u32) {
        if self.mode.is_64() {
            let offset = raw.ip32();
            self.asm.mov_imm32(R10, Origin { offset, popped }.to_bits());
        }
    }

    /// Emits a check that the target in R8 is canonical; else the emulator executes `raw`.
    fn check_target(&mut self, raw: &Instruction) {
        if !self.mode.is_64() {
            return;
        }
        let canonical = self.asm.label();
        let other = self.refused(raw);
        self.asm.mov_imm32(RCX, UNUSED_BITS);
        self.asm.shlx64(R9, R8, RCX);
        self.asm.sarx64(R9, R9, RCX);
        self.asm.not64(R9);
        self.asm.lea64(RCX, indexed(R8, R9, 0, 1));
        self.asm.jrcxz(canonical);
        self.asm.jmp(other);
        self.asm.bind(canonical);
    }

    /// Emits the push of the guest's return address.
    fn push_return_address(&mut self, raw: &Instruction) {
        let slot = self.below_stack_top(raw);
        let page = self.page(R9);
        self.lea(R9, at(page, in_page(raw.next_ip32())));
        self.store_word(slot.mem(), R9);
        self.lea(R12, at(R12, -self.word()));
    }

    /// Emits PUSH of the page's biased address, for the code behind a call.
    fn push_page(&mut self) {
        match self.is_wide() {
            true => self.asm.push_memory(context(field::PAGE)),
            false => self.asm.push(R13),
        }
    }

    /// Emits the code to which the host's return comes back, with the guest's target in R8D.
    fn return_point(&mut self, raw: &Instruction) {
        let next = raw.next_ip32();
        let matches = self.asm.label();
        self.asm.pop(R9);
        self.asm.not64(R8);
        self.asm.lea64(RCX, indexed(R9, R8, 0, in_page(next) + 1));
        self.asm.jrcxz(matches);
        self.jmp_to(Trampoline::ReturnMismatch);
        self.asm.bind(matches);
        match self.is_wide() {
            true => self.asm.store64(context(field::PAGE), R9),
            false => self.asm.mov32(R13, R9),
        }
        self.go_to(next);
    }

    /// Emits a poll, if the branch is backward.
    fn poll_if_backward(&mut self, raw: &Instruction, target: u32) {
        // A target below the page wraps around to a large offset; it may as well be far ahead, which does no harm.
        let backward = target <= raw.ip32() || target > i32::MAX as u32;
        if backward {
            self.poll(raw);
        }
    }

    /// Emits a poll, unless STI has counted it: in its shadow no interrupt may be taken.
    pub(super) fn poll(&mut self, raw: &Instruction) {
        if self.polled {
            return;
        }
        let expired = self.miss(raw.ip32(), Cause::Budget);
        poll(&mut self.asm, expired);
    }

    /// Emits a jump to offset `target` of the page; beyond it, of another page.
    pub(super) fn go_to(&mut self, target: u32) {
        let (label, site) = self.open_stub(target);
        self.asm.jmp(label);
        self.mark_site(site);
    }

    /// Creates the label of a stub that has the instruction at `offset` emulated.
    pub(super) fn emulate_out_of_line(&mut self, offset: u32) -> Label {
        let label = self.asm.label();
        self.stubs.push(Stub {
            label,
            target: offset,
            kind: StubKind::Emulate,
        });
        label
    }

    /// Creates the label of a stub that has `raw` emulated.
    pub(super) fn refused(&mut self, raw: &Instruction) -> Label {
        self.emulate_out_of_line(raw.ip32())
    }

    /// Creates a stub for a branch to `target`. Returns its label, and the branch's site if the branch itself can be patched.
    fn open_stub(&mut self, target: u32) -> (Label, Option<usize>) {
        let label = self.asm.label();
        let inside = target < PAGE;
        let site = self.branches.len();
        let number = self.first_site + site as u32;
        let kind = match (inside, self.mode.privilege()) {
            (true, _) => StubKind::Inside(number),
            (false, Privilege::Supervisor) => StubKind::Across(number),
            (false, Privilege::User) => StubKind::Guarded(number),
        };
        self.stubs.push(Stub {
            label,
            target,
            kind,
        });
        let target = if inside {
            Target::Inside(target as u16)
        } else {
            Target::Outside
        };
        self.add_branch(target);
        (label, inside.then_some(site))
    }

    /// Adds a branch that can be linked.
    fn add_branch(&mut self, target: Target) {
        let branch = Branch {
            target,
            jump: self.asm.label(),
            guard: None,
            bypass: None,
            check: self.asm.label(),
            stub: None,
            exit: self.asm.label(),
        };
        self.branches.push(branch);
    }

    /// Creates the label of a stub that continues with the instruction at `offset` in the plain variant.
    pub(super) fn open_plain(&mut self, offset: u32) -> Label {
        let label = self.asm.label();
        let site = self.first_site + self.branches.len() as u32;
        self.add_branch(Target::Plain(offset as u16));
        self.stubs.push(Stub {
            label,
            target: offset,
            kind: StubKind::Plain(site),
        });
        label
    }

    /// Notes that the branch just emitted is that of `site`.
    fn mark_site(&mut self, site: Option<usize>) {
        if let Some(site) = site {
            let jump = self.branches[site].jump;
            self.asm.bind(jump);
        }
    }

    /// Emits the stub of a branch.
    pub(super) fn stub(&mut self, stub: Stub) {
        match stub.kind {
            StubKind::Across(site) => {
                let unlinked = self.asm.label();
                let branch = &mut self.branches[(site - self.first_site) as usize];
                branch.stub = Some(unlinked);
                let branch = *branch;
                self.asm.bind(stub.label);
                let page = self.page(R8);
                self.lea(R8, at(page, in_page(stub.target)));
                self.asm.jmp(unlinked);
                self.asm.bind(branch.jump);
                self.asm.switch_to(Section::Cold);
                self.asm.bind(unlinked);
                self.asm.mov_imm32(R9, site);
                self.jmp_to(Trampoline::LinkAcross);
                self.asm.bind(branch.exit);
                self.asm.switch_to(Section::Hot);
            }
            StubKind::Inside(site) => {
                let branch = self.branches[(site - self.first_site) as usize];
                self.asm.switch_to(Section::Cold);
                self.asm.bind(stub.label);
                self.asm.mov_imm32(R8, site);
                self.asm.mov_imm32(R9, stub.target);
                self.jmp_to(Trampoline::Link);
                self.asm.bind(branch.exit);
                self.asm.switch_to(Section::Hot);
            }
            StubKind::Guarded(site) => self.guarded(stub, site),
            StubKind::Plain(site) => {
                let branch = self.branches[(site - self.first_site) as usize];
                let unlinked = self.asm.label();
                self.asm.switch_to(Section::Cold);
                self.asm.bind(stub.label);
                self.asm.jmp(unlinked);
                self.asm.bind(branch.jump);
                self.asm.bind(unlinked);
                self.asm.mov_imm32(R8, site);
                self.asm.mov_imm32(R9, stub.target);
                self.jmp_to(Trampoline::Link);
                self.asm.bind(branch.exit);
                self.asm.switch_to(Section::Hot);
            }
            StubKind::Emulate => {
                self.asm.switch_to(Section::Cold);
                self.asm.bind(stub.label);
                self.asm.mov_imm32(R9, stub.target);
                self.jmp_to(Trampoline::EmulateAt);
                self.asm.switch_to(Section::Hot);
            }
        }
    }

    /// Emits the stub of a guarded branch to another page: it goes to the code it is linked to if the code table leads to the entry
    /// by which that code was found. Other address spaces may have another page there. Where windows are used, a jump can bypass
    /// the guard.
    fn guarded(&mut self, stub: Stub, site: u32) {
        let same = self.asm.label();
        let unlinked = self.asm.label();
        let guard = self.asm.label();
        let branch = &mut self.branches[(site - self.first_site) as usize];
        branch.guard = Some(guard);
        branch.stub = Some(unlinked);
        let (jump, exit, check) = (branch.jump, branch.exit, branch.check);
        self.asm.bind(stub.label);
        let page = self.page(R8);
        self.lea(R8, at(page, in_page(stub.target)));
        if self.windowed {
            let bypass = self.asm.label();
            self.branches[(site - self.first_site) as usize].bypass = Some(bypass);
            self.asm.jmp(check);
            self.asm.bind(bypass);
        }
        self.asm.bind(check);
        self.load_page_slot(field::CODE_TABLE, CODE_TABLE);
        if self.is_wide() {
            self.asm.rorx64(R9, R8, WORD_ROTATION);
            self.asm.lea64(RCX, indexed(RCX, R9, 0, 0));
        } else {
            self.asm.lea64(RCX, indexed(RCX, R8, 2, 0));
        }
        self.asm.mov_imm64(R9, 0);
        self.asm.bind(guard);
        self.asm.lea64(RCX, indexed(RCX, R9, 0, 0));
        self.asm.jrcxz(same);
        self.asm.jmp(unlinked);
        self.asm.bind(exit);
        self.asm.bind(same);
        self.asm.jmp(unlinked);
        self.asm.bind(jump);
        self.asm.switch_to(Section::Cold);
        self.asm.bind(unlinked);
        self.asm.mov_imm32(R9, site);
        self.jmp_to(Trampoline::LinkAcross);
        self.asm.switch_to(Section::Hot);
    }
}
