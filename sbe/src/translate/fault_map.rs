//! [`FaultMap`]: the guest instruction that a host address of emitted code belongs to, for accesses that may fault on the host.

use super::x87_note::DeferredNote;

/// The start of the code of one guest instruction, which can begin anew wherever it has faulted: here, or in the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEntry {
    /// Arena offset of the code's first byte; the code extends to that of the next entry.
    pub code: u32,
    /// Offset of the instruction in the page; `None` behind the last one of a fragment.
    pub offset: Option<u16>,
    /// Whether the code needs nothing that an exit does not keep: not a copy of a guest register in R9.
    pub restarts: bool,
}

/// The code of a guest instruction, found by a byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundCode {
    /// Arena offset of the code's first byte.
    pub code: u32,
    /// Offset of the instruction in its page.
    pub offset: u32,
    /// See [`FaultEntry::restarts`].
    pub restarts: bool,
}

/// The instructions of all code that may fault.
#[derive(Default)]
pub struct FaultMap {
    /// The instructions of each section, in the order in which their code lies in the arena.
    sections: [Vec<FaultEntry>; 2],
    /// Notes that are not stored where the code at an arena offset begins, in the same order.
    deferred: Vec<(u32, DeferredNote)>,
}

impl FaultMap {
    /// Adds the entries of both sections, and deferred notes, of a fragment that lies behind all others.
    pub fn add(&mut self, fragment: &[Vec<FaultEntry>; 2], deferred: &[(u32, DeferredNote)]) {
        for (all, section) in self.sections.iter_mut().zip(fragment) {
            all.extend(section);
        }
        self.deferred.extend(deferred);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.sections.iter_mut().for_each(Vec::clear);
        self.deferred.clear();
    }

    /// Finds the instruction whose code has the byte at arena offset `at`.
    pub fn find(&self, at: u32) -> Option<FoundCode> {
        let before = self.sections.iter().filter_map(|section| {
            let behind = section.partition_point(|entry| entry.code <= at);
            section[..behind].last()
        });
        // All cold code lies behind all hot code.
        let entry = before.max_by_key(|entry| entry.code)?;
        Some(FoundCode {
            code: entry.code,
            offset: entry.offset?.into(),
            restarts: entry.restarts,
        })
    }

    /// The note that is not stored when the instruction whose code begins at arena offset `code` faults.
    pub fn deferred(&self, code: u32) -> Option<DeferredNote> {
        let found = self.deferred.binary_search_by_key(&code, |&(code, _)| code);
        found.ok().map(|index| self.deferred[index].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::x87_note::X87Note;
    use mmu::Privilege;

    #[test]
    fn an_offset_belongs_to_the_instruction_that_begins_before_it() {
        let entry = |code, offset| FaultEntry {
            code,
            offset,
            restarts: true,
        };
        let mut map = FaultMap::default();
        assert_eq!(map.find(0), None);
        map.add(
            &[
                vec![entry(10, Some(3)), entry(15, Some(5)), entry(20, None)],
                vec![entry(90, Some(5)), entry(95, None)],
            ],
            &[],
        );
        map.add(&[vec![entry(40, Some(7)), entry(45, None)], vec![]], &[]);
        let found = [9, 10, 14, 15, 19, 20, 39, 40, 44, 45, 89, 90, 94, 95].map(|at| {
            let found = map.find(at);
            found.map(|found| (found.code, found.offset))
        });
        let (first, second, third) = (Some((10, 3)), Some((15, 5)), Some((40, 7)));
        let cold = Some((90, 5));
        let expected = [
            None, first, first, second, second, None, None, third, third, None, None, cold, cold,
            None,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_deferred_note_belongs_to_the_code_that_begins_where_it_is_not_stored() {
        let note = |offset| DeferredNote {
            note: X87Note {
                offset,
                fop: 0,
                privilege: Privilege::User,
            },
            operand: None,
        };
        let mut map = FaultMap::default();
        map.add(&[vec![], vec![]], &[(10, note(1)), (15, note(2))]);
        map.add(&[vec![], vec![]], &[(40, note(3))]);
        let found = [9, 10, 11, 15, 40, 41].map(|code| map.deferred(code));
        let offsets = found.map(|deferred| deferred.map(|deferred| deferred.note.offset));
        assert_eq!(offsets, [None, Some(1), None, Some(2), Some(3), None]);
        map.clear();
        assert!(map.deferred(10).is_none());
    }
}
