//! [`WindowPolicy`]: which address spaces get windows, and for how long.
//!
//! An access through a window costs nothing, but each page has to be shown by a fault, and by a system call of the host where its
//! kernel module does not help, and hidden after the guest has changed its mapping. So a space gets a window once its programs have
//! run for a while, and the time that they run pays for further pages. What that means in numbers depends on the shadow.

use super::context::NOWHERE;
use mmu::{Mmu, SpaceId};
use std::fmt;
use std::str::FromStr;

/// The most slices that have to end in a program before its space gets a window again, after windows that have not paid.
const MOST_SLICES: u32 = 1 << 12;

/// What windows cost, in numbers of events: faults at pages that they do not show, and system calls that show or hide pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prices {
    /// The slices that have to end in a program before its space gets its first window.
    first_slices: u32,
    /// The events that a new window may take.
    first_credit: i64,
    /// The events that each slice which ends in a program pays for: a fifth of the slice's time.
    earned: i64,
    /// The most events that can be saved up.
    most_credit: i64,
}

/// The prices of windows that consist of mappings: an event takes some ten microseconds, 23,000 to 53,000 instructions.
const MAPPED: Prices = Prices {
    first_slices: 4,
    first_credit: 200,
    earned: 6,
    most_credit: 600,
};

/// The prices of windows that the host's kernel module fills: an event takes 2,500 to 8,000 instructions.
const FILLED: Prices = Prices {
    first_slices: 4,
    first_credit: 1200,
    earned: 36,
    most_credit: 3600,
};

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
    /// The system calls that were charged, of all that the window took.
    charged: u64,
}

impl Account {
    /// The account of a space that has had no window.
    fn new(prices: &Prices) -> Self {
        Self {
            slices: 0,
            needed: prices.first_slices,
            credit: 0,
            charged: 0,
        }
    }

    /// Begins to account for a new window, `remaps` being the system calls before.
    fn open(&mut self, prices: &Prices, remaps: u64) {
        self.slices = 0;
        self.credit = prices.first_credit;
        self.charged = remaps;
    }

    /// Charges the system calls that the window has taken, `remaps` by now.
    fn charge(&mut self, remaps: u64) {
        self.credit -= (remaps - self.charged) as i64;
        self.charged = remaps;
    }
}

/// The policy by which windows are opened and closed.
pub struct WindowPolicy {
    windows: Windows,
    /// Accounts by index of the space, each with the space that it belongs to.
    accounts: Vec<Option<(SpaceId, Account)>>,
}

impl WindowPolicy {
    /// Creates the policy for a choice of windows.
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            accounts: Vec::new(),
        }
    }

    /// The value of GS's base for the present space.
    pub fn window(&self, mmu: &Mmu) -> u64 {
        match self.windows {
            Windows::Never => 0,
            Windows::Auto | Windows::Always => mmu.tlb().window().unwrap_or(NOWHERE),
        }
    }

    /// Opens a window for the program that is about to run, if it should have one from the start. Returns whether one was opened.
    pub fn before_program(&mut self, mmu: &mut Mmu) -> bool {
        self.windows == Windows::Always
            && mmu.tlb().window().is_none()
            && mmu.tlb_mut().open_window().is_ok()
    }

    /// Accounts for a slice of time that ended in a program. Returns whether a window was opened.
    pub fn after_slice(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let prices = prices(mmu);
        let account = self.account(mmu.tlb().space(), prices);
        if mmu.tlb().window().is_some() {
            account.charge(mmu.tlb().remaps());
            account.credit = (account.credit + prices.earned).min(prices.most_credit);
            return false;
        }
        account.slices += 1;
        if account.slices < account.needed {
            return false;
        }
        let opened = mmu.tlb_mut().open_window().is_ok();
        account.open(prices, mmu.tlb().remaps());
        opened
    }

    /// Accounts for a fault at a page that the window does not show. Returns whether the window was closed.
    pub fn after_fault(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let account = self.account(mmu.tlb().space(), prices(mmu));
        account.credit -= 1;
        account.charge(mmu.tlb().remaps());
        if account.credit >= 0 {
            return false;
        }
        account.needed = (2 * account.needed).min(MOST_SLICES);
        mmu.tlb_mut().close_window();
        true
    }

    /// The account of `space`; a new one, if the space is new.
    fn account(&mut self, space: SpaceId, prices: &Prices) -> &mut Account {
        let index = space.index();
        if self.accounts.len() <= index {
            self.accounts.resize(index + 1, None);
        }
        let slot = &mut self.accounts[index];
        let kept = slot.filter(|(owner, _)| *owner == space);
        let (_, account) = slot.insert(kept.unwrap_or((space, Account::new(prices))));
        account
    }
}

/// The prices of the windows that are opened from now on.
fn prices(mmu: &Mmu) -> &'static Prices {
    match mmu.tlb().kmod() {
        Some(_) => &FILLED,
        None => &MAPPED,
    }
}
