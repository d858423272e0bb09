//! Paging: its control registers, the formats of the paging structures, and the one walker for all of them.
//!
//! | file       | what it holds                                                        |
//! |------------|----------------------------------------------------------------------|
//! | `control`  | mode and control bits as taken from CR0, CR3, CR4 and EFER           |
//! | `entry`    | an entry of a paging structure, decoded once                         |
//! | `format`   | bit layouts: 32-bit paging and PAE paging                            |
//! | `pdpte`    | the four page-directory-pointer-table registers of PAE               |
//! | `walk`     | the walker, pure, and the trail along which A and D bits are set     |
//! | `around`   | walks to the pages around one                                        |
//! | `fault`    | page faults and their error code                                     |

mod around;
mod control;
mod entry;
mod fault;
mod format;
mod pdpte;
mod walk;

pub(crate) use around::around;
pub use control::{Access, Paging, PagingMode, Privilege};
pub use entry::{PageSize, Permissions, ReservedBits};
pub(crate) use fault::Cause;
pub use fault::{PageFault, PageFaultCode};
pub(crate) use format::{ACCESSED, DIRTY, PRESENT, SOFTWARE, WRITABLE};
pub(crate) use pdpte::Pdptes;
pub use walk::{NoTranslation, Translation};
pub(crate) use walk::{Step, Trail, Walk, walk, walk_along};

/// Width of guest-physical addresses in bits (MAXPHYADDR, CPUID leaf 0x8000_0008, EAX bits 7:0): 36, which PSE-36 and PAE
/// reach. Address bits from here up are reserved in paging structures.
pub(crate) const MAX_PHYS_ADDR: u32 = 36;
