//! The architectures of programs.

use std::fmt;

/// An architecture of programs, and of the processor that a kernel for it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 32-bit x86.
    I386,
    /// 64-bit x86.
    Amd64,
}

impl Architecture {
    /// All of them, that of the default guest first.
    pub const ALL: [Self; 2] = [Self::I386, Self::Amd64];

    /// The name in Debian's words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::I386 => "i386",
            Self::Amd64 => "amd64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
