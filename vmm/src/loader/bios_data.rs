//! The two words of the BIOS data area that a kernel reads when it looks for tables in low memory.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError};

use super::{layout::Layout, ram::LOW_END};

/// Guest-physical address of the BIOS data area.
const START: u64 = 0x400;
/// Length of the BIOS data area in bytes.
const LEN: u64 = 0x100;
/// Segment of the extended BIOS data area.
const EBDA_SEGMENT: GuestAddress = GuestAddress(0x40e);
/// Low memory in KiB.
const LOW_MEMORY_KIB: GuestAddress = GuestAddress(0x413);

/// Writes the words, unless something else lies there.
///
/// # Errors
/// Only if there is no RAM.
pub(super) fn write(
    ram: &impl GuestMemoryBackend,
    layout: &Layout,
) -> Result<(), GuestMemoryError> {
    if layout.in_the_way(&(START..START + LEN)).is_some() {
        return Ok(());
    }
    ram.write_slice(&((LOW_END >> 4) as u16).to_le_bytes(), EBDA_SEGMENT)?;
    ram.write_slice(&((LOW_END >> 10) as u16).to_le_bytes(), LOW_MEMORY_KIB)
}
