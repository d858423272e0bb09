//! Guest memory, page walks, software TLB, page attributes and timestamps.
//!
//! ```text
//!   LinearAddr ──► tlb (flat tables) ──hit──► host address of the byte
//!        │ miss
//!        ▼
//!   paging (one walker, A/D bits) ──► GuestPhys ──► phys (RAM, ROM, device)
//!                                                     └─ frames: attributes, timestamps
//! ```
//!
//! [`Mmu`] is what a virtual CPU holds: the paging registers and [`CoherentMemory`], which is the TLB and [`PhysMemory`].
//! Guest-virtual, guest-physical and host addresses are distinct types; host addresses never leave the module
//! `tlb::table`, the only one with `unsafe` code. Whatever the guest writes into its registers and page tables, no access leaves the
//! RAM mapping and nothing panics.

mod addr;
mod coherent;
mod explain;
mod memfd;
mod mmu;
mod paging;
mod phys;
mod scalar;
mod tlb;

pub use addr::{Frame, GuestPhys, LinearAddr, LinearPage, PAGE_SHIFT, PAGE_SIZE};
pub use coherent::CoherentMemory;
pub use explain::{Explanation, FrameReport};
pub use mmu::{MemFault, Mmu, Piece, Span};
pub use paging::{
    Access, NoTranslation, PageFault, PageFaultCode, PageSize, Paging, PagingMode, Permissions,
    Privilege, ReservedBits, Translation,
};
pub use phys::{
    Attribute, MAX_RAM, MIN_RAM, MemoryError, NotRam, PhysMemory, RegionKind, Timestamp,
};
pub use scalar::Scalar;
pub use tlb::{Order, SLOT_PRESENT, SpaceId, View};
pub use vm_memory::ByteValued;
