//! Guest memory, page walks, software TLB, page attributes and timestamps.
//!
//! ```text
//!   LinearAddr ──► tlb (flat tables) ──hit──► host address of the byte
//!        │ miss
//!        ▼
//!   paging (one walker, A/D bits) ──► GuestPhys ──► memory (RAM, ROM, device)
//!                                                     └─ frames: attributes, timestamps
//! ```
//!
//! [`Memory`] is shared by all who access it, and sees every store. An [`Mmu`] belongs to one virtual CPU and holds its paging
//! registers and its TLB; as a [`Subscriber`] of the memory it is told of stores to the page tables and the code that it uses.
//!
//! Linear, guest-physical and host addresses are distinct types. `unsafe` code is only in `mapping` (host mappings), `memory`
//! (the RAM's bytes), `tlb::table` (slots, and accesses through them), `shadow::wide` (the words of a window's directory) and
//! `shadow::kmod::abi` (requests to the host's kernel module). Host addresses leave the crate by [`Tables`], for code that a
//! translator emits, by [`Memory::guest_ram`], and by a [`Mapping`], whose owner may be any crate. Whatever the guest writes into
//! its registers and page tables, no access leaves the RAM mapping and nothing panics.

mod addr;
mod explain;
mod layout;
mod mailbox;
mod mapping;
pub mod memfd;
mod memory;
mod mmu;
mod paging;
mod scalar;
mod shadow;
mod tlb;

pub use addr::{Frame, GuestPhys, LinearAddr, LinearPage, LinearWidth, PAGE_SHIFT, PAGE_SIZE};
pub use explain::{Explanation, FrameReport};
pub use mapping::{Mapping, Protection};
pub use memory::{
    Attribute, Attributes, DirtyLog, GuestRam, MAX_LOW_RAM, MAX_RAM, MIN_RAM, MapError, Memory,
    MemoryError, MemoryState, NotRam, Party, Region, RegionKind, Store, StoreHook, Subscriber,
    SubscriberId, Timestamp,
};
pub use mmu::{LinearFault, MemFault, Mmu, MmuState, Piece, Span};
pub use paging::{
    Access, NoTranslation, PageFault, PageFaultCode, PageSize, Paging, PagingMode, PagingModel,
    Permissions, Privilege, ReservedBits, Translation,
};
pub use scalar::Scalar;
pub use shadow::{Kmod, KmodError, KmodStats, REACH};
pub use tlb::{INDEX_BITS, Order, SLOT_PRESENT, SpaceId, SpaceSet, Tables, Tlb, View};
pub use vm_memory::ByteValued;
