//! The page-fault exception and its error code (SDM Vol. 3A, 4.7 Page-Fault Exceptions).

use std::fmt;

use super::control::{Access, Paging, Privilege};
use super::walk::NoTranslation;
use crate::addr::LinearAddr;

/// A page fault to deliver: vector 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFault {
    /// The linear address for CR2: the first byte of the access that cannot be translated.
    pub addr: LinearAddr,
    /// The error code.
    pub code: PageFaultCode,
}

/// Error code of a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageFaultCode(u32);

impl PageFaultCode {
    /// P: there is a translation and it forbids the access (or reserved bits are set); clear = a page was not present.
    pub const PRESENT: u32 = 1 << 0;
    /// W/R: the access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// U/S: the access was a user-mode access.
    pub const USER: u32 = 1 << 2;
    /// RSVD: a present entry sets reserved bits.
    pub const RESERVED: u32 = 1 << 3;
    /// I/D: the access was an instruction fetch. Reported only while execute-disable is in force.
    pub const FETCH: u32 = 1 << 4;

    /// The error code as the processor pushes it.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Why a walk does not serve an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// There is no translation.
    NoTranslation(NoTranslation),
    /// There is one, and it forbids the access.
    Forbidden,
}

impl PageFault {
    pub(crate) fn new(
        addr: LinearAddr,
        cause: Cause,
        access: Access,
        privilege: Privilege,
        paging: &Paging,
    ) -> Self {
        let mut bits = match cause {
            Cause::NoTranslation(NoTranslation::NotPresent) => 0,
            Cause::NoTranslation(NoTranslation::Reserved) => {
                PageFaultCode::PRESENT | PageFaultCode::RESERVED
            }
            Cause::Forbidden => PageFaultCode::PRESENT,
        };
        bits |= match access {
            Access::Write => PageFaultCode::WRITE,
            Access::Fetch if paging.execute_disable() => PageFaultCode::FETCH,
            Access::Read | Access::Fetch => 0,
        };
        if privilege == Privilege::User {
            bits |= PageFaultCode::USER;
        }
        Self {
            addr,
            code: PageFaultCode(bits),
        }
    }
}

impl fmt::Debug for PageFaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::PRESENT, "P"),
            (Self::WRITE, "W"),
            (Self::USER, "U"),
            (Self::RESERVED, "RSVD"),
            (Self::FETCH, "I"),
        ];
        let set: Vec<_> = names
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        write!(f, "PageFaultCode({})", set.join("|"))
    }
}
