//! [`CodeCache`]: the guest's code as translated so far, page by page, kept in step with what the guest does to it.
//!
//! ```text
//!   lookup(EIP) ─► frame, mode ─► page, compared if it was written ─► entry ──known──► host address
//!                                                                       └─unknown─► scan, emit ─┘
//! ```
//!
//! | file | has |
//! |---|---|
//! | `page`, `page_set`, `entries` | code pages and the tables through which emitted code finds their entries |
//! | `scan` | looking up and translating entries |
//! | `link`, `direct` | connecting branches to their targets |
//! | `epochs`, `breakpoints` | when translations stop holding |
//! | `evict` | which pages stay when the buffer is full |
//! | `record`, `symbols`, `dump`, `inventory` | dumps and reports |
//!
//! Emitted code keeps return addresses on stacks of its own ([`HostStack`](super::stack::HostStack)), which this module does not
//! see. When they may have stopped holding, [`CodeCache::take_dropped_returns`] says so; the stacks have to be reset before
//! emitted code runs again.

mod breakpoints;
mod direct;
mod dump;
mod entries;
mod epochs;
mod evict;
mod inventory;
mod link;
mod page;
mod page_set;
mod record;
mod scan;
mod symbols;

use super::buffer::{CodeBuffer, FaultedInstruction};
use super::check::Verifier;
use super::context::Context;
use super::emit::Emitter;
use super::listing::Variant;
use super::mode::{Mode, PageKey};
use super::setup::Setup;
use super::stats::{Stats, TimeSpent};
use super::trampoline::Trampoline;
use crate::emulate::Exec;
use breakpoints::BreakpointOffsets;
use direct::DirectLinks;
pub use dump::NoDump;
use epochs::Epochs;
use evict::Aging;
pub use inventory::CodePageReport;
use mmu::{LinearAddr, Mmu, Privilege};
use page::Destination;
use page_set::PageSet;
use record::Records;
use std::io;
use std::time::Duration;

/// Translated code of one processor.
pub struct CodeCache {
    buffer: CodeBuffer,
    emitter: Emitter,
    pages: PageSet,
    direct: DirectLinks,
    breakpoints: BreakpointOffsets,
    aging: Aging,
    records: Records,
    epochs: Epochs,
    /// Return addresses on the host stacks may have stopped holding.
    dropped_returns: bool,
    stats: Stats,
}

/// The code that is wanted at an EIP.
#[derive(Clone, Copy)]
struct Request {
    key: PageKey,
    /// Offset of the first instruction in the page.
    offset: u32,
    variant: Variant,
    /// EIP of the processor that is about to execute it.
    eip: LinearAddr,
}

impl CodeCache {
    /// Creates a cache with nothing translated.
    ///
    /// # Errors
    /// The host's, where it grants no memory for code; a size out of range.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let buffer = CodeBuffer::new(&setup)?;
        let trampolines = *buffer.trampolines();
        let mut emitter = Emitter::new(trampolines, setup.width);
        if setup.record {
            emitter.record();
        }
        let spent = TimeSpent(setup.measure.then_some(Duration::ZERO));
        Ok(Self {
            buffer,
            emitter,
            pages: PageSet::new(trampolines.at(Trampoline::Emulate))?,
            direct: DirectLinks::default(),
            breakpoints: BreakpointOffsets::default(),
            aging: Aging::default(),
            records: Records::new(setup.jitdump),
            epochs: Epochs::default(),
            dropped_returns: false,
            stats: Stats {
                translating: spent,
                executing: spent,
                ..Stats::default()
            },
        })
    }

    /// Makes the checker examine a system call: see [`CodeBuffer::check_system_call`].
    #[cfg(test)]
    pub fn check_system_call(&mut self) {
        self.buffer.check_system_call();
    }

    /// The counts of what has been done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The counts, for what is done elsewhere.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// The verifier of emitted code.
    pub fn verifier(&self) -> &Verifier {
        self.buffer.verifier()
    }

    /// The host address of the area of entry tables.
    pub fn entries(&self) -> u64 {
        self.pages.tables()
    }

    /// The host address of a trampoline.
    pub fn trampoline(&self, trampoline: Trampoline) -> u64 {
        self.buffer.trampoline(trampoline)
    }

    /// Finds the guest instruction to which the code at host address `rip` belongs.
    pub fn instruction_at(&self, rip: u64) -> Option<FaultedInstruction> {
        self.buffer.instruction_at(rip)
    }

    /// The bytes from an offset of the page of `key` on that an instruction there can have, as they were scanned.
    pub fn bytes_from(&self, key: PageKey, offset: u32) -> Option<Vec<u8>> {
        Some(self.pages.get(key)?.bytes_from(offset))
    }

    /// Runs emitted code at the host address `target` until it exits.
    pub fn run(&mut self, context: &mut Context, target: u64) {
        let start = self.stats.executing.begin();
        self.buffer.run(context, target);
        self.stats.executing.end(start);
    }

    /// Notes that return addresses on the host stacks have stopped holding.
    pub fn drop_returns(&mut self) {
        self.dropped_returns = true;
    }

    /// Whether return addresses on the host stacks may have stopped holding since the last call.
    pub fn take_dropped_returns(&mut self) -> bool {
        std::mem::take(&mut self.dropped_returns)
    }

    /// Whether nothing has changed since [`Self::follow`] that translations depend on.
    pub fn is_current(&self, mmu: &Mmu) -> bool {
        Epochs::now(mmu) == self.epochs
    }

    /// Invalidates the translations that changed breakpoints, stores to code and changed mappings have made stale.
    pub fn follow(&mut self, cx: &mut Exec<'_>) {
        self.follow_breakpoints(cx);
        self.follow_changes(cx);
    }

    /// Invalidates the translations that stores to code and changed mappings have made stale.
    fn follow_changes(&mut self, cx: &mut Exec<'_>) {
        let now = Epochs::now(cx.mmu);
        if now == self.epochs {
            return;
        }
        if now.code != self.epochs.code {
            for frame in cx.mmu.take_code_writes() {
                for mode in Mode::ALL {
                    self.invalidate(PageKey { frame, mode });
                }
                for key in self.pages.take_crossings(frame) {
                    self.invalidate(key);
                }
            }
        }
        if now.shared != self.epochs.shared {
            self.unlink_incoming();
        }
        let losses = cx.mmu.tlb_mut().take_windowed_losses();
        self.direct.follow_losses(&mut self.buffer, cx.mmu, losses);
        self.dropped_returns = true;
        self.epochs = now;
    }

    /// Invalidates the page of `key`: it is looked up, and compared with what was scanned, before its code executes again.
    fn invalidate(&mut self, key: PageKey) {
        for link in self.pages.invalidate(key) {
            self.buffer.unlink(link);
        }
    }

    /// Rejects the translations of the page of `key`, whatever its bytes are.
    fn reject(&mut self, key: PageKey) {
        self.invalidate(key);
        if let Some(page) = self.pages.get_mut(key) {
            page.set_invalid();
        }
    }

    /// Leads all branches to other pages through the dispatcher.
    fn unlink_incoming(&mut self) {
        for link in self.pages.take_incoming() {
            self.buffer.unlink(link);
        }
    }

    /// Makes the code for `eip` known, executed in `mode`. Returns its host address; `None` when the emulator has to execute the
    /// instruction there.
    pub fn lookup(&mut self, cx: &mut Exec<'_>, eip: LinearAddr, mode: Mode) -> Option<u64> {
        let privilege = mode.privilege();
        let frame = cx.mmu.fetch_page(eip, privilege).ok()?;
        let key = PageKey { frame, mode };
        let destination = self.destination(
            cx,
            Request {
                key,
                offset: eip.offset(),
                variant: Variant::Grouped,
                eip,
            },
        );
        let slot = self.pages.code_slot(key, eip)?;
        let page = self.pages.get_mut(key)?;
        if privilege == Privilege::Supervisor && page.note_address(eip.page()) {
            // Links without a guard, made where it has executed before, lead to the page behind that place.
            self.unlink_incoming();
        }
        cx.mmu.tlb_mut().set_code(eip.page(), privilege, slot);
        self.after_lookup(cx, key, eip, destination)
    }

    /// The host address of the code for `eip` just looked up in the page of a key; `None` when the emulator has to execute the
    /// instruction.
    fn after_lookup(
        &mut self,
        cx: &mut Exec<'_>,
        PageKey { frame, mode }: PageKey,
        eip: LinearAddr,
        destination: Destination,
    ) -> Option<u64> {
        // Fetching may have changed what is fetched from.
        self.follow_changes(cx);
        if mode.is_windowed() {
            self.direct
                .add_mapping(&mut self.buffer, cx.mmu, frame, eip);
        }
        match destination {
            Destination::Code(code) => Some(self.buffer.address_of(code)),
            Destination::Emulate | Destination::EmulateOnce => None,
        }
    }

    /// Removes all translations.
    fn clear(&mut self, cx: &mut Exec<'_>) {
        self.stats.cleared += 1;
        cx.mmu.tlb_mut().clear_code();
        self.pages.clear();
        self.direct.clear();
        self.records.clear();
        self.buffer.clear();
        self.aging = Aging::default();
        self.dropped_returns = true;
    }
}
