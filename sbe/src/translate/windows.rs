//! When address spaces have windows: where they pay.
//!
//! An access through a window costs nothing, but each page has to be mapped by a fault and a call of the host, some ten
//! microseconds, and again after the guest has changed its mapping. So a space gets a window once its programs have run for a
//! while, and pays for what the window costs by running on.

use super::context::NOWHERE;
use mmu::{Mmu, SpaceId};
use std::fmt;
use std::str::FromStr;

/// Slices that end in a program before its space gets a window, at first.
const FIRST_SLICES: u32 = 4;
/// The same at most, after windows that have not paid.
const MOST_SLICES: u32 = 1 << 12;
/// Calls of the host that a new window may take.
const FIRST_CREDIT: i64 = 200;
/// That each slice which ends in a program adds: a fifth of the slice's time.
const EARNED: i64 = 6;
/// That can be saved.
const MOST_CREDIT: i64 = 600;

/// Which address spaces have windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Windows {
    /// Those whose programs run long.
    #[default]
    Auto,
    /// All in which programs run.
    Always,
    /// None.
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

/// Not a choice of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is one of auto, always and never")]
pub struct UnknownWindows;

/// What is known of one space.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// Slices that ended in a program since the last window.
    slices: u32,
    /// How many it takes.
    needed: u32,
    /// Calls of the host that the window may still take.
    credit: i64,
    /// Calls that were settled.
    settled: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            slices: 0,
            needed: FIRST_SLICES,
            credit: 0,
            settled: 0,
        }
    }
}

impl Account {
    fn settle(&mut self, remaps: u64) {
        self.credit -= (remaps - self.settled) as i64;
        self.settled = remaps;
    }
}

/// Opens and closes windows.
pub struct WindowPolicy {
    windows: Windows,
    /// By the spaces' indices, each with the space that it is for.
    accounts: Vec<Option<(SpaceId, Account)>>,
}

impl WindowPolicy {
    /// For the windows that are wanted.
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            accounts: Vec::new(),
        }
    }

    /// What GS's base is to be in the present space.
    pub fn window(&self, mmu: &Mmu) -> u64 {
        match self.windows {
            Windows::Never => 0,
            Windows::Auto | Windows::Always => mmu.tlb().window().unwrap_or(NOWHERE),
        }
    }

    /// A program is about to run. Returns whether a window was opened.
    pub fn before_program(&mut self, mmu: &mut Mmu) -> bool {
        self.windows == Windows::Always
            && mmu.tlb().window().is_none()
            && mmu.tlb_mut().open_window().is_ok()
    }

    /// A slice of time ended in a program. Returns whether a window was opened.
    pub fn after_slice(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let account = self.account(mmu.tlb().space());
        if mmu.tlb().window().is_some() {
            account.settle(mmu.tlb().remaps());
            account.credit = (account.credit + EARNED).min(MOST_CREDIT);
            return false;
        }
        account.slices += 1;
        if account.slices < account.needed {
            return false;
        }
        account.slices = 0;
        let opened = mmu.tlb_mut().open_window().is_ok();
        account.credit = FIRST_CREDIT;
        account.settled = mmu.tlb().remaps();
        opened
    }

    /// A program faulted at what its window does not show. Returns whether the window was closed.
    pub fn after_fault(&mut self, mmu: &mut Mmu) -> bool {
        if self.windows != Windows::Auto {
            return false;
        }
        let account = self.account(mmu.tlb().space());
        account.credit -= 1;
        account.settle(mmu.tlb().remaps());
        if account.credit >= 0 {
            return false;
        }
        account.needed = (2 * account.needed).min(MOST_SLICES);
        mmu.tlb_mut().close_window();
        true
    }

    /// The account of `space`, a new one if that is new.
    fn account(&mut self, space: SpaceId) -> &mut Account {
        let index = space.index();
        if self.accounts.len() <= index {
            self.accounts.resize(index + 1, None);
        }
        let slot = &mut self.accounts[index];
        let kept = slot.filter(|(owner, _)| *owner == space);
        let (_, account) = slot.insert(kept.unwrap_or((space, Account::default())));
        account
    }
}
