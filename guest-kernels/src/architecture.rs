//! The architectures of packages.

/// An architecture that Debian has packages for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// 32-bit x86.
    I386,
    /// 64-bit x86.
    Amd64,
}

impl Architecture {
    /// The name in Debian's words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::I386 => "i386",
            Self::Amd64 => "amd64",
        }
    }
}
