//! The translator: guest code runs as host code made from it, page by page: scan before execute.
//!
//! ```text
//!   engine ── lookup (frame, offset) ──miss──► fragment: decode, verdict, emit ──► arena (W^X)
//!      │                                                                             │
//!      └── enter ──► emitted code: chains in its page, jump cache across pages ──────┘
//!             ◄───── exit: emulate one instruction, link a branch, look up a target, budget used up
//! ```
//!
//! | files | what they do |
//! |---|---|
//! | `engine`, `exchange` | the loop around emitted code; the processor's state on its way there and back |
//! | `scan`, `page`, `fragment`, `classify`, `emit` | from a page of guest code to host code |
//! | `links`, `direct`, `entries` | from code to code |
//! | `windows`, `signal`, `fault`, `restarts` | memory through windows |
//! | `segments`, `stack` | what emitted code knows of segment registers; its stacks |
//! | `trampoline`, `sequences`, `context`, `arena`, `asm`, `operands` | the fixed code, the shared state, memory for code, encoding |
//! | `evict` | what goes when the arena is full |
//! | `check` | proves what was emitted |
//! | `dump`, `listing`, `places`, `jitdump`, `names`, `stats` | seeing inside |
//!
//! Emitted code holds the guest's registers and status flags in the host's. It reaches guest memory through the MMU's flat
//! tables and windows only, and whatever it cannot do (MMIO, a rare privileged instruction, a string that runs downwards) it
//! leaves to the emulator by an exit before anything of that instruction has happened. So a translation is never less exact
//! than the emulator, and every exit has the guest's precise state.

mod arena;
mod asm;
mod check;
mod classify;
mod context;
mod direct;
mod dump;
mod emit;
mod engine;
mod entries;
mod evict;
mod exchange;
mod fault;
mod fragment;
mod inventory;
mod jitdump;
mod links;
mod listing;
mod mode;
mod names;
mod operands;
mod page;
mod places;
mod restarts;
mod scan;
mod segments;
mod sequences;
mod signal;
mod stack;
mod stats;
mod stops;
mod trampoline;
mod windows;

pub use arena::CODE_CACHES;
pub use dump::NoDump;
pub use engine::{Outcome, Translator, is_flat};
pub use inventory::CodePageReport;
pub use stats::{Exits, Stats};
pub use windows::{UnknownWindows, Windows};

#[cfg(test)]
mod tests;
