//! [`WindowPolicy`]: which address spaces get windows, and for how long.
//!
//! An access through a window costs nothing, but each page has to be mapped by a fault and a system call of the host, some ten
//! microseconds, and again after the guest has changed its mapping. So a space gets a window once its programs have run for a
//! while, and the time that they run pays for further mappings. The prices are the same for windows that the host's kernel module
//! fills, although their faults cost a tenth: programs that are short or fork often gain nothing by more windows.
//!
//! Where windows do not pay, one after the other, new spaces have to run longer before they get one. Where more processes are busy
//! than there are spaces, none is opened: by its next turn each process has lost its space, and the window with it.

use super::context::NOWHERE;
use mmu::{Mmu, SpaceId};
use std::fmt;
use std::str::FromStr;

/// The slices that have to end in a program before its space gets its first window, if windows pay.
const FIRST_SLICES: u32 = 4;
/// The most slices that have to before a first window, after windows of others that have not paid.
const MOST_FIRST_SLICES: u32 = 1 << 4;
/// The most slices that have to, after windows of the same space that have not paid.
const MOST_SLICES: u32 = 1 << 12;
/// The slices that have to pass without the loss of a space before another window is opened: some turns of busy processes.
const CALM_SLICES: u32 = 64;
/// The system calls that a new window may take.
const FIRST_CREDIT: i64 = 200;
/// The system calls that each slice which ends in a program pays for: a fifth of the slice's time.
const EARNED: i64 = 6;
/// The most system calls that can be saved up.
const MOST_CREDIT: i64 = 600;

/// The choice of the address spaces that have windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Windows {
    /// The spaces whose programs run long.
    #[default]
    Auto,
    /// All spaces in which programs run.
    Always,
    /// No space.
    Never,
}

impl Windows {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl FromStr for Windows {
    type Err = UnknownWindows;

    fn from_str(text: &str) -> Result<Self, UnknownWindows> {
        let named = Self::ALL
            .into_iter()
            .find(|choice| choice.to_string() == text);
        named.ok_or(UnknownWindows)
    }
}

/// A word that is not a choice of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is one of auto, always and never")]
pub struct UnknownWindows;

/// The account of one space.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// The slices that ended in a program since the last window.
    slices: u32,
    /// The slices that it takes to get one.
    needed: u32,
    /// The system calls that the window may still take.
    credit: i64,
    /// Whether there is a window that has not paid yet.
    is_on_trial: bool,
}

impl Account {
    fn new(needed: u32) -> Self {
        Self {
            slices: 0,
            needed,
            credit: 0,
            is_on_trial: false,
        }
    }

    /// Adds what a slice earns. Returns whether the window has thereby paid: its programs have earned much more than it took.
    fn earn(&mut self) -> bool {
        self.credit = (self.credit + EARNED).min(MOST_CREDIT);
        self.credit == MOST_CREDIT && std::mem::take(&mut self.is_on_trial)
    }

    /// Whether the window has taken more than its programs have earned.
    fn has_failed(&self) -> bool {
        self.is_on_trial && self.credit < FIRST_CREDIT
    }
}

/// The policy by which windows are opened and closed.
pub struct WindowPolicy {
    windows: Windows,
    /// Accounts by index of the space, each with the space that it belongs to.
    accounts: Vec<Option<(SpaceId, Account)>>,
    /// The slices that it takes a new space to get a window.
    first_slices: u32,
    /// The count of spaces lost when it last changed, and the slices since, `CALM_SLICES` at most.
    displaced: u64,
    calm: u32,
    /// The space last looked at, and the system calls that all windows had taken by then.
    charged: Option<(SpaceId, u64)>,
}

impl WindowPolicy {
    /// Creates the policy for a choice of windows.
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            accounts: Vec::new(),
            first_slices: FIRST_SLICES,
            displaced: 0,
            calm: CALM_SLICES,
            charged: None,
        }
    }

    /// The value of GS's base for the present space.
    pub fn window(&self, mmu: &Mmu) -> u64 {
        match self.windows {
            Windows::Never => 0,
            Windows::Auto | Windows::Always => mmu.tlb().window().unwrap_or(NOWHERE),
        }
    }

    /// Closes the window of the program that is about to run if another would have more room, and opens one if the program should have
    /// one from the start. Returns whether one was opened.
    pub fn before_program(&mut self, mmu: &mut Mmu) -> bool {
        if mmu.tlb().is_window_crowded() {
            let account = self.account(mmu.tlb().space());
            account.needed = (2 * account.needed).min(MOST_SLICES);
            mmu.tlb_mut().close_window();
        }
        self.windows == Windows::Always
            && mmu.tlb().window().is_none()
            && mmu.tlb_mut().open_window().is_ok()
    }

    /// Accounts for a slice of time that ended in a program. Returns whether a window was opened.
    pub fn after_slice(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let is_calm = self.is_calm(mmu);
        let calls = self.new_calls(mmu);
        let account = self.account(mmu.tlb().space());
        if mmu.tlb().window().is_some() {
            account.credit -= calls;
            if account.earn() {
                self.first_slices = (self.first_slices / 2).max(FIRST_SLICES);
            }
            return false;
        }
        account.slices += 1;
        if account.slices < account.needed || !is_calm {
            return false;
        }
        let opened = mmu.tlb_mut().open_window().is_ok();
        account.slices = 0;
        account.credit = FIRST_CREDIT;
        account.is_on_trial = opened;
        self.new_calls(mmu);
        opened
    }

    /// Accounts for a fault at a page that the window does not show. Returns whether the window was closed.
    pub fn after_fault(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let calls = self.new_calls(mmu);
        let account = self.account(mmu.tlb().space());
        account.credit -= 1 + calls;
        if account.credit >= 0 {
            return false;
        }
        account.needed = (2 * account.needed).min(MOST_SLICES);
        if std::mem::take(&mut account.is_on_trial) {
            self.defer();
        }
        mmu.tlb_mut().close_window();
        true
    }

    /// Notes a slice. Returns whether no space was lost for a while.
    fn is_calm(&mut self, mmu: &Mmu) -> bool {
        let displaced = mmu.tlb().displaced();
        self.calm = match displaced == self.displaced {
            true => (self.calm + 1).min(CALM_SLICES),
            false => 0,
        };
        self.displaced = displaced;
        self.calm == CALM_SLICES
    }

    /// Has new spaces run longer before they get a window, since one has not paid.
    fn defer(&mut self) {
        self.first_slices = (2 * self.first_slices).min(MOST_FIRST_SLICES);
    }

    /// The system calls that windows have taken since the last look, if that was at the same space. What they took while others
    /// ran is not this one's to pay.
    fn new_calls(&mut self, mmu: &Mmu) -> i64 {
        let (space, calls) = (mmu.tlb().space(), mmu.tlb().remaps());
        match self.charged.replace((space, calls)) {
            Some((before, charged)) if before == space => (calls - charged) as i64,
            _ => 0,
        }
    }

    /// The account of `space`; a new one, if the space is new, and the window of the one before it is lost.
    fn account(&mut self, space: SpaceId) -> &mut Account {
        let index = space.index();
        if self.accounts.len() <= index {
            self.accounts.resize(index + 1, None);
        }
        let before = self.accounts[index];
        let kept = before.filter(|(owner, _)| *owner == space);
        if kept.is_none() && before.is_some_and(|(_, account)| account.has_failed()) {
            self.defer();
        }
        let new = Account::new(self.first_slices);
        let (_, account) = self.accounts[index].insert(kept.unwrap_or((space, new)));
        account
    }
}

#[cfg(test)]
mod tests {
    use mmu::{
        Access, GuestPhys, LinearAddr, LinearPage, Memory, PAGE_SIZE, Paging, PagingMode, Privilege,
    };

    use super::*;

    /// Physical addresses of the spaces' page tables and directories.
    const TABLES: u32 = 4 << 20;
    const DIRECTORIES: u32 = 5 << 20;
    /// More spaces than there are tables for.
    const SPACES: u32 = 140;
    /// The start of RAM, and the pages from there on that are mapped.
    const LOW: u32 = 1 << 20;
    const PAGES: u32 = 768;
    /// P, R/W and U/S.
    const ENTRY: u32 = 0b111;

    /// Spaces that map the first 4 MiB one to one.
    struct Guest {
        mmu: Mmu,
        policy: WindowPolicy,
        /// The page to access next, so that each fault is at another.
        page: u32,
    }

    impl Guest {
        fn new() -> Self {
            let memory = Memory::new(6 << 20).unwrap();
            let store = |at: u32, entry: u32| {
                let at = GuestPhys::new(at.into());
                memory.write(at, &entry.to_le_bytes()).unwrap();
            };
            for offset in (0..SPACES).map(|space| space * PAGE_SIZE as u32) {
                for page in 0..1024 {
                    let entry = (page * PAGE_SIZE as u32) | ENTRY;
                    store(TABLES + offset + 4 * page, entry);
                }
                store(DIRECTORIES + offset, (TABLES + offset) | ENTRY);
            }
            Self {
                mmu: Mmu::new(memory).unwrap(),
                policy: WindowPolicy::new(Windows::Auto),
                page: 0,
            }
        }

        fn enter(&mut self, space: u32) {
            self.mmu.set_paging(Paging {
                mode: PagingMode::TwoLevel,
                cr3: (DIRECTORIES + space * PAGE_SIZE as u32).into(),
                ..Paging::default()
            });
        }

        /// Ends `count` slices; returns the number of windows opened.
        fn slices(&mut self, count: u32) -> u32 {
            let opened = (0..count).filter(|_| self.policy.after_slice(&mut self.mmu));
            opened.count() as u32
        }

        /// Accesses the next page by the tables.
        fn access(&mut self) -> LinearPage {
            self.page = (self.page + 1) % PAGES;
            let address = LinearAddr::from(LOW + self.page * PAGE_SIZE as u32);
            let user = Privilege::User;
            self.mmu.prepare(address, 1, Access::Read, user).unwrap();
            address.page()
        }

        /// Faults at a page that the window does not show. Returns whether it is closed.
        fn fault(&mut self) -> bool {
            let page = self.access();
            let shown = self.mmu.tlb_mut().map_in_window(page, Access::Read);
            assert!(shown);
            self.policy.after_fault(&mut self.mmu)
        }

        /// Faults until the window has taken more than its program has earned, but is not closed.
        fn owe(&mut self) {
            for _ in 0..FIRST_CREDIT / 4 {
                assert!(!self.fault());
            }
        }
    }

    #[test]
    fn a_window_is_not_charged_for_those_of_others() {
        let mut guest = Guest::new();
        for space in 0..8 {
            guest.enter(space);
            assert_eq!(guest.slices(FIRST_SLICES), 1);
            guest.owe();
        }
        for space in 0..8 {
            guest.enter(space);
            assert_eq!(guest.slices(1), 0);
            assert!(guest.mmu.tlb().window().is_some(), "space {space}");
            assert!(!guest.fault(), "space {space}");
        }
    }

    /// Many processes that take turns too short for a window to pay.
    fn take_turns(guest: &mut Guest, rounds: u32) -> u32 {
        let mut opened = 0;
        for space in (0..rounds).flat_map(|_| 0..SPACES) {
            guest.enter(space);
            guest.access();
            opened += guest.slices(2 * FIRST_SLICES);
            if guest.mmu.tlb().window().is_some() {
                guest.owe();
            }
        }
        opened
    }

    #[test]
    fn more_processes_than_spaces_soon_get_no_windows() {
        let mut guest = Guest::new();
        assert!(take_turns(&mut guest, 2) > 0);
        assert_eq!(take_turns(&mut guest, 20), 0);
    }

    #[test]
    fn spaces_that_are_lost_by_their_next_turn_get_no_windows() {
        let mut guest = Guest::new();
        let turns = |guest: &mut Guest| -> u32 {
            let turn = |space| {
                guest.enter(space);
                guest.access();
                guest.slices(2 * FIRST_SLICES)
            };
            (0..SPACES).map(turn).sum()
        };
        assert!(turns(&mut guest) > 0);
        assert_eq!(turns(&mut guest), 0);
        assert_eq!(guest.slices(CALM_SLICES), 1);
    }

    #[test]
    fn windows_that_fail_put_off_others() {
        let mut guest = Guest::new();
        for space in 0..4 {
            guest.enter(space);
            assert_eq!(guest.slices(MOST_FIRST_SLICES), 1);
            while !guest.fault() {}
        }
        guest.enter(4);
        assert_eq!(guest.slices(MOST_FIRST_SLICES - 1), 0);
        assert_eq!(guest.slices(1), 1);
    }

    #[test]
    fn windows_that_pay_bring_others_soon_again() {
        let mut guest = Guest::new();
        guest.policy.first_slices = MOST_FIRST_SLICES;
        for space in 0..20 {
            guest.enter(space);
            guest.slices(MOST_FIRST_SLICES);
            guest.fault();
            guest.slices(100);
        }
        guest.enter(30);
        assert_eq!(guest.slices(FIRST_SLICES), 1);
    }
}
