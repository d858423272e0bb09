//! [`Branch`]: a direct branch of a fragment, and what is patched when it is linked.

use crate::translate::asm::{Asm, Label};
use std::num::NonZeroU32;

/// The target of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The code at this offset of the page.
    Inside(u16),
    /// The code at this offset of the page, in the variant without groups.
    Plain(u16),
    /// Code in another page.
    Outside,
}

/// A direct branch that can be linked, by the labels of what is patched for that: see [`Link`].
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// The branch's target.
    pub target: Target,
    /// Label behind the jump or call: its displacement ends there.
    pub jump: Label,
    /// Label behind the operand of the guard of a branch to another page, if it is guarded.
    pub guard: Option<Label>,
    /// Label behind the jump that can bypass the guard, in code with a window.
    pub bypass: Option<Label>,
    /// Label of the guard.
    pub check: Label,
    /// Label of the stub that exits to have a branch to another page linked.
    pub stub: Option<Label>,
    /// Label behind the jump that exits to have the branch linked; the target's offset is in R9D there.
    pub exit: Label,
}

impl Branch {
    /// The branch by its places in the code of `asm`.
    pub fn link(&self, asm: &Asm) -> Link {
        let offset = |label| asm.offset_of(label);
        // At offset 0 lies a trampoline.
        let offset_if = |label: Option<Label>| label.map(offset).and_then(NonZeroU32::new);
        Link {
            target: self.target,
            jump: offset(self.jump),
            guard: offset_if(self.guard),
            bypass: offset_if(self.bypass),
            check: offset(self.check),
            stub: offset_if(self.stub),
            exit: offset(self.exit),
        }
    }
}

/// A direct branch that can be linked, by the arena offsets of what is patched for that.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The branch's target.
    pub target: Target,
    /// End of the jump or call that leads to the target once the branch is linked.
    pub jump: u32,
    /// End of the 64-bit operand of the guard, if the branch is guarded.
    pub guard: Option<NonZeroU32>,
    /// End of the jump that can bypass the guard, if there is one.
    pub bypass: Option<NonZeroU32>,
    /// Start of the guard, to which the bypass leads while it is not used.
    pub check: u32,
    /// Start of the stub that exits to have a branch to another page linked.
    pub stub: Option<NonZeroU32>,
    /// End of the jump that exits to have the branch linked; of a guarded branch, the one taken where the guard fails.
    pub exit: u32,
}
