//! Stress of many virtualized pages: generated programs on both engines, which must end in the same state and memory.
//!
//! | file | what it stresses |
//! |---|---|
//! | `links` | links between pages of programs in several spaces |
//! | `many_pages` | more than 10,000 code pages at once, a code cache that is too small for them, two machines on two threads |
//! | `aliases` | one frame of code at two linear addresses |
//! | `debugged` | the programs of `control_flow` with breakpoints, watchpoints and single steps |
//! | `control_flow` | random code with branches, calls, loops, page faults, and operands across pages; at CPL 3 in several address spaces, too |
//! | `self_modifying` | pages that check, rewrite or count in themselves or the next page |
//! | `slots` | data at pages that share slots of the tables, and at the ends of the canonical halves |
//! | `stores` | every kind of store to the next instruction |
//!
//! All but `slots` are of 32-bit and of 64-bit programs (`width`), the latter with page tables of four levels (`tables`) and at
//! linear addresses that share slots.
//!
//! Every test compares with the emulator, and where the result can be computed without a processor also with that. The
//! counts it prints say how many instructions the translator executed.

mod aliases;
mod block;
mod contents;
mod control_flow;
mod debugged;
mod links;
mod machine;
mod many_pages;
mod paging;
mod self_modifying;
mod slots;
mod stores;
mod tables;
mod users;
mod width;
