//! [`Setup`]: the choices that make a translator.

use super::jitdump::JitDump;
use super::windows::Windows;
use mmu::LinearWidth;

/// The choices that make a translator.
pub struct Setup {
    /// The width of linear addresses.
    pub width: LinearWidth,
    /// The room for emitted code in bytes: one of [`CODE_CACHES`](super::CODE_CACHES).
    pub code_cache: usize,
    /// The choice of the address spaces that get windows, where the host lets emitted code use them.
    pub windows: Windows,
    /// Whether all emitted code is checked.
    pub verify: bool,
    /// Whether what dumps of code need is kept.
    pub record: bool,
    /// Whether the time in which emitted code runs is measured.
    pub measure: bool,
    /// The file by which `perf` is told of all emitted code.
    pub jitdump: Option<JitDump>,
}
