//! Accesses of the script, and what must become of them.

use super::code::code;
use super::format::{A, D, P, PAGE};
use super::model::Access;
use super::record::{NO_FAULT, Operation, Record};
use super::writer::Writer;

/// An access that faults.
struct Fault {
    address: u64,
    error: u16,
}

fn page_of(linear: u64) -> u64 {
    linear & !u64::from(PAGE - 1)
}

impl Writer {
    /// Fails if a read at `from`, or else a write at `to`, would.
    fn check_element(&self, from: u64, to: u64) -> Result<(), Fault> {
        for (address, access) in [(from, Access::Read), (to, Access::Write)] {
            let checked = self.model.check(address, access, self.user);
            checked.map_err(|error| Fault { address, error })?;
        }
        Ok(())
    }

    /// The physical addresses of `size` bytes from `linear` on; both pages are checked before anything happens.
    fn translate(&mut self, linear: u64, size: u64, access: Access) -> Result<Vec<u32>, Fault> {
        let last = linear + (size - 1);
        for start in [linear, page_of(last).max(linear)] {
            self.model
                .check(start, access, self.user)
                .map_err(|error| Fault {
                    address: start,
                    error,
                })?;
        }
        for start in [linear, last] {
            self.model.mark(start, access);
        }
        let model = &self.model;
        Ok((linear..=last)
            .map(|byte| model.walk(byte).result.expect("checked").physical)
            .collect())
    }

    fn load(&self, bytes: &[u32]) -> u64 {
        let byte = |value, &at: &u32| value << 8 | u64::from(self.model.bytes::<1>(at)[0]);
        bytes.iter().rev().fold(0, byte)
    }

    fn save(&mut self, bytes: &[u32], value: u64) {
        for (&at, byte) in bytes.iter().zip(value.to_le_bytes()) {
            self.model.write(at, &[byte]);
        }
    }

    /// Carries out one access to data; returns its result.
    fn carry_out(&mut self, operation: Operation, linear: u64, operand: u64) -> Result<u64, Fault> {
        let size = operation.size();
        match operation {
            operation if operation.is_read() => {
                let bytes = self.translate(linear, size, Access::Read)?;
                Ok(self.load(&bytes))
            }
            Operation::Fetch => {
                let bytes = self.translate(linear, size, Access::Fetch)?;
                let is_code = bytes
                    .iter()
                    .zip(code(0))
                    .enumerate()
                    .all(|(i, (&at, byte))| (1..5).contains(&i) || self.model.bytes(at) == [byte]);
                assert!(is_code, "no code at {linear:08x}");
                Ok(self.load(&bytes[1..5]))
            }
            Operation::Modify32 | Operation::Modify64 => {
                let bytes = self.translate(linear, size, Access::Write)?;
                let old = self.load(&bytes);
                self.save(&bytes, old.wrapping_add(operand));
                Ok(old)
            }
            _ => {
                let bytes = self.translate(start(operation, linear), size, Access::Write)?;
                self.save(&bytes, operand);
                // The register keeps its other bits.
                Ok(operand)
            }
        }
    }

    /// Adds an access of one kind at `linear`, after the flushes that it needs.
    pub fn access(&mut self, operation: Operation, linear: u64, operand: u64) {
        let start = start(operation, linear);
        let pages = [page_of(start), page_of(start + (operation.size() - 1))];
        self.prepare_all(&pages);
        if operation.is_push() {
            self.go_to(true);
        }
        let result = self.carry_out(operation, linear, operand);
        self.judge(Record::new(operation, linear, operand), result, 0, &pages);
        if pages[0] != pages[1] {
            self.count("access across pages");
        }
    }

    /// Adds a REP MOVSD of `count` doublewords, each in one page.
    pub fn copy(&mut self, from: u64, to: u64, count: u8) {
        let end = 4 * u64::from(count) - 1;
        let pages = [from, from + end, to, to + end].map(page_of);
        self.prepare_all(&pages);
        let mut left = count;
        let mut element = || -> Result<u64, Fault> {
            while left > 0 {
                let done = 4 * u64::from(count - left);
                // An element of which only the read would succeed marks nothing: `judge` leaves that open.
                self.check_element(from + done, to + done)?;
                let source = self.translate(from + done, 4, Access::Read)?;
                let value = self.load(&source);
                let target = self.translate(to + done, 4, Access::Write)?;
                self.save(&target, value);
                left -= 1;
            }
            Ok(0)
        };
        let result = element();
        let mut record = Record::new(Operation::Movs, from, to);
        record.count = count;
        self.judge(record, result, u16::from(left) << 8, &pages);
    }

    /// Flushes what any of the pages needs.
    fn prepare_all(&mut self, pages: &[u64]) {
        // A change of CR4.PGE on the way flushes, so it takes nothing back; nor does any other flush.
        for &page in pages {
            self.prepare(page);
        }
    }

    /// Adds the record with its outcome, and the checks of the entries of all `pages`.
    fn judge(&mut self, mut record: Record, result: Result<u64, Fault>, more: u16, pages: &[u64]) {
        let faulted = result.is_err();
        match result {
            Ok(value) => {
                record.expected = value;
                self.count(format!("{:?}", record.operation));
            }
            Err(fault) => {
                record.error = fault.error | more;
                record.expected = fault.address;
                self.count(format!("fault {:#04x}", fault.error));
            }
        }
        debug_assert_ne!((faulted, record.error), (true, NO_FAULT));
        self.emit(record);
        // Whether a walk that ends in a fault sets A on the way is the processor's choice, and so is D of the page that an access
        // does not fault at.
        let unknown = match (faulted, is_write(record.operation)) {
            (false, _) => 0,
            (true, true) if pages.iter().any(|page| *page != pages[0]) => A | D,
            (true, _) => A,
        };
        let mut done = Vec::new();
        for &page in pages {
            if !done.contains(&page) {
                self.check_entries(page, unknown);
                done.push(page);
            }
        }
        if !faulted {
            self.check_frames(pages);
        }
    }

    /// Compares, now and then, a word of each page that was written with that of its frame.
    fn check_frames(&mut self, pages: &[u64]) {
        for &page in pages {
            let walk = self.model.walk(page);
            let is_written = walk
                .leaf()
                .is_some_and(|leaf| leaf.value & (P | D) == P | D);
            if let (true, Ok(page), true) = (is_written, walk.result, self.once_in(8)) {
                let word = page.physical + 4 * self.rng.u32(..PAGE / 4);
                self.check_word(word, u32::MAX);
            }
        }
    }
}

fn is_write(operation: Operation) -> bool {
    !operation.is_read() && operation != Operation::Fetch
}

/// The address of an access's first byte.
fn start(operation: Operation, linear: u64) -> u64 {
    match operation.is_push() {
        true => linear - operation.size(),
        false => linear,
    }
}
