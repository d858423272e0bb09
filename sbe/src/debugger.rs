//! [`Debugger`]: where the processor stops for somebody who watches it from outside. The guest cannot tell: its memory and its
//! debug registers stay as they are.
//!
//! * A *breakpoint* is a linear address. The processor stops before it executes an instruction there, in whatever address
//!   space, unless EFLAGS.RF says that the instruction is being resumed (SDM Vol. 3B, 17.3.1.1 "Instruction-Breakpoint Exception
//!   Condition"), as after its page fault or between the iterations of a repeated string instruction.
//! * A *watchpoint* is a range of linear addresses. The processor stops behind an instruction that accesses one of its bytes by
//!   a memory operand or a stack, and behind the delivery of an event that pushes onto one. Accesses of the processor's own
//!   to descriptor tables, task segments and page tables are not watched.

use crate::cpu::Pending;
use std::fmt;

use mmu::{Access, LinearAddr, LinearPage, PAGE_SHIFT, PAGE_SIZE};

/// Which accesses a watchpoint stops behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Those that write.
    Writes,
    /// Those that read and do not write.
    Reads,
    /// All.
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

/// A range of linear addresses that is watched. It may wrap at 4 GiB. Nothing meets one that is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// Its first linear address.
    pub start: u32,
    /// Its bytes.
    pub len: u32,
    /// The accesses that count.
    pub watched: Watched,
}

impl Watchpoint {
    fn overlaps(&self, first: u32, size: u32) -> bool {
        let begins_inside = self.len > 0 && self.start.wrapping_sub(first) < size;
        begins_inside || first.wrapping_sub(self.start) < self.len
    }
}

/// An access that met a watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHit {
    /// What it met.
    pub watchpoint: Watchpoint,
    /// Whether it was a write.
    pub write: bool,
}

impl fmt::Display for WatchHit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write" } else { "read" };
        let Watchpoint { start, len, .. } = self.watchpoint;
        write!(f, "{access} of watched memory, {len} bytes at {start:08x}")
    }
}

/// Breakpoints and watchpoints. The same may be there several times; it is gone when it was removed as often as it was added.
#[derive(Debug, Default)]
pub struct Debugger {
    /// Sorted.
    breakpoints: Vec<u32>,
    watchpoints: Vec<Watchpoint>,
    /// Linear address where the processor was stopped, and whose breakpoint it does not meet again when it goes on.
    passing: Option<u32>,
    hit: Option<WatchHit>,
    changes: u64,
}

impl Debugger {
    /// Linear addresses of the breakpoints, sorted.
    pub fn breakpoints(&self) -> &[u32] {
        &self.breakpoints
    }

    /// The pages that hold bytes of watchpoints.
    pub fn watched_pages(&self) -> impl Iterator<Item = LinearPage> {
        self.watchpoints.iter().flat_map(|point| {
            let first = LinearAddr::from(point.start);
            let bytes = u64::from(first.offset()) + u64::from(point.len);
            let pages = bytes.div_ceil(PAGE_SIZE as u64) as u32;
            (0..pages).map(move |page| first.wrapping_add32(page << PAGE_SHIFT).page())
        })
    }

    /// How often breakpoints were added and removed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds a breakpoint.
    pub fn add_breakpoint(&mut self, linear: u32) {
        let at = self.breakpoints.partition_point(|&known| known < linear);
        self.breakpoints.insert(at, linear);
        self.changes += 1;
    }

    /// Removes a breakpoint. Returns whether it was there.
    pub fn remove_breakpoint(&mut self, linear: u32) -> bool {
        let found = self.breakpoints.binary_search(&linear);
        if let Ok(at) = found {
            self.breakpoints.remove(at);
            self.changes += 1;
        }
        found.is_ok()
    }

    /// Adds a watchpoint.
    pub fn add_watchpoint(&mut self, watchpoint: Watchpoint) {
        self.watchpoints.push(watchpoint);
    }

    /// Removes a watchpoint. Returns whether it was there.
    pub fn remove_watchpoint(&mut self, watchpoint: Watchpoint) -> bool {
        let found = self
            .watchpoints
            .iter()
            .position(|&known| known == watchpoint);
        if let Some(at) = found {
            self.watchpoints.remove(at);
        }
        found.is_some()
    }

    /// Why the run loop has to look up: what there is to stop for.
    pub fn reasons(&self) -> u32 {
        let mut reasons = 0;
        if !self.breakpoints.is_empty() {
            reasons |= Pending::BREAK;
        }
        if !self.watchpoints.is_empty() {
            reasons |= Pending::WATCH;
        }
        reasons
    }

    /// The processor was stopped at `linear`: whatever breakpoint is there, the instruction is executed when it goes on.
    pub fn stand_at(&mut self, linear: u32) {
        self.passing = Some(linear);
    }

    /// The processor goes on at `linear`.
    pub fn go_on_at(&mut self, linear: u32) {
        let passes = self.passing == Some(linear) && self.has_breakpoint(linear);
        self.passing = passes.then_some(linear);
    }

    /// Whether the processor goes on at a breakpoint that it does not meet again.
    pub fn passes_breakpoint(&self) -> bool {
        self.passing.is_some()
    }

    /// Whether the processor, about to execute the instruction at `linear`, stops there.
    pub fn stops_at(&mut self, linear: u32) -> bool {
        let passes = self.passing.take() == Some(linear);
        !passes && self.has_breakpoint(linear)
    }

    fn has_breakpoint(&self, linear: u32) -> bool {
        self.breakpoints.binary_search(&linear).is_ok()
    }

    /// Notes an access of `size` bytes from `first` on.
    pub fn accessed(&mut self, first: u32, size: u32, access: Access) {
        let met = self
            .watchpoints
            .iter()
            .find(|point| point.watched.includes(access) && point.overlaps(first, size));
        if let Some(&watchpoint) = met {
            self.hit.get_or_insert(WatchHit {
                watchpoint,
                write: access == Access::Write,
            });
        }
    }

    /// What was met since the last call.
    pub fn take_hit(&mut self) -> Option<WatchHit> {
        self.hit.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_are_counted() {
        let mut debugger = Debugger::default();
        for linear in [9, 5, 9] {
            debugger.add_breakpoint(linear);
        }
        assert_eq!(debugger.breakpoints(), [5, 9, 9]);
        assert_eq!(debugger.reasons(), Pending::BREAK);
        assert!(debugger.remove_breakpoint(9));
        assert!(debugger.stops_at(9));
        assert!(debugger.remove_breakpoint(9));
        assert!(!debugger.remove_breakpoint(9));
        assert!(!debugger.stops_at(9));
        assert_eq!(debugger.changes(), 5);
    }

    #[test]
    fn a_processor_that_stands_at_a_breakpoint_passes_it_once() {
        let mut debugger = Debugger::default();
        debugger.add_breakpoint(5);
        assert!(debugger.stops_at(5));
        debugger.stand_at(5);
        assert!(!debugger.stops_at(5));
        assert!(debugger.stops_at(5));
        debugger.stand_at(5);
        debugger.go_on_at(5);
        assert!(debugger.passes_breakpoint());
        assert!(!debugger.stops_at(5));
        debugger.stand_at(5);
        debugger.go_on_at(4);
        assert!(!debugger.passes_breakpoint());
        assert!(debugger.stops_at(5));
    }

    #[test]
    fn where_there_was_no_breakpoint_none_is_passed() {
        let mut debugger = Debugger::default();
        debugger.stand_at(5);
        debugger.go_on_at(5);
        assert!(!debugger.passes_breakpoint());
        debugger.add_breakpoint(5);
        assert!(debugger.stops_at(5));
    }

    #[test]
    fn watchpoints_meet_what_overlaps() {
        let point = |start, len, watched| Watchpoint {
            start,
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
            debugger.accessed(first, size, access);
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
