//! [`KmodWindow`]: a shadow whose pages the host's kernel module shows, straight from the slots.
//!
//! ```text
//!   base ─► ┌──────── 3 GiB ────────┐
//!           │ the device's area     │ a page is accessible as its slots say, from when it is touched until it is zapped
//!           ├──────── 1 GiB ────────┤
//!           │ inaccessible, and a   │
//!           │ guard page            │ for operands that begin at the last linear address
//! ```
//!
//! A touch of a page with slots stays in the host's kernel; only one of a page without is SIGSEGV, and the slots have been filled
//! when [`Shadow::show`] is called. Where the module cannot show a page all the same ([`Retries`]), or hide one, the window goes on
//! without it, at the same addresses, as a [`Window`].
//!
//! | file     | what it holds                                        |
//! |----------|------------------------------------------------------|
//! | `abi`    | the interface of the device                          |
//! | `device` | the open device of a machine, and its windows        |
//! | `error`  | why the device is not used                           |
//! | `retry`  | what becomes of faults at pages whose slots are filled |

mod abi;
mod device;
mod error;
mod retry;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Extent, SHADOW_PAGES, Shadow, Window};
use crate::memory::Memory;
pub use abi::KmodStats;
use abi::RANGES_MAX;
pub(crate) use abi::SLOT_PRESENT;
use device::Area;
pub use device::Kmod;
pub(crate) use device::UserTables;
pub use error::KmodError;
use retry::{Remedy, Retries};

/// A shadow in a window of the host's kernel module.
#[derive(Debug)]
pub(crate) struct KmodWindow {
    kmod: Arc<Kmod>,
    memory: Arc<Memory>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The module shows the pages.
    Served { area: Area, retries: Retries },
    /// The module has failed; pages are mapped.
    Mapped(Window),
    /// Between two states.
    Changing,
}

impl KmodWindow {
    /// Takes a window for the tables of an address space.
    ///
    /// # Errors
    /// The host's error, or `QuotaExceeded` when all windows are in use.
    pub(crate) fn new(
        kmod: &Arc<Kmod>,
        memory: &Arc<Memory>,
        tables: UserTables,
    ) -> io::Result<Self> {
        let state = State::Served {
            area: kmod.window(tables)?,
            retries: Retries::default(),
        };
        Ok(Self {
            kmod: Arc::clone(kmod),
            memory: Arc::clone(memory),
            state,
        })
    }

    /// Goes on without the module, with nothing accessible.
    fn give_up(&mut self, reason: &dyn fmt::Display) {
        let state = std::mem::replace(&mut self.state, State::Changing);
        self.state = match state {
            State::Served { area, .. } => {
                self.kmod.report_failure(reason);
                let mapping = self.kmod.discard(area);
                State::Mapped(Window::over(mapping, 0, Arc::clone(&self.memory)))
            }
            other => other,
        };
    }
}

impl Drop for KmodWindow {
    fn drop(&mut self) {
        if let State::Served { area, .. } = std::mem::replace(&mut self.state, State::Changing) {
            self.kmod.put_back(area);
        }
    }
}

impl Shadow for KmodWindow {
    fn base(&self) -> u64 {
        match &self.state {
            State::Served { area, .. } => area.base(),
            State::Mapped(window) => window.base(),
            State::Changing => unreachable!("a change of state is not left unfinished"),
        }
    }

    fn show(&mut self, extent: Extent) -> io::Result<u64> {
        if let State::Served { retries, .. } = &mut self.state {
            let device = self.kmod.device();
            // A machine that cannot ask has seen nothing.
            let served = || device.stats().map_or(0, |stats| stats.faults);
            match retries.remedy(extent, served) {
                // The caller has just read them.
                Remedy::Touch => return Ok(0),
                Remedy::Release => match device.release() {
                    Ok(()) => return Ok(1),
                    Err(error) => self.give_up(&format_args!("cannot let go of pages: {error}")),
                },
                Remedy::GiveUp => self.give_up(&"shows a page neither after its slots were touched nor after all pages were let go"),
            }
        }
        match &mut self.state {
            State::Mapped(window) => window.show(extent),
            State::Served { .. } | State::Changing => Ok(0),
        }
    }

    fn hide(&mut self, pages: &[Range<u32>]) -> u64 {
        let (area, retries) = match &mut self.state {
            State::Served { area, retries } => (area, retries),
            State::Mapped(window) => return window.hide(pages),
            State::Changing => return 0,
        };
        retries.forget();
        let mut calls = 0;
        let ranges = pages
            .iter()
            .map(|pages| pages.start.min(SHADOW_PAGES)..pages.end.min(SHADOW_PAGES));
        let ranges: Vec<_> = ranges
            .filter(|pages| !pages.is_empty())
            .map(abi::Range::from)
            .collect();
        for batch in ranges.chunks(RANGES_MAX) {
            calls += 1;
            if let Err(error) = self.kmod.device().zap(area.base(), batch) {
                // Whatever the reason, a page that is not hidden must not stay.
                self.give_up(&format_args!("cannot hide pages: {error}"));
                return calls + 1;
            }
        }
        calls
    }

    /// The module's pages take no mappings.
    fn count(&self) -> usize {
        match &self.state {
            State::Served { .. } | State::Changing => 0,
            State::Mapped(window) => window.count(),
        }
    }

    fn shows_slots(&self) -> bool {
        matches!(self.state, State::Served { .. })
    }
}
