//! What a translator knows of its code pages, for people.

use super::engine::Translator;
use super::mode::Mode;
use super::page::Entry;
use mmu::{Frame, PAGE_SIZE, Timestamp};
use std::fmt;

/// A page of guest code that was scanned in one mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePageReport {
    /// The guest-physical page.
    pub frame: Frame,
    /// How it executes: `Supervisor`, `User`, or `Windowed` for programs that have a window.
    pub mode: &'static str,
    /// Entries that lead to translated code.
    pub translated: usize,
    /// Entries that lead to the emulator.
    pub emulated: usize,
    /// Bytes of the page that translations were made from.
    pub scanned: usize,
    /// Branches of other pages that lead here.
    pub incoming: usize,
    /// When it was looked up last.
    pub executed: Timestamp,
    /// Whether it has to be looked at before it executes again: the page, or what follows it, was written, or breakpoints in it
    /// have come or gone.
    pub hidden: bool,
}

impl Translator {
    /// The code pages by frame and mode.
    pub fn inventory(&self) -> Vec<CodePageReport> {
        let mut pages: Vec<_> = self.pages.iter().collect();
        pages.sort_unstable_by_key(|((frame, mode), _)| (*frame, *mode as u8));
        let report = |(&(frame, mode), page): (&(Frame, Mode), &super::page::CodePage)| {
            let is_code = |&&(_, entry): &&(u16, Entry)| matches!(entry, Entry::Code(_));
            let translated = page.entries().iter().filter(is_code).count();
            CodePageReport {
                frame,
                mode: mode.name(),
                translated,
                emulated: page.entries().len() - translated,
                scanned: page.scanned_bytes(),
                incoming: page.incoming.len(),
                executed: page.executed,
                hidden: page.hidden,
            }
        };
        pages.into_iter().map(report).collect()
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
        if self.hidden {
            f.write_str(", changed since")?;
        }
        Ok(())
    }
}
