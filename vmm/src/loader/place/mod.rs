//! [`place`]: the placement of kernel, initrd and parameters in guest RAM.

use std::{ops::Range, os::unix::fs::FileExt as _};

use sbe::cpu::DescriptorTable;
use vm_memory::{
    Address, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryRegion, bitmap::Bitmap,
};

use super::{
    EntryPoint, Kernel, LoadError, Protocol, bios_data,
    boot_params::{Told, boot_params, gdt},
    image::{Image, Mode},
    layout::Layout,
    multiboot, page_tables,
    ram::{HIGH_START, Ram},
};

/// A kernel with its initrd and command line, to be booted.
#[derive(Clone, Copy, Debug)]
pub struct BootSource<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The initial RAM disk: cpio archives, one behind the other, or empty. For a Multiboot kernel, its one module.
    pub initrd: &'a [u8],
    /// The kernel command line.
    pub cmdline: &'a str,
}

/// Guest-physical address of boot_params, or of the Multiboot information, if nothing else lies there.
const PARAMS: u32 = 0x1_0000;
/// Guest-physical address of the GDT, if nothing else lies there.
const GDT_AT: u32 = 0x1_1000;
/// Guest-physical address of the page tables of a 64-bit kernel, if nothing else lies there.
const PAGE_TABLES: u32 = 0x1_2000;
/// Guest-physical address of the command line, if nothing else lies there.
const CMDLINE: u32 = 0x2_0000;
/// Length of the longest command line that is passed on, without the final NUL.
const CMDLINE_ROOM: u32 = 0x7_f000;
const PAGE_SIZE: u64 = 4096;
/// Alignment of what the kernel is told.
const ALIGN: u64 = 16;
/// The part of memory, in GiB, that the page tables of a 64-bit kernel map at least: all RAM below 4 GiB.
const MAPPED_GIB: u64 = 4;

/// Copies `source` into `ram`, which must begin at guest-physical 0 and be zero from 1 MiB on, as new memory is. `taken` are
/// guest-physical ranges that hold something else.
///
/// # Errors
/// See [`LoadError`]; `ram` may have been written in part.
pub fn place(
    ram: &impl GuestMemoryBackend,
    taken: &[Range<u64>],
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let mut layout = Layout::new(&Ram::of(ram), taken);
    check_cmdline(source)?;
    place_kernel(ram, &mut layout, source.kernel)?;
    bios_data::write(ram, &layout)?;
    match source.kernel.protocol() {
        Protocol::Linux => place_for_linux(ram, &mut layout, source),
        Protocol::Multiboot => place_for_multiboot(ram, &mut layout, source),
    }
}

fn check_cmdline(source: &BootSource<'_>) -> Result<(), LoadError> {
    let limit = source.kernel.cmdline_size().min(CMDLINE_ROOM);
    let len = source.cmdline.len();
    if len > limit as usize {
        return Err(LoadError::CommandLine { len, limit });
    }
    match source.cmdline.contains('\0') {
        true => Err(LoadError::CommandLineNul),
        false => Ok(()),
    }
}

/// Copies the kernel's segments to their physical addresses.
fn place_kernel(
    ram: &impl GuestMemoryBackend,
    layout: &mut Layout,
    kernel: &Kernel,
) -> Result<(), LoadError> {
    let mut segments = Vec::new();
    for segment in &kernel.image().segments {
        let range = segment.paddr..segment.end();
        if !layout.ram().holds(&range) {
            return Err(LoadError::Segment {
                segment: segment.clone(),
                ram: layout.ram().clone(),
            });
        }
        if let Some(other) = layout.in_the_way(&range) {
            return Err(LoadError::SegmentOverlap {
                segment: segment.clone(),
                other: other.clone(),
            });
        }
        let bytes = &kernel.file()[segment.file.clone()];
        copy(ram, bytes, GuestAddress(range.start))?;
        segments.push(range);
    }
    // A kernel's own segments may overlap.
    for range in segments {
        layout.take(range);
    }
    Ok(())
}

/// Places what Linux's boot protocol asks for, the 32-bit or the 64-bit one.
fn place_for_linux(
    ram: &impl GuestMemoryBackend,
    layout: &mut Layout,
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let kernel = source.kernel;
    let &Image { mode, entry, .. } = kernel.image();
    let mut room = |what, preferred, len: u64, align| {
        let at = layout.take_near(preferred, len, align);
        at.ok_or(LoadError::NoRoom {
            what,
            len: len as usize,
        })
    };
    let cmdline_bytes = [source.cmdline.as_bytes(), &[0]].concat();
    let gdt_bytes = gdt(mode).map(u64::to_le_bytes);
    let gdt_len = gdt_bytes.as_flattened().len();
    let params_at = room("boot_params", PARAMS, PAGE_SIZE, ALIGN)?;
    let gdt_at = room("the GDT", GDT_AT, gdt_len as u64, ALIGN)?;
    let cmdline = room(
        "the command line",
        CMDLINE,
        cmdline_bytes.len() as u64,
        ALIGN,
    )?;
    let page_tables = match mode {
        Mode::Protected => None,
        Mode::Long => {
            let gib = kernel.image().end().div_ceil(1 << 30).max(MAPPED_GIB);
            let len = page_tables::len(gib);
            let at = room("the page tables", PAGE_TABLES, len, PAGE_SIZE)?;
            Some((at, page_tables::identity(at.into(), gib)))
        }
    };
    let rooms = initrd_rooms(kernel, layout.ram());
    let initrd = place_initrd(ram, layout, source, &rooms)?;
    let told = Told {
        // Its segments end below 4 GiB.
        code32_start: (mode == Mode::Protected).then_some(entry as u32),
        cmdline,
        initrd,
        ram: layout.ram(),
    };
    let params = boot_params(kernel.header(), &told);
    ram.write_slice(params.as_slice(), GuestAddress(params_at.into()))?;
    ram.write_slice(gdt_bytes.as_flattened(), GuestAddress(gdt_at.into()))?;
    ram.write_slice(&cmdline_bytes, GuestAddress(cmdline.into()))?;
    let gdt = DescriptorTable {
        base: gdt_at.into(),
        limit: gdt_len as u16 - 1,
    };
    let Some((tables_at, tables)) = page_tables else {
        return Ok(EntryPoint::Linux {
            entry: entry as u32,
            boot_params: params_at,
            gdt,
        });
    };
    let tables: Vec<_> = tables.into_iter().map(u64::to_le_bytes).collect();
    ram.write_slice(tables.as_flattened(), GuestAddress(tables_at.into()))?;
    Ok(EntryPoint::Linux64 {
        entry,
        boot_params: params_at.into(),
        page_tables: tables_at.into(),
        gdt,
    })
}

/// Places what Multiboot asks for. The initrd is the one module, behind the kernel, where most kernels expect modules.
fn place_for_multiboot(
    ram: &impl GuestMemoryBackend,
    layout: &mut Layout,
    source: &BootSource<'_>,
) -> Result<EntryPoint, LoadError> {
    let cmdline = source.cmdline.as_bytes();
    let start = initrd_start(source.kernel);
    let room = Room {
        range: start..layout.ram().low_end(),
        take: Layout::take_lowest,
    };
    let module = place_initrd(ram, layout, source, &[room])?;
    // It ends below 4 GiB.
    let module = module.start as u32..module.end as u32;
    let len = multiboot::info(0, layout.ram(), cmdline, module.clone()).len();
    let info = layout
        .take_near(PARAMS, len as u64, ALIGN)
        .ok_or(LoadError::NoRoom {
            what: "the Multiboot information",
            len,
        })?;
    let bytes = multiboot::info(info, layout.ram(), cmdline, module);
    ram.write_slice(&bytes, GuestAddress(info.into()))?;
    // Its segments end below 4 GiB.
    let entry = source.kernel.image().entry as u32;
    Ok(EntryPoint::Multiboot { entry, info })
}

/// A place for the initrd.
struct Room {
    range: Range<u64>,
    /// Takes bytes at a multiple of the alignment: the lowest ones of the range, or the highest.
    take: fn(&mut Layout, u64, u64, Range<u64>) -> Option<u64>,
}

/// Returns the rooms in which a Linux kernel finds its initrd, the best first.
fn initrd_rooms(kernel: &Kernel, ram: &Ram) -> Vec<Room> {
    let start = initrd_start(kernel);
    let limit = ram.low_end().min(u64::from(kernel.initrd_addr_max()) + 1);
    let room = |range| Room {
        range,
        take: Layout::take_highest,
    };
    let mut rooms = vec![room(start..limit)];
    if kernel.initrd_above_4g() && !ram.high().is_empty() {
        rooms.push(room(start.max(ram.high().start)..ram.high().end));
    }
    rooms
}

/// Returns the lowest address that an initrd may have; the last of all if a header's addresses leave no room.
fn initrd_start(kernel: &Kernel) -> u64 {
    let end = kernel.end().max(HIGH_START);
    end.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX)
}

/// Copies the initrd to pages in the first of `rooms` that is large enough, and returns its range.
fn place_initrd(
    ram: &impl GuestMemoryBackend,
    layout: &mut Layout,
    source: &BootSource<'_>,
    rooms: &[Room],
) -> Result<Range<u64>, LoadError> {
    let initrd = source.initrd;
    if initrd.is_empty() {
        return Ok(0..0);
    }
    let len = initrd.len();
    let start = rooms
        .iter()
        .find_map(|room| (room.take)(layout, len as u64, PAGE_SIZE, room.range.clone()));
    let Some(start) = start else {
        return Err(LoadError::Initrd {
            len,
            kernel_end: initrd_start(source.kernel),
            limit: rooms.last().map_or(0, |room| room.range.end),
        });
    };
    copy(ram, initrd, GuestAddress(start))?;
    Ok(start..start + len as u64)
}

/// Copies `bytes` to `start`, through the file that the memory is mapped from if there is one: that saves a page fault for
/// each page.
fn copy(
    ram: &impl GuestMemoryBackend,
    bytes: &[u8],
    start: GuestAddress,
) -> Result<(), GuestMemoryError> {
    let region = ram
        .to_region_addr(start)
        .filter(|(region, at)| region.len() - at.raw_value() >= bytes.len() as u64);
    let file =
        region.and_then(|(region, at)| Some((region, region.file_offset()?, at.raw_value())));
    let Some((region, place, at)) = file else {
        return ram.write_slice(bytes, start);
    };
    place
        .file()
        .write_all_at(bytes, place.start() + at)
        .map_err(GuestMemoryError::IOError)?;
    region.bitmap().mark_dirty(at as usize, bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests;
