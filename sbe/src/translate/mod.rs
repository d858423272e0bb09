//! The translator: guest code runs as host code made from it, page by page: scan before execute.
//!
//! ```text
//!   engine ──► cache: lookup(EIP) ──unknown──► fragment: decode, verdict, emit ──► buffer, arena (W^X)
//!      │                                                                              │
//!      └── enter ──► emitted code: branches linked in and across pages; code table and entry tables for the others
//!             ◄───── exit: emulate one instruction, link a branch, look up a target, fill a slot, budget used up
//! ```
//!
//! Modules use those of their own line and of the lines below only:
//!
//! | layer | modules |
//! |---|---|
//! | the loop | `engine`: the exits, and the processor's state on its way to emitted code and back |
//! | the guest's code as translated | `cache`: pages, their entries and links, eviction, dumps |
//! | emitted code | `buffer`: fragments and trampolines in memory, checked and patched |
//! | proof of what was emitted | `check` |
//! | from guest code to host code | `fragment`, `emit` |
//! | fixed code | `trampoline`, `sequences` |
//! | memory, state and choices to run with | `arena`, `context`, `stack`, `signal`, `segments`; `windows`: which spaces have windows; `setup` |
//! | encoding and plain data | `asm`, `bounds`, `operands`, `classify`, `listing`, `fault_map`, `mode`, `origin`, `reach`, `stats`, `jitdump`, `x87_note` |
//!
//! Emitted code holds the guest's registers and status flags in the host's. It reaches guest memory through the MMU's flat
//! tables and windows only. Instructions that it cannot execute (MMIO, rare privileged instructions, repeated strings that run downwards)
//! it leaves to the emulator, by an exit before anything of the instruction has happened. So a translation is never less exact
//! than the emulator, and every exit has the guest's precise state.

mod arena;
mod asm;
mod bounds;
mod buffer;
mod cache;
mod check;
mod classify;
mod context;
mod emit;
mod engine;
mod fault_map;
mod fragment;
mod jitdump;
mod listing;
mod mode;
mod operands;
mod origin;
mod reach;
mod segments;
mod sequences;
mod setup;
mod signal;
mod stack;
mod stats;
mod trampoline;
mod windows;
mod x87_note;

pub use arena::CODE_CACHES;
pub use cache::{CodeCache, CodePageReport, NoDump};
pub use engine::{Outcome, Translator, is_flat};
pub use jitdump::JitDump;
pub use setup::Setup;
pub use signal::{are_windows_possible, can_handle_faults};
pub use stats::{Exits, Stats, TimeSpent};
pub use windows::{UnknownWindows, Windows};

#[cfg(test)]
mod tests;
