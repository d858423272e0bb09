//! Guest memory, page walks, software TLB, page attributes and timestamps.
