//! Paging: its control registers, the formats of the paging structures, and the one walker for all of them.
//!
//! | file       | what it holds                                                        |
//! |------------|----------------------------------------------------------------------|
//! | `control`  | mode and control bits as taken from CR0, CR3, CR4 and EFER           |
//! | `entry`    | an entry of a paging structure, decoded once                         |
//! | `format`   | bit layouts: 32-bit, PAE and 4-level paging                          |
//! | `pdpte`    | the four page-directory-pointer-table registers of PAE               |
//! | `registers`| everything but memory on which translation depends                   |
//! | `walk`     | the walker, pure, and the trail along which A and D bits are set     |
//! | `around`   | walks to the pages around one                                        |
//! | `fault`    | page faults and their error code                                     |

mod around;
mod control;
mod entry;
mod fault;
mod format;
mod pdpte;
mod registers;
mod walk;

pub(crate) use around::around;
pub use control::{Access, Paging, PagingMode, PagingModel, Privilege};
pub use entry::{PageSize, Permissions, ReservedBits};
pub(crate) use fault::Cause;
pub use fault::{PageFault, PageFaultCode};
pub(crate) use format::{ACCESSED, DIRTY, PRESENT, SOFTWARE, WRITABLE};
pub(crate) use pdpte::Pdptes;
pub(crate) use registers::Registers;
pub use walk::{NoTranslation, Translation};
pub(crate) use walk::{Step, Trail, Walk, walk, walk_along};
