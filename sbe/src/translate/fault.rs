//! Faults of accesses through windows: the page is mapped and the instruction begun anew, or the emulator does it.

use super::context::PAGE_BIAS;
use super::engine::{Epochs, Translator};
use crate::emulate::Exec;
use mmu::{Access, LinearAddr, PAGE_SIZE, Privilege, View};

/// Vectors of the exceptions that an access through a window can raise on the host.
const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;
/// In a page fault's error code: the access was a write (SDM Vol. 3A, 4.7 "Page-Fault Exceptions").
const ERROR_WRITE: u32 = 1 << 1;
/// Bytes of a window, and of the operand that begins at the last of them.
const WINDOW_BYTES: u64 = (1 << 32) + MOST_OPERAND as u64;
/// Bytes of an operand at most.
const MOST_OPERAND: u32 = 16;

impl Translator {
    /// Makes possible the access through a window that has faulted; `None` when the emulator has to execute the instruction.
    ///
    /// # Panics
    /// If emitted code faulted where no instruction of the guest accesses a window, or somewhere else.
    pub(super) fn window_fault(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let fault = self.context.fault;
        let at = fault.rip.wrapping_sub(self.arena.address_of(0)) as u32;
        let Some((code, offset)) = self.restarts.find(at) else {
            panic!("emitted code faulted at arena offset {at:#x}: {fault:x?}");
        };
        self.context.eip = (self.context.page as u32)
            .wrapping_sub(PAGE_BIAS as u32)
            .wrapping_add(offset);
        if fault.trap == GENERAL_PROTECTION {
            // An operand of 16 bytes that is not aligned.
            return None;
        }
        let address = fault.address.wrapping_sub(self.context.window);
        assert!(
            fault.trap == PAGE_FAULT && address < WINDOW_BYTES,
            "emitted code faulted at arena offset {at:#x}, outside its window: {fault:x?}"
        );
        let Ok(address) = u32::try_from(address) else {
            // An operand that begins at the last addresses and goes on at the first.
            return None;
        };
        let access = match fault.error & ERROR_WRITE {
            0 => Access::Read,
            _ => Access::Write,
        };
        let shown = self.show(cx, address, access);
        if self.policy.after_fault(cx.mmu) {
            self.stats.closed += 1;
            return None;
        }
        shown.then(|| self.arena.address_of(code))
    }

    /// Lets the window show the page of `address`. Returns whether it does and emitted code may go on.
    fn show(&mut self, cx: &mut Exec<'_>, address: u32, access: Access) -> bool {
        let linear = LinearAddr::from(address);
        let view = View::of(access, Privilege::User);
        if cx.mmu.tlb().slot(view, linear.page()) == 0 {
            // The access may go on in the next page, which has to be accessible before anything happens to this one.
            if linear.offset() > PAGE_SIZE as u32 - MOST_OPERAND {
                return false;
            }
            if cx.mmu.prepare(linear, 1, access, Privilege::User).is_err() {
                return false;
            }
        }
        cx.mmu.tlb_mut().map_in_window(linear.page(), access) && Epochs::now(cx) == self.epochs
    }
}
