//! [`Debugger`]: the breakpoints and watchpoints of a debugger outside the guest. The guest cannot notice them: its memory and
//! its debug registers stay as they are.
//!
//! * A *breakpoint* is a linear address. The processor stops before it executes an instruction there, in any address space,
//!   unless EFLAGS.RF says that the instruction is being resumed (SDM Vol. 3B, 17.3.1.1 "Instruction-Breakpoint Exception
//!   Condition"), as after its page fault or between the iterations of a repeated string instruction.
//! * A *watchpoint* is a range of linear addresses. The processor stops after an instruction that accesses one of its bytes by
//!   a memory operand or a stack, and after the delivery of an event that pushes onto one. The processor's own accesses to
//!   descriptor tables, task segments and page tables are not watched. Stores of devices are, at the addresses that the page
//!   tables in force map to the bytes: the processor stops when it takes notice of them.

use crate::cpu::Pending;
use mmu::{Access, LinearAddr, LinearPage, Mmu, PAGE_SHIFT, PAGE_SIZE, Store, Translation};
use std::fmt;

/// The kind of access that a watchpoint stops after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Accesses that write.
    Writes,
    /// Accesses that read and do not write.
    Reads,
    /// Reads and writes.
    Accesses,
}

impl Watched {
    fn includes(self, access: Access) -> bool {
        match self {
            Self::Writes => access == Access::Write,
            Self::Reads => access != Access::Write,
            Self::Accesses => true,
        }
    }
}

/// A range of linear addresses that is watched. It may wrap at 4 GiB. No access hits an empty range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first address of the range.
    pub start: LinearAddr,
    /// The length of the range in bytes.
    pub len: u32,
    /// The accesses that hit it.
    pub watched: Watched,
}

impl Watchpoint {
    /// The linear pages that hold bytes of the range.
    fn pages(&self) -> impl Iterator<Item = LinearPage> + use<> {
        let (start, len) = (self.start, self.len);
        let bytes = u64::from(start.offset()) + u64::from(len);
        let pages = match len {
            0 => 0,
            _ => bytes.div_ceil(PAGE_SIZE as u64) as u32,
        };
        (0..pages).map(move |page| match start.get() >> u32::BITS {
            0 => start.wrapping_add32(page << PAGE_SHIFT).page(),
            _ => start.wrapping_add(u64::from(page) << PAGE_SHIFT).page(),
        })
    }

    /// Whether a byte of the range is mapped to one that was stored.
    fn holds(&self, store: &Store, mmu: &Mmu) -> bool {
        self.pages().any(|page| {
            let base = page.base();
            let stored = LinearAddr::new(base.get() + u64::from(store.bytes.start));
            let is_mapped = |found: Translation| found.phys.frame() == store.frame;
            self.overlaps(stored, store.bytes.len() as u32) && mmu.walk(base).is_ok_and(is_mapped)
        })
    }

    fn overlaps(&self, first: LinearAddr, size: u32) -> bool {
        let begins_inside = self.len > 0 && distance(first, self.start) < size.into();
        begins_inside || distance(self.start, first) < self.len.into()
    }
}

/// Bytes from `from` up to `to`, across the end of the address space if `to` is the lower one: of 32 bits if both addresses are.
fn distance(from: LinearAddr, to: LinearAddr) -> u64 {
    let distance = to.get().wrapping_sub(from.get());
    match (from.get() | to.get()) >> u32::BITS {
        0 => u64::from(distance as u32),
        _ => distance,
    }
}

/// An access that hit a watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHit {
    /// The watchpoint.
    pub watchpoint: Watchpoint,
    /// Whether the access was a write.
    pub write: bool,
}

impl fmt::Display for WatchHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write" } else { "read" };
        let Watchpoint { start, len, .. } = self.watchpoint;
        let start = start.get();
        write!(f, "{access} of watched memory, {len} bytes at {start:08x}")
    }
}

/// The breakpoints and watchpoints of a processor. Each counts how often it was added: it is gone when it has been removed as
/// often.
#[derive(Debug, Default)]
pub struct Debugger {
    /// The addresses of the breakpoints, sorted.
    breakpoints: Vec<LinearAddr>,
    watchpoints: Vec<Watchpoint>,
    /// The address at which the processor was stopped, and at which it does not stop again when it goes on.
    passing: Option<LinearAddr>,
    hit: Option<WatchHit>,
    /// The number of times that breakpoints were added or removed.
    changes: u64,
    /// Whether watchpoints were added or removed since [`Self::take_watch_change`].
    watch_changed: bool,
}

impl Debugger {
    /// The addresses of the breakpoints, sorted.
    pub fn breakpoints(&self) -> &[LinearAddr] {
        &self.breakpoints
    }

    /// The pages that hold bytes of watchpoints.
    pub(crate) fn watched_pages(&self) -> impl Iterator<Item = LinearPage> {
        self.watchpoints.iter().flat_map(Watchpoint::pages)
    }

    /// The number of times that breakpoints were added or removed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds a breakpoint at `address`: the processor stops before it executes an instruction there, in any address space, with
    /// [`crate::Exit::Breakpoint`].
    pub fn add_breakpoint(&mut self, address: LinearAddr) {
        let at = self.breakpoints.partition_point(|&known| known < address);
        self.breakpoints.insert(at, address);
        self.changes += 1;
    }

    /// Removes a breakpoint. Returns whether it was there.
    pub fn remove_breakpoint(&mut self, address: LinearAddr) -> bool {
        let found = self.breakpoints.binary_search(&address);
        if let Ok(at) = found {
            self.breakpoints.remove(at);
            self.changes += 1;
        }
        found.is_ok()
    }

    /// Adds a watchpoint: the processor stops after an access to its range, in any address space, with
    /// [`crate::Exit::Watchpoint`]. All accesses to the pages of the range become as slow as the emulator.
    pub fn add_watchpoint(&mut self, watchpoint: Watchpoint) {
        self.watchpoints.push(watchpoint);
        self.watch_changed = true;
    }

    /// Removes a watchpoint. Returns whether it was there.
    pub fn remove_watchpoint(&mut self, watchpoint: Watchpoint) -> bool {
        let found = self
            .watchpoints
            .iter()
            .position(|&known| known == watchpoint);
        if let Some(at) = found {
            self.watchpoints.remove(at);
            self.watch_changed = true;
        }
        found.is_some()
    }

    /// Whether watchpoints were added or removed since the last call, so that other pages may be watched now.
    pub(crate) fn take_watch_change(&mut self) -> bool {
        std::mem::take(&mut self.watch_changed)
    }

    /// The [`Pending`] bits that make the run loop look for breakpoints and watchpoints, where there are any.
    pub(crate) fn reasons(&self) -> u32 {
        let mut reasons = 0;
        if !self.breakpoints.is_empty() {
            reasons |= Pending::BREAK;
        }
        if !self.watchpoints.is_empty() {
            reasons |= Pending::WATCH;
        }
        reasons
    }

    /// Notes that the processor was stopped at `linear`: it executes that instruction when it goes on, even if it has a
    /// breakpoint.
    pub(crate) fn stand_at(&mut self, linear: LinearAddr) {
        self.passing = Some(linear);
    }

    /// Notes that the processor goes on at `linear`.
    pub(crate) fn go_on_at(&mut self, linear: LinearAddr) {
        let passes = self.passing == Some(linear) && self.has_breakpoint(linear);
        self.passing = passes.then_some(linear);
    }

    /// Whether the processor goes on at a breakpoint that it does not stop at again.
    pub(crate) fn passes_breakpoint(&self) -> bool {
        self.passing.is_some()
    }

    /// Whether the processor, which is about to execute the instruction at `linear`, stops there.
    pub(crate) fn stops_at(&mut self, linear: LinearAddr) -> bool {
        let passes = self.passing.take() == Some(linear);
        !passes && self.has_breakpoint(linear)
    }

    fn has_breakpoint(&self, linear: LinearAddr) -> bool {
        self.breakpoints.binary_search(&linear).is_ok()
    }

    /// Notes an access of `size` bytes at `first`.
    pub(crate) fn accessed(&mut self, first: LinearAddr, size: u32, access: Access) {
        let hit = self
            .watchpoints
            .iter()
            .find(|point| point.watched.includes(access) && point.overlaps(first, size));
        if let Some(&watchpoint) = hit {
            self.hit.get_or_insert(WatchHit {
                watchpoint,
                write: access == Access::Write,
            });
        }
    }

    /// Notes a store of a device. Linear addresses stand for what the page tables in force map them to.
    pub(crate) fn stored(&mut self, store: &Store, mmu: &Mmu) {
        let is_met =
            |point: &&Watchpoint| point.watched.includes(Access::Write) && point.holds(store, mmu);
        if let Some(&watchpoint) = self.watchpoints.iter().find(is_met) {
            self.hit.get_or_insert(WatchHit {
                watchpoint,
                write: true,
            });
        }
    }

    /// The first hit since the last call.
    pub(crate) fn take_hit(&mut self) -> Option<WatchHit> {
        self.hit.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(linear: u32) -> LinearAddr {
        LinearAddr::from(linear)
    }

    #[test]
    fn breakpoints_are_counted() {
        let mut debugger = Debugger::default();
        for linear in [9, 5, 9] {
            debugger.add_breakpoint(at(linear));
        }
        assert_eq!(debugger.breakpoints(), [5, 9, 9].map(at));
        assert_eq!(debugger.reasons(), Pending::BREAK);
        assert!(debugger.remove_breakpoint(at(9)));
        assert!(debugger.stops_at(at(9)));
        assert!(debugger.remove_breakpoint(at(9)));
        assert!(!debugger.remove_breakpoint(at(9)));
        assert!(!debugger.stops_at(at(9)));
        assert_eq!(debugger.changes(), 5);
    }

    #[test]
    fn a_processor_that_stands_at_a_breakpoint_passes_it_once() {
        let mut debugger = Debugger::default();
        debugger.add_breakpoint(at(5));
        assert!(debugger.stops_at(at(5)));
        debugger.stand_at(at(5));
        assert!(!debugger.stops_at(at(5)));
        assert!(debugger.stops_at(at(5)));
        debugger.stand_at(at(5));
        debugger.go_on_at(at(5));
        assert!(debugger.passes_breakpoint());
        assert!(!debugger.stops_at(at(5)));
        debugger.stand_at(at(5));
        debugger.go_on_at(at(4));
        assert!(!debugger.passes_breakpoint());
        assert!(debugger.stops_at(at(5)));
    }

    #[test]
    fn where_there_was_no_breakpoint_none_is_passed() {
        let mut debugger = Debugger::default();
        debugger.stand_at(at(5));
        debugger.go_on_at(at(5));
        assert!(!debugger.passes_breakpoint());
        debugger.add_breakpoint(at(5));
        assert!(debugger.stops_at(at(5)));
    }

    #[test]
    fn watchpoints_meet_what_overlaps() {
        let point = |start, len, watched| Watchpoint {
            start: at(start),
            len,
            watched,
        };
        for (watchpoint, first, size, access, met) in [
            (point(8, 4, Watched::Writes), 4, 4, Access::Write, false),
            (point(8, 4, Watched::Writes), 4, 5, Access::Write, true),
            (point(8, 4, Watched::Writes), 11, 1, Access::Write, true),
            (point(8, 4, Watched::Writes), 12, 1, Access::Write, false),
            (point(8, 4, Watched::Writes), 0, 64, Access::Write, true),
            (point(8, 4, Watched::Writes), 8, 4, Access::Read, false),
            (point(8, 4, Watched::Reads), 8, 4, Access::Read, true),
            (point(8, 4, Watched::Reads), 8, 4, Access::Write, false),
            (point(8, 4, Watched::Accesses), 9, 2, Access::Write, true),
            (point(8, 0, Watched::Accesses), 6, 4, Access::Write, false),
            (
                point(u32::MAX, 2, Watched::Accesses),
                0,
                1,
                Access::Read,
                true,
            ),
            (
                point(0, 1, Watched::Accesses),
                u32::MAX,
                2,
                Access::Read,
                true,
            ),
        ] {
            let mut debugger = Debugger::default();
            debugger.add_watchpoint(watchpoint);
            debugger.accessed(at(first), size, access);
            let expected = met.then_some(WatchHit {
                watchpoint,
                write: access == Access::Write,
            });
            assert_eq!(debugger.take_hit(), expected, "{watchpoint:?} {first}");
            assert_eq!(debugger.take_hit(), None);
            assert!(debugger.remove_watchpoint(watchpoint));
            assert!(!debugger.remove_watchpoint(watchpoint));
        }
    }
}
