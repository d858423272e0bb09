//! The layout of host addresses that machines with 48-bit linear addresses use.
//!
//! A slot found for a linear address may be that of another page, whose address differs by a multiple of 1 TiB (`tlb::index`). The
//! host address formed with it then differs by a multiple of 1 TiB from one in RAM. Emitted code accesses it without a
//! comparison, and that has to fault. So each terabyte of the process has an inaccessible range where RAM lies in its own one:
//! the *aliases* of RAM, where nothing else can be mapped for as long as RAM exists. Addresses outside the 128 terabytes of a
//! process fault by themselves.
//!
//! ```text
//!   one terabyte:  0     4 GiB                      320 GiB    448 GiB             1008 GiB    1 TiB
//!                  ├ free ─┼─ RAM and its aliases ──────┼─ windows ─┼─ a set of tables ───┼─ free ──┤
//!                          │ machine 1 │ machine 2 │    │
//! ```
//!
//! Machines lie at different places of the first part, sets of tables in different terabytes, and windows wherever there is room
//! among those of others, so that none is in the way of another. Everything else of the process is where the host puts it, and is
//! found when a place is tried. The free parts are where programs that are linked to fixed addresses, the stack and the page for
//! legacy system calls lie (0xffffffffff600000, which is accessible on some hosts).
//!
//! The parts are a budget: whoever takes addresses of one checks at compile time that they fit ([`fits_ram`], [`fits_tables`],
//! [`fits_windows`]).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::mapping::{Mapping, Protection};

/// Bytes of linear addresses by a multiple of which pages with a common slot differ.
pub(crate) const TERABYTE: usize = 1 << 40;

/// The terabytes that a host process on x86-64 has (Linux, Documentation/arch/x86/x86_64/mm.rst).
const TERABYTES: usize = 128;

const GIB: usize = 1 << 30;

/// The part of each terabyte in which RAM and its aliases lie.
const RAM: Range<usize> = 4 * GIB..320 * GIB;
/// The distance between places for RAM, which is the least length of RAM's mapping.
const STEP: usize = 4 * GIB;
/// The terabyte in which RAM is mapped. The others have its aliases.
const OWN: usize = 1;

/// The part of each terabyte in which windows lie.
const WINDOWS: Range<usize> = RAM.end..448 * GIB;
/// The part of a terabyte in which a set of tables lies.
const TABLES: Range<usize> = WINDOWS.end..1008 * GIB;

const _: () =
    assert!(RAM.start < RAM.end && WINDOWS.start < WINDOWS.end && TABLES.start < TABLES.end);
const _: () = assert!(TABLES.end <= TERABYTE);

/// Whether RAM that takes `bytes` of addresses has a place.
pub(crate) const fn fits_ram(bytes: u64) -> bool {
    bytes <= (RAM.end - RAM.start) as u64
}

/// Whether a set of tables of `bytes` has a place in each terabyte.
pub(crate) const fn fits_tables(bytes: usize) -> bool {
    bytes <= TABLES.end - TABLES.start
}

/// Whether the part for windows of a terabyte holds blocks of `bytes`, without a remainder.
pub(crate) const fn fits_windows(bytes: usize) -> bool {
    (WINDOWS.end - WINDOWS.start).is_multiple_of(bytes)
}

/// The places for windows that were tried so far, by all machines of the process.
static TRIED: AtomicUsize = AtomicUsize::new(0);

/// The terabytes of a process.
const ALL: Range<usize> = 0..TERABYTES;
/// The terabytes from which on a set of tables may lie, by the number of sets that the machine already has. A machine that has
/// few of them finds a place, however many others have.
const fn first_terabyte(sets: usize) -> usize {
    match sets {
        0 => 0,
        1..4 => 16,
        _ => 64,
    }
}

/// The mapping of RAM that no slot leads out of, unless to a fault.
#[derive(Debug)]
pub(crate) struct AliasedRam {
    pub(crate) mapping: Mapping,
    pub(crate) aliases: Aliases,
}

/// The addresses at multiples of 1 TiB from those of RAM, which are inaccessible while this value exists.
#[derive(Debug)]
pub(crate) struct Aliases {
    _reserved: Vec<Mapping>,
}

impl AliasedRam {
    /// Maps the first `len` bytes of `file`, of which there are at most those of [`RAM`], readable and writable.
    ///
    /// # Errors
    /// `AddrNotAvailable` if something lies among the aliases of each place; else the host's error.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        for place in RAM.step_by(STEP) {
            if place + len > RAM.end {
                break;
            }
            if let Some(ram) = unless_taken(Self::at(place, file, len))? {
                return Ok(ram);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    /// Maps the RAM at a place. Whoever has it in the terabyte [`OWN`] has it in the others, too, as a rule: so of machines that
    /// are made at the same time one gets the place.
    fn at(place: usize, file: &File, len: usize) -> io::Result<Self> {
        let start = OWN * TERABYTE + place;
        let mapping = Mapping::of_file_at(start, file, len, Protection::ReadWrite)?;
        let others = ALL.rev().filter(|terabyte| *terabyte != OWN);
        let reserve =
            |terabyte| Mapping::anonymous_at(terabyte * TERABYTE + place, len, Protection::None);
        let aliases = Aliases {
            _reserved: others.map(reserve).collect::<io::Result<_>>()?,
        };
        Ok(Self { mapping, aliases })
    }
}

/// Maps `len` readable bytes for a set of tables among which no alias of any RAM lies, for a machine that has `sets` of them.
///
/// # Errors
/// `AddrNotAvailable` if there is no place; else the host's error.
pub(crate) fn map_tables(len: usize, sets: usize) -> io::Result<Mapping> {
    debug_assert!(fits_tables(len));
    for terabyte in first_terabyte(sets)..TERABYTES {
        let start = terabyte * TERABYTE + TABLES.start;
        if let Some(mapping) = unless_taken(Mapping::anonymous_at(start, len, Protection::Read))? {
            return Ok(mapping);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// Maps `len` inaccessible bytes, of which the part for windows of a terabyte is a multiple, where no alias of any RAM lies.
///
/// # Errors
/// As [`map_tables`].
pub(crate) fn map_window(len: usize) -> io::Result<Mapping> {
    debug_assert!(fits_windows(len));
    let places = WINDOWS.len() / len;
    for _ in 0..TERABYTES * places {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let start = tried / places % TERABYTES * TERABYTE + WINDOWS.start + tried % places * len;
        if let Some(mapping) = unless_taken(Mapping::anonymous_at(start, len, Protection::None))? {
            return Ok(mapping);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

/// The value, unless something is mapped at its place.
fn unless_taken<T>(mapped: io::Result<T>) -> io::Result<Option<T>> {
    match mapped {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}
