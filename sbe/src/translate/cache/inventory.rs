//! [`CodePageReport`]: a summary of a code page, for people.

use super::CodeCache;
use super::page::{CodePage, Destination};
use crate::translate::mode::PageKey;
use mmu::{Frame, PAGE_SIZE, Timestamp};
use std::fmt;

/// A summary of a page of guest code that was scanned in one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePageReport {
    /// The guest-physical page.
    pub frame: Frame,
    /// The mode in which it executes: `Supervisor`, `User`, or `Windowed` for programs that have a window; with `64` behind it for
    /// 64-bit code.
    pub mode: &'static str,
    /// The number of entries that lead to translated code.
    pub translated: usize,
    /// The number of entries that lead to the emulator.
    pub emulated: usize,
    /// The number of bytes of the page that translations were made from.
    pub scanned: usize,
    /// The number of branches of other pages that lead here.
    pub incoming: usize,
    /// The time at which the page was looked up last.
    pub executed: Timestamp,
    /// Whether the page has to be compared with what was scanned before it executes again: it, or the page behind it, was
    /// written, or breakpoints in it have come or gone.
    pub stale: bool,
}

impl CodePageReport {
    fn of(key: PageKey, page: &CodePage) -> Self {
        let is_code =
            |&&(_, destination): &&(u16, Destination)| matches!(destination, Destination::Code(_));
        let translated = page.entries().iter().filter(is_code).count();
        Self {
            frame: key.frame,
            mode: key.mode.name(),
            translated,
            emulated: page.entries().len() - translated,
            scanned: page.scanned_bytes(),
            incoming: page.incoming(),
            executed: page.executed(),
            stale: page.is_stale(),
        }
    }
}

impl CodeCache {
    /// The code pages by frame and mode.
    pub fn inventory(&self) -> Vec<CodePageReport> {
        let mut pages: Vec<_> = self.pages.iter().collect();
        pages.sort_unstable_by_key(|(key, _)| (key.frame, key.mode as u8));
        let reports = pages.into_iter();
        reports
            .map(|(key, page)| CodePageReport::of(key, page))
            .collect()
    }
}

impl fmt::Display for CodePageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frame {:05x}  {:<10}  {} of {PAGE_SIZE} bytes scanned, {} entries translated, {} emulated, {} links to it, looked up at {}",
            self.frame.get(),
            self.mode,
            self.scanned,
            self.translated,
            self.emulated,
            self.incoming,
            self.executed.get(),
        )?;
        if self.stale {
            f.write_str(", changed since")?;
        }
        Ok(())
    }
}
