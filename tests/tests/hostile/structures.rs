//! Page tables and descriptor tables of a hostile guest: sound ones, of which some entries are then spoilt.

use fastrand::Rng;
use tests::differential::values::percent;

use crate::layout::{
    CODE, CODE_BYTES, CODE64, DATA, DIRECTORIES, EDGES, GDT, HANDLER_BYTES, HANDLER_COUNT,
    HANDLERS, HIGH, HIGH_INDEX, IDT, INNER_STACKS, PAGE, PAGE_MAPS, PAGE_TABLES, PLACES,
    POINTER_TABLES, RAM, RANDOM, TSS,
};

/// Bits of entries (SDM Vol. 3A, 4.5 "4-Level Paging and 5-Level Paging").
const P: u64 = 1;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const PS: u64 = 1 << 7;
const OPEN: u64 = P | W | U;
/// The bits that are spoilt: rights, attributes, the least and the greatest reserved ones, XD.
const SPOILT_BITS: [u32; 16] = [0, 0, 1, 1, 2, 2, 5, 6, 7, 8, 13, 21, 40, 51, 62, 63];

/// Stores a quadword in the image of memory.
pub fn put(memory: &mut [u8], at: u64, value: u64) {
    memory[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
}

fn get(memory: &[u8], at: u64) -> u64 {
    let bytes = memory[at as usize..].first_chunk();
    u64::from_le_bytes(*bytes.expect("a whole entry"))
}

/// The entries that map something at first, as their physical addresses and values.
fn sound_entries() -> Vec<(u64, u64)> {
    let [low, high, alias, _] = POINTER_TABLES;
    let [first, last, aliased, below_4g] = DIRECTORIES;
    let [identity, end, rotated, around, ..] = PAGE_TABLES;
    let mut entries = Vec::new();
    let mut link = |table: u64, index: u64, value: u64| entries.push((table + 8 * index, value));
    for page_map in PAGE_MAPS {
        for (index, pointers) in [
            (0, low),
            (2, alias),
            (255, high),
            (256, low),
            (HIGH_INDEX, low),
            (511, high),
        ] {
            link(page_map, index, pointers | OPEN);
        }
    }
    link(low, 0, first | OPEN);
    link(low, 1, PS | OPEN);
    link(low, 3, below_4g | OPEN);
    link(low, 4, below_4g | OPEN);
    link(high, 510, first | OPEN);
    link(high, 511, last | OPEN);
    link(alias, 0, aliased | OPEN);
    link(first, 0, identity | OPEN);
    link(first, 1, PS | OPEN);
    link(aliased, 0, rotated | OPEN);
    link(last, 511, end | OPEN);
    link(below_4g, 0, around | OPEN);
    link(below_4g, 511, around | OPEN);
    for page in 0..RAM as u64 / PAGE {
        link(identity, page, (page * PAGE) | OPEN);
        // The code stays where it is, the data is another page's.
        let frame = if page * PAGE < DATA { page } else { page ^ 1 };
        link(rotated, page, (frame * PAGE) | OPEN);
    }
    for page in 0..4 {
        for table in [end, around] {
            link(table, page, (DATA + page * PAGE) | OPEN);
            link(table, 511 - page, (DATA + (page + 4) * PAGE) | OPEN);
        }
    }
    entries
}

/// A random entry: any frame or table, some rights, seldom a reserved bit.
pub fn entry(rng: &mut Rng) -> u64 {
    let frames = RAM as u64 / PAGE;
    let target = match rng.u32(..8) {
        0 => rng.choice(POINTER_TABLES).unwrap_or_default(),
        1 => rng.choice(DIRECTORIES).unwrap_or_default(),
        2 => rng.choice(PAGE_TABLES).unwrap_or_default(),
        3 => rng.choice(PAGE_MAPS).unwrap_or_default(),
        4 => CODE + PAGE * rng.u64(..CODE_BYTES / PAGE),
        5 => 0,
        6 => (rng.u64(..) & 0xff_ffff_f000) >> rng.u32(..20) & !(PAGE - 1),
        _ => PAGE * rng.u64(..frames),
    };
    let mut value = target | OPEN;
    if percent(rng, 20) {
        value |= PS;
    }
    if percent(rng, 40) {
        value ^= 1 << SPOILT_BITS[rng.usize(..SPOILT_BITS.len())];
    }
    value
}

/// The physical address of an entry of a page table that is in use.
pub fn entry_in_use(rng: &mut Rng) -> u64 {
    let entries = sound_entries();
    entries[rng.usize(..entries.len())].0
}

/// Fills in page tables and descriptor tables.
pub fn fill(memory: &mut [u8], rng: &mut Rng) {
    let entries = sound_entries();
    for &(at, value) in &entries {
        put(memory, at, value);
    }
    if percent(rng, 60) {
        for _ in 0..rng.usize(1..12) {
            let (at, _) = entries[rng.usize(..entries.len())];
            let value = match rng.u32(..3) {
                0 => entry(rng),
                1 => get(memory, at) & !U,
                _ => get(memory, at) ^ 1 << SPOILT_BITS[rng.usize(..SPOILT_BITS.len())],
            };
            put(memory, at, value);
        }
    }
    fill_gdt(memory, rng);
    fill_idt(memory, rng);
    fill_tss(memory, rng);
}

/// The base of a system descriptor of 16 bytes, in both halves of that.
fn system_descriptor(base: u64, limit: u64, attributes: u64) -> [u64; 2] {
    let low =
        limit & 0xffff | (base & 0xff_ffff) << 16 | attributes << 40 | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

/// A gate of 16 bytes.
fn gate(target: u64, selector: u16, attributes: u64, stack: u64) -> [u64; 2] {
    let low = target & 0xffff
        | u64::from(selector) << 16
        | stack << 32
        | attributes << 40
        | (target >> 16 & 0xffff) << 48;
    [low, target >> 32]
}

fn fill_gdt(memory: &mut [u8], rng: &mut Rng) {
    let task = system_descriptor(HIGH | TSS, 0x67, 0x8b);
    let local = system_descriptor(HIGH | (GDT + u64::from(RANDOM)), 0x7f, 0x82);
    let call = gate(handler(rng), CODE64, 0xec, 0);
    let sound = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00af_9e00_0000_ffff,
        task[0],
        task[1],
        local[0],
        local[1],
        call[0],
        call[1],
        0x000f_fb00_0000_ffff,
        0x00cf_f300_0000_0fff,
    ];
    let random = (0..16).map(|_| match rng.u32(..4) {
        0 => rng.u64(..),
        // A sound descriptor with another byte of attributes, or one bit changed.
        1 => 0x00cf_0000_0000_ffff | rng.u64(..256) << 40,
        _ => sound[rng.usize(1..sound.len())] ^ 1 << rng.u32(40..56),
    });
    let all = sound.into_iter().chain(random.collect::<Vec<_>>());
    for (index, descriptor) in (0..).zip(all) {
        put(memory, GDT + 8 * index, descriptor);
    }
    if percent(rng, 10) {
        let at = GDT + 8 * rng.u64(1..16);
        let spoilt = get(memory, at) ^ 1 << rng.u32(..64);
        put(memory, at, spoilt);
    }
}

/// The linear address of a handler.
fn handler(rng: &mut Rng) -> u64 {
    HIGH | (HANDLERS + HANDLER_BYTES * rng.u64(..HANDLER_COUNT))
}

fn fill_idt(memory: &mut [u8], rng: &mut Rng) {
    let is_spoilt = percent(rng, 30);
    for vector in 0..256 {
        let attributes = [0xee, 0xee, 0xef, 0x8e][rng.usize(..4)];
        let stack = if percent(rng, 20) { rng.u64(1..8) } else { 0 };
        let mut halves = gate(handler(rng), CODE64, attributes, stack);
        if is_spoilt && percent(rng, 8) {
            halves[rng.usize(..2)] ^= 1 << rng.u32(..64);
        }
        put(memory, IDT + 16 * vector, halves[0]);
        put(memory, IDT + 16 * vector + 8, halves[1]);
    }
}

/// The stacks of the TSS (SDM Vol. 3A, Figure 7-11 "64-Bit TSS Format"): RSP0 to RSP2, and the interrupt stacks.
fn fill_tss(memory: &mut [u8], rng: &mut Rng) {
    for offset in [4, 12, 20, 36, 44, 52, 60, 68, 76, 84] {
        let stack = match rng.u32(..20) {
            0 => address(rng),
            _ => HIGH | (INNER_STACKS + 0x800 * rng.u64(1..12)),
        };
        put(memory, TSS + offset, stack);
    }
}

/// A random linear address: mostly in memory at one of its places, else near an edge, or anything.
pub fn address(rng: &mut Rng) -> u64 {
    let offset = match rng.u32(..20) {
        0 => return rng.u64(..),
        1..4 => return EDGES[rng.usize(..EDGES.len())].wrapping_add_signed(rng.i64(-20..20)),
        4 => rng.u64(..RAM as u64),
        5 => CODE + rng.u64(..CODE_BYTES),
        6 => DATA + PAGE * rng.u64(1..8) - rng.u64(1..16),
        _ => (DATA + rng.u64(..0x8000)) & !7,
    };
    PLACES[rng.usize(..PLACES.len())] | offset
}
