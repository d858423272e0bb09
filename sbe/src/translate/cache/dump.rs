//! [`Dump`]: a page of guest code beside the code emitted for it, as text, read from the arena as it is now.
//!
//! ```text
//! fragment @004
//!           hot+000    lea 8(%r8),%r13d
//!   004  01c3                    add %eax,%ebx                             copy
//!           hot+007    add %eax,%ebx
//!   006  f4                      hlt                                       emulate
//!           hot+009    mov $6,%r9d
//!           hot+00f    jmp emulate_at
//! ```
//!
//! Nothing in it depends on the arena's host address. An offset in another fragment of the page is named by that one's entry,
//! `@004+7`, or `@004-plain+7` in the plain variant; an offset in another page by its frame, too: `101@004+7`.

use super::CodeCache;
use super::page::{CodePage, Destination};
use super::symbols::Symbols;
use crate::cpu::model::Level;
use crate::decode::decoder::{CodeSize, decode_announced};
use crate::translate::buffer::CodeBuffer;
use crate::translate::classify::Verdict;
use crate::translate::listing::{Listing, Mark};
use crate::translate::mode::{Mode, PageKey};
use iced_x86::{Code, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, OpKind};
use mmu::Frame;
use std::fmt;
use std::ops::Range;

/// The reason why a page cannot be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDump {
    /// The emulator runs the guest.
    #[error("no code is translated: the emulator runs the guest")]
    NoTranslator,
    /// The page tables have no translation for the address.
    #[error("the guest's page tables do not map it")]
    NotMapped,
    /// No instruction of the page is translated, or its code was evicted.
    #[error("nothing of this page is translated")]
    NothingTranslated,
}

/// The sections of a fragment, hot first.
const SECTIONS: [&str; 2] = ["hot", "cold"];

/// A dump in the making.
struct Dump<'a> {
    buffer: &'a CodeBuffer,
    symbols: &'a Symbols,
    page: &'a CodePage,
    listings: &'a [Listing],
    code_size: CodeSize,
    level: Level,
    /// Linear address of the page.
    base: u64,
    formatter: GasFormatter,
    text: String,
}

impl CodeCache {
    /// Writes the code page in `frame`, at linear address `base`, of a processor of this level, beside the code emitted for it, as
    /// text; empty if there is none.
    pub fn dump(&self, frame: Frame, base: u64, level: Level) -> String {
        let mut text = String::new();
        for mode in Mode::ALL {
            let key = PageKey { frame, mode };
            let page = self.pages.get(key);
            if let Some(page) = page.filter(|page| !page.entries().is_empty()) {
                let between = if text.is_empty() { "" } else { "\n" };
                let frame = frame.get();
                text += &format!("{between}page {base:08x}, frame {frame:x}, {mode:?}\n");
                text += &self.dump_page(key, page, base, level);
            }
        }
        text
    }

    fn dump_page(&self, key: PageKey, page: &CodePage, base: u64, level: Level) -> String {
        let mut formatter = GasFormatter::new();
        formatter.options_mut().set_uppercase_hex(false);
        let mut dump = Dump {
            buffer: &self.buffer,
            symbols: &self.symbols(key),
            page,
            listings: self.records.listings(key),
            code_size: key.mode.code_size(),
            level,
            base,
            formatter,
            text: String::new(),
        };
        dump.fragments();
        dump.text
    }

    /// The names of trampolines and fragments for a dump of the page of `key`.
    fn symbols(&self, key: PageKey) -> Symbols {
        let mut symbols = Symbols::new(self.buffer.trampolines());
        for (other, listing) in self.records.all_listings() {
            let prefix = match other == key {
                true => String::new(),
                false => format!("{:x}", other.frame.get()),
            };
            symbols.add(&prefix, listing);
        }
        symbols
    }
}

impl Dump<'_> {
    /// Writes all fragments, and entries that the emulator executes, in the order of their offsets.
    fn fragments(&mut self) {
        let page = self.page;
        let emulated = page.entries().iter().filter_map(|&(at, destination)| {
            (destination == Destination::Emulate).then_some((u32::from(at), None))
        });
        let emitted = self
            .listings
            .iter()
            .map(|listing| (listing.at, Some(listing)));
        let mut all: Vec<_> = emulated.chain(emitted).collect();
        all.sort_by_key(|&(at, _)| at);
        for (at, listing) in all {
            match listing {
                Some(listing) => self.fragment(listing),
                None => self.emulated(at),
            }
        }
    }

    fn emulated(&mut self, at: u32) {
        self.line(format_args!("\nemulated @{at:03x}"));
        self.guest(at, Verdict::Emulate);
    }

    fn fragment(&mut self, listing: &Listing) {
        self.line(format_args!("\nfragment {}", listing.name()));
        let [mut from, _] = listing.start;
        for &Mark {
            offset,
            verdict,
            code,
        } in &listing.marks.instructions
        {
            self.host(listing, from..code);
            self.guest(offset, verdict);
            from = code;
        }
        self.host(listing, from..listing.marks.end);
        let [hot_end, cold_end] = listing.end;
        let rest = [listing.marks.end..hot_end, listing.start[1]..cold_end];
        if rest.iter().any(|code| !code.is_empty()) {
            self.line(format_args!("  out of line"));
        }
        for code in rest {
            self.host(listing, code);
        }
    }

    /// Writes the instruction at `offset` of the page.
    fn guest(&mut self, offset: u32, verdict: Verdict) {
        let bytes = self.page.bytes_from(offset);
        let ip = self.base + u64::from(offset);
        let (length, text) = match decode_announced(&bytes, self.code_size, self.level, ip) {
            Ok(raw) => (raw.len(), self.text_of(&raw)),
            Err(_) => (1, "(bad)".to_owned()),
        };
        let hex: String = bytes[..length]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.line(format_args!(
            "  {offset:03x}  {hex:<22}  {text:<40}  {verdict}"
        ));
    }

    /// Writes the code of `listing` at the arena offsets `range`.
    fn host(&mut self, listing: &Listing, range: Range<u32>) {
        let code = self.buffer.read(range.clone());
        for instruction in Decoder::with_ip(64, &code, range.start.into(), DecoderOptions::NONE) {
            let at = position(listing, instruction.ip32());
            let text = match (instruction.op0_kind(), instruction.code()) {
                (OpKind::NearBranch64, _) => self.branch(listing, &instruction),
                (_, Code::Mov_r64_imm64) if instruction.immediate64() != 0 => {
                    let register = self.formatter.format_register(instruction.op0_register());
                    format!("movabs $<host>,{register}")
                }
                _ => self.text_of(&instruction),
            };
            self.line(format_args!(
                "          {:<10} {text}",
                at.unwrap_or_default()
            ));
        }
    }

    /// The text of a branch of `listing`, with the name of its target.
    fn branch(&mut self, listing: &Listing, branch: &Instruction) -> String {
        let mut text = String::new();
        self.formatter.format_mnemonic(branch, &mut text);
        let target = branch.near_branch_target() as u32;
        let name = position(listing, target).unwrap_or_else(|| self.symbols.name(target));
        format!("{text} {name}")
    }

    fn text_of(&mut self, instruction: &Instruction) -> String {
        let mut text = String::new();
        self.formatter.format(instruction, &mut text);
        text
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.text += line.to_string().trim_end();
        self.text.push('\n');
    }
}

/// The name of arena offset `at` within `listing`, if it is there.
fn position(listing: &Listing, at: u32) -> Option<String> {
    let section = (0..2).find(|&index| (listing.start[index]..listing.end[index]).contains(&at))?;
    Some(format!(
        "{}+{:03x}",
        SECTIONS[section],
        at - listing.start[section]
    ))
}
