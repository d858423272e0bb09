//! Misses: accesses for which a table has no slot, or whose page a window does not show. The slot is filled, or the page mapped,
//! and emitted code continues; else the emulator executes the instruction.
//!
//! The walk for an access sets A and D bits, and these may lie in the instruction that makes the access. On a processor it was fetched
//! before; so the emulator gets the bytes that it was translated from.

use super::Translator;
use super::exchange::store_note;
use crate::emulate::Exec;
use crate::translate::context::{AccessKind, HostFault, PAGE_BIAS};
use crate::translate::mode::PageKey;
use mmu::{Access, LinearAddr, LinearWidth, PAGE_SHIFT, PAGE_SIZE, Privilege, View};

/// The vector of one of the exceptions that an access through a window can raise on the host.
const GENERAL_PROTECTION: u32 = 13;
/// The vector of the other.
const PAGE_FAULT: u32 = 14;
/// The bit of a page fault's error code that says that the access was a write (SDM Vol. 3A, 4.7 "Page-Fault Exceptions").
const ERROR_WRITE: u32 = 1 << 1;
/// The size in bytes of a window, with the operand that begins at its last byte.
const WINDOW_BYTES: u64 = (1 << 32) + MOST_OPERAND as u64;
/// The size in bytes of the largest operand.
const MOST_OPERAND: u32 = 16;

impl Translator {
    /// Fills the slot that emitted code missed. Returns where emitted code continues; `None` when the emulator has to execute the
    /// instruction.
    pub(super) fn fill(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let kind = AccessKind::from_number(self.context.access);
        let (address, size) = (self.context.address, kind.size());
        let linear = LinearAddr::new(address);
        let crosses = linear.offset() > PAGE_SIZE as u32 - size;
        // Some instructions fault for a misaligned operand of 16 bytes.
        if crosses || !kind.may_be_misaligned() && !linear.offset().is_multiple_of(size) {
            return None;
        }
        let code = self.code_here(cx);
        let privilege = self.mode().privilege();
        let drops = cx.mmu.tlb().drops();
        let access = match kind.writes() {
            true => Access::Write,
            false => Access::Read,
        };
        cx.mmu.prepare(linear, size, access, privilege).ok()?;
        self.context.slot = cx
            .mmu
            .tlb()
            .slot(View::of(access, privilege), linear.page());
        self.keep_fetched(cx, code);
        // The walk may have written page tables, and those may be code; or dropped what a group relies on.
        let dropped = cx.mmu.tlb().drops() != drops;
        if self.context.slot == 0 || dropped || !self.cache.is_current(cx.mmu) {
            return None;
        }
        // R8 holds the address behind a miss.
        let eip = std::mem::replace(&mut self.context.eip, address);
        debug_assert_eq!(eip >> PAGE_SHIFT, self.context.page >> PAGE_SHIFT);
        Some(self.context.resume)
    }

    /// Serves an access that has faulted: maps its page in the window. Returns the host address at which the instruction begins
    /// anew; `None` when the emulator has to execute it.
    ///
    /// # Panics
    /// If emitted code faulted where it accesses no window, or outside its window.
    pub(super) fn window_fault(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let fault = self.context.fault;
        let Some(instruction) = self.cache.instruction_at(fault.rip) else {
            panic!("emitted code faulted where it accesses no window: {fault:x?}");
        };
        self.context.eip = self.context.page - PAGE_BIAS as u64 + u64::from(instruction.offset);
        if let Some(deferred) = instruction.deferred {
            store_note(&mut self.context, deferred);
        }
        if !self.mode().is_windowed() {
            // The slot was another page's, or the address is not canonical.
            return None;
        }
        let address = self.faulting_address(cx, fault);
        let access = match fault.error & ERROR_WRITE {
            0 => Access::Read,
            _ => Access::Write,
        };
        let code = self.code_here(cx);
        let shown = address.is_some_and(|address| self.show(cx, address, access));
        self.keep_fetched(cx, code);
        if self.windows.after_fault(cx.mmu) {
            self.cache.stats_mut().closed += 1;
            return None;
        }
        instruction.restart.filter(|_| shown)
    }

    /// The page of code that holds the instruction at EIP.
    fn code_here(&self, cx: &Exec<'_>) -> Option<PageKey> {
        let eip = LinearAddr::new(self.context.eip);
        let mode = self.mode_at(cx, eip);
        let view = View::of(Access::Fetch, mode.privilege());
        let frame = cx.mmu.tlb().frame(view, eip.page())?;
        Some(PageKey { frame, mode })
    }

    /// Keeps the bytes of the instruction at EIP, of the page `code`, if the walk for its access may have changed them.
    fn keep_fetched(&mut self, cx: &Exec<'_>, code: Option<PageKey>) {
        if !self.cache.is_current(cx.mmu) {
            let offset = LinearAddr::new(self.context.eip).offset();
            self.fetched = code.and_then(|code| self.cache.bytes_from(code, offset));
        }
    }

    /// The linear address at which an access through the window has faulted. `None` where a page that the window shows would not
    /// help: an operand of 16 bytes is misaligned, one begins at the last addresses of 32 bits and continues at the first, or, with
    /// 48-bit addresses, nothing in the window stands for the address, which may not even be canonical.
    ///
    /// # Panics
    /// If 32-bit code faulted outside its window.
    fn faulting_address(&self, cx: &Exec<'_>, fault: HostFault) -> Option<LinearAddr> {
        if fault.trap == GENERAL_PROTECTION {
            return None;
        }
        let offset = fault.address.wrapping_sub(self.context.window);
        assert!(
            fault.trap == PAGE_FAULT
                && (self.width == LinearWidth::Bits48 || offset < WINDOW_BYTES),
            "emitted code faulted outside its window: {fault:x?}"
        );
        cx.mmu.tlb().shown_at(fault.address)
    }

    /// Maps the page of `linear` in the window. Returns whether it is mapped and emitted code may continue.
    fn show(&mut self, cx: &mut Exec<'_>, linear: LinearAddr, access: Access) -> bool {
        let view = View::of(access, Privilege::User);
        if cx.mmu.tlb().slot(view, linear.page()) == 0 {
            // The access may continue in the next page, which has to be accessible before anything happens to this one.
            if linear.offset() > PAGE_SIZE as u32 - MOST_OPERAND {
                return false;
            }
            if cx.mmu.prepare(linear, 1, access, Privilege::User).is_err() {
                return false;
            }
        }
        cx.mmu.tlb_mut().map_in_window(linear.page(), access) && self.cache.is_current(cx.mmu)
    }
}
