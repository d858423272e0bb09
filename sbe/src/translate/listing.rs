//! [`Listing`]: the positions of guest instructions in a fragment's code, kept only where dumps are wanted.

use super::classify::Verdict;

/// The variant of a fragment: whether its accesses may be checked in groups (see `emit::group`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Accesses may be checked in groups.
    Grouped,
    /// Each access is checked by itself: this variant continues where the check of a group has failed.
    Plain,
}

/// The start of the code emitted for a guest instruction, which extends to the next mark.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Offset of the instruction in the page.
    pub offset: u32,
    /// The instruction's classification.
    pub verdict: Verdict,
    /// Arena offset of the instruction's code.
    pub code: u32,
}

/// The instructions of a fragment, in the order of their code.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The marks, one for each instruction.
    pub instructions: Vec<Mark>,
    /// Arena offset behind the code of the last.
    pub end: u32,
}

impl Marks {
    /// Adds a mark, or changes the verdict of the last one if it is for the same instruction.
    pub fn add(&mut self, mark: Mark) {
        match self.instructions.last_mut() {
            Some(last) if last.offset == mark.offset => last.verdict = mark.verdict,
            _ => self.instructions.push(mark),
        }
    }
}

/// The layout of a fragment in the arena.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Offset of the fragment's entry in the page.
    pub at: u32,
    /// The variant of the fragment.
    pub variant: Variant,
    /// Arena offsets of its sections, hot first.
    pub start: [u32; 2],
    /// Arena offsets of their ends.
    pub end: [u32; 2],
    /// The positions of its instructions.
    pub marks: Marks,
}

impl Listing {
    /// The fragment's name within its page.
    pub fn name(&self) -> String {
        let suffix = match self.variant {
            Variant::Grouped => "",
            Variant::Plain => "-plain",
        };
        format!("@{:03x}{suffix}", self.at)
    }
}
