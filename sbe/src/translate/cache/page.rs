//! [`CodePage`]: one guest-physical page of code as it was scanned, and the entries made from it.

use super::entries::TableId;
use crate::decode::decoder::MAX_LENGTH;
use crate::translate::emit::Link;
use crate::translate::fragment::{TAIL_BYTES, Tail};
use crate::translate::listing::Variant;
use crate::translate::reach::Reach;
use bitvec::{BitArr, array::BitArray};
use mmu::{LinearPage, PAGE_SIZE, Timestamp};

/// The destination of an entry: what executes the code at an offset of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Emitted code at this arena offset.
    Code(u32),
    /// The emulator.
    Emulate,
    /// The emulator this time: the instruction continues in a page that was not fetched yet.
    EmulateOnce,
}

/// The validity of a page's translations, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Validity {
    /// The translations hold as long as the page is not written.
    Valid,
    /// The translations hold if the bytes are still the same.
    Stale,
    /// The translations do not hold, whatever the bytes are.
    Invalid,
}

/// A page of code as it was when it was scanned.
pub struct CodePage {
    /// The page's bytes then.
    bytes: Box<[u8; PAGE_SIZE]>,
    /// The time at which the page had last been written, as far as the translations are known to hold.
    written: Timestamp,
    /// The tail of the page when an instruction across its end was translated.
    tail: Option<Tail>,
    validity: Validity,
    /// The time at which the page was looked up last.
    executed: Timestamp,
    /// The table through which emitted code finds the entries.
    table: TableId,
    /// The prescan map: a bit for each byte that a translation was made from.
    scanned: BitArr!(for PAGE_SIZE),
    /// The entries by offset, in the order they were made.
    entries: Vec<(u16, Destination)>,
    /// Variants without groups: offset in the page, arena offset.
    plain: Vec<(u16, u32)>,
    /// Branches of other pages that lead here.
    incoming: Vec<Link>,
    /// Where the kernel's code in the page was looked up.
    addresses: Addresses,
    /// How far direct branches may lead wherever the page was looked up.
    reach: Reach,
}

/// The linear pages at which a page of the kernel's code was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    None,
    One(LinearPage),
    Several,
}

impl CodePage {
    /// A page of which nothing is scanned yet.
    pub fn new(table: TableId, written: Timestamp, bytes: [u8; PAGE_SIZE]) -> Self {
        Self {
            bytes: Box::new(bytes),
            written,
            tail: None,
            validity: Validity::Valid,
            executed: Timestamp::default(),
            table,
            scanned: BitArray::ZERO,
            entries: Vec::new(),
            plain: Vec::new(),
            incoming: Vec::new(),
            addresses: Addresses::None,
            reach: Reach::ALL,
        }
    }

    /// How far direct branches of the page may lead.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Notes that branches may lead no further than `reach` where the page is looked up. Returns whether translations were made that
    /// may lead further.
    pub fn narrow(&mut self, reach: Reach) -> bool {
        let before = self.reach;
        self.reach = before.and(reach);
        self.reach != before && !self.entries.is_empty()
    }

    /// Notes that the kernel's code in the page was looked up at a linear page. Returns whether that is the first one beside another.
    pub fn note_address(&mut self, page: LinearPage) -> bool {
        let before = self.addresses;
        self.addresses = match before {
            Addresses::None => Addresses::One(page),
            Addresses::One(known) if known != page => Addresses::Several,
            same => same,
        };
        self.has_aliases() && before != Addresses::Several
    }

    /// Whether the kernel's code in the page was looked up at several linear pages: which page lies behind depends on where it
    /// executes.
    pub fn has_aliases(&self) -> bool {
        self.addresses == Addresses::Several
    }

    /// The page with other bytes, of which nothing is scanned yet. Code slots go on leading to its table, so it stays known where it
    /// was looked up.
    pub fn rewritten(&self, written: Timestamp, bytes: [u8; PAGE_SIZE]) -> Self {
        Self {
            addresses: self.addresses,
            reach: self.reach,
            ..Self::new(self.table, written, bytes)
        }
    }

    /// A copy of the page with another table, to which no code slot leads, and nothing scanned.
    pub fn rescanned(&self, table: TableId) -> Self {
        Self {
            tail: self.tail.clone(),
            executed: self.executed,
            ..Self::new(table, self.written, *self.bytes)
        }
    }

    /// The bytes as scanned.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.bytes
    }

    /// The bytes from `offset` on that an instruction there can have, as far as they are known.
    pub fn bytes_from(&self, offset: u32) -> Vec<u8> {
        let tail = self.tail.as_ref().map(|tail| tail.bytes);
        let bytes = self.bytes[offset as usize..].iter().copied();
        let bytes = bytes.chain(tail.into_iter().flatten());
        bytes.take(MAX_LENGTH).collect()
    }

    /// The tail: the start of the page behind, if that is known.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// Sets the tail.
    pub fn set_tail(&mut self, tail: Tail) {
        self.tail = Some(tail);
    }

    /// The table of the entries.
    pub fn table(&self) -> TableId {
        self.table
    }

    /// The time at which the page was looked up last.
    pub fn executed(&self) -> Timestamp {
        self.executed
    }

    /// Notes that the page was looked up at `time`.
    pub fn set_executed(&mut self, time: Timestamp) {
        self.executed = time;
    }

    /// Whether the translations hold for the page as it was last written, at `written`.
    pub fn is_current(&self, written: Timestamp) -> bool {
        self.validity == Validity::Valid && self.written == written
    }

    /// Whether the page has to be compared with what was scanned before its code executes again.
    pub fn is_stale(&self) -> bool {
        self.validity != Validity::Valid
    }

    /// Requires that the bytes be compared before the translations are used again.
    pub fn set_stale(&mut self) {
        self.validity = self.validity.max(Validity::Stale);
    }

    /// Rejects the translations, whatever the bytes are.
    pub fn set_invalid(&mut self) {
        self.validity = Validity::Invalid;
    }

    /// All entries: offsets and destinations.
    pub fn entries(&self) -> &[(u16, Destination)] {
        &self.entries
    }

    /// Arena offset of the variant without groups of the code at `offset`.
    pub fn plain(&self, offset: u32) -> Option<u32> {
        let mut known = self.plain.iter();
        known
            .find(|&&(at, _)| u32::from(at) == offset)
            .map(|&(_, code)| code)
    }

    /// Adds an entry, or code of the plain variant.
    pub fn add(&mut self, offset: u32, variant: Variant, destination: Destination) {
        match (variant, destination) {
            (Variant::Plain, Destination::Code(code)) => self.plain.push((offset as u16, code)),
            _ => self.entries.push((offset as u16, destination)),
        }
    }

    /// Marks the bytes `offset..end` as scanned.
    pub fn scan(&mut self, offset: u32, end: u32) {
        self.scanned[offset as usize..end as usize].fill(true);
    }

    /// Whether anything was made from the byte at `offset`.
    pub fn is_scanned(&self, offset: u16) -> bool {
        self.scanned[usize::from(offset)]
    }

    /// The number of bytes that translations were made from.
    pub fn scanned_bytes(&self) -> usize {
        self.scanned.count_ones()
    }

    /// Adds a branch of another page that leads here.
    pub fn add_incoming(&mut self, link: Link) {
        self.incoming.push(link);
    }

    /// Removes all branches of other pages, which are to be unlinked.
    pub fn take_incoming(&mut self) -> Vec<Link> {
        std::mem::take(&mut self.incoming)
    }

    /// The number of branches of other pages that lead here.
    pub fn incoming(&self) -> usize {
        self.incoming.len()
    }

    /// Decides, after the page or its tail was written, whether the translations still hold, because only data beside the code
    /// has changed. If so the page's bytes are now `bytes`, as of `written`. `tail` is what the tail's frame begins with now.
    pub fn revalidate(
        &mut self,
        written: Timestamp,
        bytes: &[u8; PAGE_SIZE],
        tail: Option<[u8; TAIL_BYTES]>,
    ) -> bool {
        let mut changed = (0..PAGE_SIZE).filter(|&at| self.bytes[at] != bytes[at]);
        let same_tail = self.tail.as_ref().map(|tail| tail.bytes) == tail;
        let holds =
            self.validity != Validity::Invalid && same_tail && !changed.any(|at| self.scanned[at]);
        if holds {
            self.bytes.copy_from_slice(bytes);
            self.written = written;
            self.validity = Validity::Valid;
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::EntryTables;
    use super::*;
    use mmu::LinearAddr;

    fn page(bytes: [u8; PAGE_SIZE]) -> CodePage {
        let mut tables = EntryTables::new().expect("address space");
        let table = tables.allocate().expect("a table");
        CodePage::new(table, Timestamp::default(), bytes)
    }

    #[test]
    fn data_beside_code_may_change_and_code_may_not() {
        let mut bytes = [0x90; PAGE_SIZE];
        let mut page = page(bytes);
        page.scan(16, 20);
        page.add(16, Variant::Grouped, Destination::Emulate);
        bytes[15] = 1;
        bytes[20] = 1;
        assert!(page.revalidate(Timestamp::default(), &bytes, None));
        bytes[19] = 1;
        assert!(!page.revalidate(Timestamp::default(), &bytes, None));
    }

    #[test]
    fn a_page_that_is_rewritten_keeps_its_aliases() {
        let mut page = page([0x90; PAGE_SIZE]);
        let [first, second] =
            [0xc000_0000, 0xc000_1000].map(|address: u32| LinearAddr::from(address).page());
        assert!(!page.note_address(first));
        let mut page = page.rewritten(Timestamp::default(), [0xf4; PAGE_SIZE]);
        assert!(page.note_address(second));
        let page = page.rewritten(Timestamp::default(), [0x90; PAGE_SIZE]);
        assert!(page.has_aliases());
    }

    #[test]
    fn an_invalid_page_stays_so_whatever_its_bytes_are() {
        let bytes = [0x90; PAGE_SIZE];
        let mut page = page(bytes);
        page.set_stale();
        assert!(page.is_stale());
        assert!(page.revalidate(Timestamp::default(), &bytes, None));
        assert!(!page.is_stale());
        page.set_invalid();
        page.set_stale();
        assert!(!page.revalidate(Timestamp::default(), &bytes, None));
    }
}
