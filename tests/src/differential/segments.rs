//! Segments: those that every case has, and those of the LDT that a batch of cases shares.
//!
//! An LDT entry is kept as `modify_ldt` of Linux takes it (`struct user_desc`), so that it describes every kind of segment that
//! a process may have, and nothing else: code and data of 16 and 32 bits with DPL 3, expand-down, read-only, execute-only, limits
//! in bytes and pages, any base, present or not; conforming code only if it is not present.

use super::layout::{
    CODE, FLAT_CODE, FLAT_CODE_64, FLAT_DATA, LDT_ENTRIES, PAGE, SANDBOX, SANDBOX_PAGES,
    SEGMENT_BASE, SEGMENT_DOWN, SEGMENT_DOWN_LIMIT, SEGMENT_LIMITED, SEGMENT_LIMITED_LIMIT,
    SEGMENT_READ_ONLY, SEGMENT_READ_ONLY_LIMIT,
};
use fastrand::Rng;

/// Bits of [`Entry::flags`], as in `struct user_desc`: seg_32bit.
const BITS_32: u32 = 1 << 0;
/// contents: expand-down data.
const EXPAND_DOWN: u32 = 1 << 1;
/// contents: code.
const CODE_SEGMENT: u32 = 2 << 1;
/// contents: conforming code.
const CONFORMING: u32 = 3 << 1;
/// read_exec_only.
const RESTRICTED: u32 = 1 << 3;
/// limit_in_pages.
const LIMIT_IN_PAGES: u32 = 1 << 4;
/// seg_not_present.
const NOT_PRESENT: u32 = 1 << 5;
/// useable, the bit for software.
const USEABLE: u32 = 1 << 6;
/// Table indicator and RPL 3 of a selector.
const LOCAL: u16 = 7;
/// Largest offset of a segment of 16 bits.
const LIMIT_16: u32 = 0xffff;

/// An entry of the LDT; the default is an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Base.
    pub base: u32,
    /// Limit, 20 bits, in bytes or pages.
    pub limit: u32,
    /// The bits behind the limit in `struct user_desc`.
    pub flags: u32,
}

impl Entry {
    /// Whether the entry describes no segment.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The descriptor that Linux makes of the entry (SDM Vol. 3A, 3.4.5 "Segment Descriptors"): DPL 3, accessed.
    pub fn descriptor(self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        const CODE_OR_DATA: u32 = 1 << 4;
        const DPL_3: u32 = 3 << 5;
        const ACCESSED: u32 = 1;
        let bit = |flag: u32| u32::from(self.flags & flag != 0);
        let access = ACCESSED
            | (1 - bit(RESTRICTED)) << 1
            | (self.flags >> 1 & 3) << 2
            | CODE_OR_DATA
            | DPL_3
            | (1 - bit(NOT_PRESENT)) << 7;
        let upper = bit(USEABLE) | bit(BITS_32) << 2 | bit(LIMIT_IN_PAGES) << 3;
        let high = self.base >> 16 & 0xff
            | access << 8
            | self.limit & 0xf_0000
            | upper << 20
            | self.base & 0xff00_0000;
        u64::from(high) << 32 | u64::from(self.base << 16 | self.limit & 0xffff)
    }

    fn segment(self) -> Segment {
        let limit = if self.flags & LIMIT_IN_PAGES == 0 {
            self.limit
        } else {
            self.limit << 12 | 0xfff
        };
        let is_code = self.flags & CODE_SEGMENT != 0;
        Segment {
            base: self.base,
            limit,
            big: self.flags & BITS_32 != 0,
            long: false,
            code: is_code,
            down: !is_code && self.flags & EXPAND_DOWN != 0,
            restricted: self.flags & RESTRICTED != 0,
            present: self.flags & NOT_PRESENT == 0,
        }
    }
}

/// A segment as a selector names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Base.
    pub base: u32,
    limit: u32,
    /// Whether it is of 32 bits (D or B).
    pub big: bool,
    /// Whether it is 64-bit code (L).
    long: bool,
    code: bool,
    down: bool,
    /// Read-only data, or execute-only code.
    restricted: bool,
    present: bool,
}

impl Segment {
    const fn data(base: u32, limit: u32, down: bool, restricted: bool) -> Self {
        Self {
            base,
            limit,
            big: true,
            long: false,
            code: false,
            down,
            restricted,
            present: true,
        }
    }

    /// Whether DS, ES, FS and GS can be loaded with it.
    pub fn is_data(&self) -> bool {
        self.present && !(self.code && self.restricted)
    }

    /// Whether SS can be loaded with it.
    pub fn is_stack(&self) -> bool {
        self.present && self.is_writable()
    }

    /// Whether CS can be loaded with it.
    pub fn is_code(&self) -> bool {
        self.present && self.code
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        !self.code && !self.restricted
    }

    /// Bits of code in it: 16, 32 or 64.
    pub fn bits(&self) -> u32 {
        match (self.long, self.big) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }

    /// Whether `size` bytes at `offset` lie inside.
    pub fn contains(&self, offset: u32, size: u32) -> bool {
        let Some(last) = offset.checked_add(size.max(1) - 1) else {
            return false;
        };
        if self.down {
            offset > self.limit && (self.big || last <= LIMIT_16)
        } else {
            last <= self.limit
        }
    }
}

/// The LDT of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalTable([Entry; LDT_ENTRIES]);

impl LocalTable {
    /// A table of segments of every kind. Entries 0 and 1 stay empty.
    pub fn random(rng: &mut Rng) -> Self {
        let mut table = Self::default();
        for (index, entry) in table.0.iter_mut().enumerate().skip(2) {
            *entry = match index {
                2..=9 => code(rng),
                _ => data(rng),
            };
            if index % 8 == 7 && percent(rng, 70) {
                entry.flags |= NOT_PRESENT;
                if percent(rng, 30) {
                    entry.flags |= CONFORMING;
                }
            }
        }
        table
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry; LDT_ENTRIES] {
        &self.0
    }

    /// The segment that `selector` names; `None` if a user program cannot load it into any register.
    pub fn segment(&self, selector: u16) -> Option<Segment> {
        let data =
            |limit, down, restricted| Some(Segment::data(SEGMENT_BASE, limit, down, restricted));
        match selector {
            FLAT_DATA => Some(Segment::data(0, u32::MAX, false, false)),
            FLAT_CODE => Some(Segment {
                code: true,
                ..Segment::data(0, u32::MAX, false, false)
            }),
            FLAT_CODE_64 => Some(Segment {
                code: true,
                big: false,
                long: true,
                ..Segment::data(0, u32::MAX, false, false)
            }),
            SEGMENT_LIMITED => data(SEGMENT_LIMITED_LIMIT, false, false),
            SEGMENT_DOWN => data(SEGMENT_DOWN_LIMIT, true, false),
            SEGMENT_READ_ONLY => data(SEGMENT_READ_ONLY_LIMIT, false, true),
            _ if selector & LOCAL == LOCAL => {
                let entry = self.0.get(usize::from(selector >> 3))?;
                (!entry.is_empty()).then(|| entry.segment())
            }
            _ => None,
        }
    }

    /// Draws the selector of an entry whose segment is `wanted`; `None` if there is none.
    pub fn draw(&self, rng: &mut Rng, wanted: impl Fn(&Segment) -> bool) -> Option<u16> {
        let selectors: Vec<u16> = (0..LDT_ENTRIES as u16)
            .map(|index| index << 3 | LOCAL)
            .filter(|&selector| {
                self.segment(selector)
                    .is_some_and(|segment| wanted(&segment))
            })
            .collect();
        rng.choice(selectors)
    }
}

/// Whether `selector` names an entry of the LDT.
pub fn is_local(selector: u16) -> bool {
    selector & 4 != 0
}

/// Whether something with this chance, in percent, happens.
fn percent(rng: &mut Rng, chance: u32) -> bool {
    rng.u32(0..100) < chance
}

fn flags(rng: &mut Rng) -> u32 {
    let mut flags = if percent(rng, 40) { BITS_32 } else { 0 };
    if percent(rng, 30) {
        flags |= LIMIT_IN_PAGES;
    }
    if percent(rng, 30) {
        flags |= USEABLE;
    }
    flags
}

/// A code segment from which the code pages can be reached, mostly with all of them inside the limit.
fn code(rng: &mut Rng) -> Entry {
    let mut flags = CODE_SEGMENT | flags(rng);
    if percent(rng, 20) {
        flags |= RESTRICTED;
    }
    let far = flags & BITS_32 != 0 && percent(rng, 40);
    let base = if far {
        [0, CODE - 0x1_0000, CODE - 0x12_3457, CODE + 0x9000_0000][rng.usize(0..4)]
    } else {
        CODE - [0, 1, 0x10, 0x123, PAGE, 0x8000, 0xd000][rng.usize(0..7)]
    };
    let end = (CODE + 2 * PAGE - 1).wrapping_sub(base);
    let limit = match rng.u32(0..10) {
        0 => end - rng.u32(0..2 * PAGE),
        1 | 2 => end,
        3 => u32::MAX,
        _ => end.max(LIMIT_16),
    };
    entry(base, limit, flags)
}

/// A data segment from which the sandbox can be reached, in part at least.
fn data(rng: &mut Rng) -> Entry {
    let mut flags = flags(rng);
    if percent(rng, 25) {
        flags |= EXPAND_DOWN;
    }
    if percent(rng, 15) {
        flags |= RESTRICTED;
    }
    let far = flags & BITS_32 != 0 && percent(rng, 40);
    let base = if far {
        [0, 0xa000_0000, SANDBOX - 0x1_0000, SANDBOX - 0x10_0001][rng.usize(0..4)]
    } else {
        let edge = [0, 1, 2, 4, 0xff8, PAGE, 2 * PAGE][rng.usize(0..7)];
        if percent(rng, 50) {
            SANDBOX + edge
        } else {
            SANDBOX - edge - rng.u32(0..2) * 0x7000
        }
    };
    let end = (SANDBOX + SANDBOX_PAGES * PAGE).wrapping_sub(base);
    let limit = if flags & EXPAND_DOWN != 0 {
        match rng.u32(0..4) {
            0 => 0,
            1 => (SANDBOX + PAGE).wrapping_sub(base),
            _ => (SANDBOX + rng.u32(0..6 * PAGE)).wrapping_sub(base),
        }
    } else {
        match rng.u32(0..6) {
            0 => rng.u32(0..end.min(8 * PAGE)),
            1 => end - 1,
            2 => end - rng.u32(0..3 * PAGE),
            // An access across the end of 4 GiB may fault or not (SDM Vol. 3A, 5.3 "Limit Checking"): none is to meet one.
            3 if far || base <= SANDBOX => u32::MAX,
            _ => end.max(LIMIT_16),
        }
    };
    entry(base, limit, flags)
}

/// An entry with the limit `limit` in bytes, in pages if it asks for that or is too large otherwise.
fn entry(base: u32, limit: u32, flags: u32) -> Entry {
    if flags & LIMIT_IN_PAGES != 0 || limit > 0xf_ffff {
        Entry {
            base,
            limit: limit >> 12,
            flags: flags | LIMIT_IN_PAGES,
        }
    } else {
        Entry { base, limit, flags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_that_linux_makes() {
        let made = |flags| {
            Entry {
                base: 0x1000_0020,
                limit: 0xfff,
                flags,
            }
            .descriptor()
        };
        assert_eq!(made(0), 0x1000_f300_0020_0fff);
        assert_eq!(made(BITS_32 | EXPAND_DOWN | USEABLE), 0x1050_f700_0020_0fff);
        assert_eq!(made(CODE_SEGMENT | RESTRICTED), 0x1000_f900_0020_0fff);
        assert_eq!(
            made(CONFORMING | NOT_PRESENT | LIMIT_IN_PAGES),
            0x1080_7f00_0020_0fff
        );
        assert_eq!(Entry::default().descriptor(), 0);
    }

    #[test]
    fn expand_down_segments_contain_what_lies_above_their_limit() {
        let down = |big| Entry {
            base: 0,
            limit: 0xfff,
            flags: EXPAND_DOWN | big,
        };
        assert!(!down(0).segment().contains(0xfff, 1));
        assert!(down(0).segment().contains(0x1000, 4));
        assert!(!down(0).segment().contains(0xfffd, 4));
        assert!(down(BITS_32).segment().contains(0xfffd, 4));
        assert!(!down(BITS_32).segment().contains(0xffff_fffd, 4));
    }
}
