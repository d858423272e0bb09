//! The host addresses at multiples of 1 TiB from those of RAM, to which slots of wide tables may lead, fault.

use std::collections::BTreeSet;
use std::env;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use mmu::{
    Access, INDEX_BITS, LinearAddr, LinearWidth, MAX_RAM, MIN_RAM, Memory, MemoryError, Mmu,
    Paging, PagingMode, PagingModel, SLOT_PRESENT, View,
};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::guest::{P, U, User, W, phys};
use crate::mappings::Mapping;

const TIB: u64 = 1 << 40;
/// The terabytes of a process.
const TERABYTES: u64 = 128;
const GIB: u64 = 1 << 30;
/// The part of each terabyte in which RAM lies, and the distance between its places.
const RAM_PART: Range<u64> = 4 * GIB..320 * GIB;
const STEP: u64 = 4 * GIB;
/// More address spaces than a processor keeps tables of.
const SPACES: u64 = 70;
const RAM: u64 = 4 << 20;
/// The page, and the structures of each space: four pages.
const DATA: u64 = 0x8000;
const TOPS: u64 = 0x10_0000;
const STRUCTURES: u64 = 0x4000;
/// A program's address, with which many others share a slot.
const PAGE: u64 = 0x12_3456_7000;

/// The variable that tells a process what to do.
const JOB: &str = "MMU_TEST_JOB";
const SIGSEGV: i32 = 11;

/// A processor with [`SPACES`] address spaces, each of which maps [`PAGE`] to [`DATA`].
struct Guest {
    mmu: Mmu,
}

impl Guest {
    fn new() -> Self {
        let memory = wide(RAM);
        let mut mmu = Mmu::with_model(memory, PagingModel::X86_64).unwrap();
        for space in 0..SPACES {
            let top = TOPS + space * STRUCTURES;
            let tables = [0x1000, 0x2000, 0x3000].map(|offset| top + offset);
            let nexts = tables.into_iter().chain([DATA]);
            for ((table, next), shift) in [top]
                .into_iter()
                .chain(tables)
                .zip(nexts)
                .zip([39, 30, 21, 12])
            {
                let entry = phys(table + (PAGE >> shift & 0x1ff) * 8);
                mmu.write_phys(entry, next | P | W | U).unwrap();
            }
        }
        Self { mmu }
    }

    /// Enters a space and increments a counter in its page. Returns the address of its tables.
    fn count_in(&mut self, space: u64) -> usize {
        self.mmu.set_paging(Paging {
            mode: PagingMode::FourLevel,
            cr3: TOPS + space * STRUCTURES,
            ..Paging::default()
        });
        let addr = LinearAddr::new(PAGE);
        let before: u64 = self.mmu.read(addr, User).unwrap();
        self.mmu.write(addr, User, before + 1).unwrap();
        self.mmu.tlb().base(View::of(Access::Read, User)).addr()
    }

    fn counted(&self) -> u64 {
        self.mmu.read_phys(phys(DATA)).unwrap()
    }

    /// What code reads at [`PAGE`] + `distance`, which it takes for mapped as it compares nothing.
    fn read_as_code_does(&mut self, distance: u64) -> u64 {
        self.count_in(0);
        let addr = PAGE.wrapping_add(distance);
        let table = self.mmu.tlb().base(View::of(Access::Read, User));
        // SAFETY: the table has a slot for each value of the bits.
        let slot = unsafe { table.add(extracted(addr)).read() };
        assert_ne!(slot, 0);
        let host = addr.wrapping_add(slot).wrapping_sub(SLOT_PRESENT);
        // SAFETY: it is a byte of RAM, or the process ends here.
        unsafe { std::ptr::with_exposed_provenance::<u64>(host as usize).read_volatile() }
    }
}

/// PEXT by [`INDEX_BITS`] (SDM Vol. 2B, PEXT).
fn extracted(addr: u64) -> usize {
    let bits = (0..64).filter(|bit| INDEX_BITS >> bit & 1 != 0);
    bits.enumerate()
        .fold(0, |sum, (to, from)| sum | (addr >> from & 1) << to) as usize
}

fn wide(ram: u64) -> Arc<Memory> {
    Memory::for_width(ram, LinearWidth::Bits48).unwrap()
}

/// The host addresses of guest memory.
fn host_range(memory: &Arc<Memory>) -> Range<u64> {
    let start = memory
        .guest_ram()
        .get_host_address(GuestAddress(0))
        .unwrap() as u64;
    start..start + memory.file().metadata().unwrap().len()
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Whether memory of `len` bytes has a place: the same addresses free in all terabytes.
fn has_place(len: u64) -> bool {
    let mappings = Mapping::of_this_process();
    let is_free = |place: u64| {
        (0..TERABYTES).all(|terabyte| {
            let start = terabyte * TIB + place;
            !mappings
                .iter()
                .any(|mapping| meet(&mapping.range, &(start..start + len)))
        })
    };
    (RAM_PART.start..=RAM_PART.end - len)
        .step_by(STEP as usize)
        .any(is_free)
}

/// Checks that all aliases of the memory are inaccessible and taken.
fn check(memory: &Arc<Memory>) {
    let own = host_range(memory);
    let mappings = Mapping::of_this_process();
    for terabyte in (0..TERABYTES).filter(|terabyte| *terabyte != own.start / TIB) {
        let start = terabyte * TIB + own.start % TIB;
        let alias = start..start + (own.end - own.start);
        let mut taken = alias.start;
        for mapping in mappings
            .iter()
            .filter(|mapping| meet(&mapping.range, &alias))
        {
            let is_accessible = mapping.readable || mapping.writable || mapping.executable;
            assert!(!is_accessible, "{:x?} in {alias:x?}", mapping.range);
            assert!(mapping.range.start <= taken, "a hole at {taken:#x}");
            taken = mapping.range.end;
        }
        assert!(taken >= alias.end, "a hole at {taken:#x}");
    }
}

/// Starts a test's process that does `job`.
fn process(job: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "aliases::child", "--nocapture"])
        .env(JOB, job);
    command.output().unwrap()
}

/// Has a process do `job`, and prints what it prints.
fn succeeds(job: &str) {
    let ended = process(job);
    assert!(ended.status.success(), "{job}: {ended:?}");
    print!("{}", String::from_utf8_lossy(&ended.stdout));
}

/// The process that does a job. Without the variable this test has nothing to do.
#[test]
fn child() {
    match env::var(JOB).as_deref() {
        Err(_) => (),
        Ok("machines") => machines(),
        Ok("crowd") => crowd(),
        Ok("balance") => balance(),
        Ok(distance) => {
            let distance = distance.parse().unwrap();
            println!("read {}", Guest::new().read_as_code_does(distance));
        }
    }
}

#[test]
fn aliases_of_ram_are_inaccessible_whatever_else_is_mapped() {
    for ram in [MIN_RAM, 3 << 30, 8 << 30, MAX_RAM] {
        let memory = wide(ram);
        check(&memory);
        let kept: Vec<_> = (0..64).map(|_| vec![1_u8; 8 << 20]).collect();
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                (end, thread::spawn(move || ended.recv()))
            })
            .collect();
        let narrow: Vec<_> = (0..4).map(|_| Memory::new(MIN_RAM).unwrap()).collect();
        let mut guest = Guest::new();
        (0..8).for_each(|space| {
            guest.count_in(space);
        });
        check(&memory);
        check(guest.mmu.memory());
        let restored = Memory::restore(
            memory.save(),
            memory.file().try_clone().unwrap(),
            LinearWidth::Bits48,
        )
        .unwrap();
        check(&restored);
        drop(memory);
        check(&restored);
        assert_ne!((kept.len(), narrow.len()), (0, 0));
        for (end, thread) in threads {
            drop(end);
            assert!(thread.join().unwrap().is_err());
        }
    }
}

#[test]
fn machines_are_not_in_each_others_way() {
    succeeds("machines");
}

/// Makes machines at the same time, in a process without others.
fn machines() {
    let made: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                let mut guest = Guest::new();
                let tables: BTreeSet<_> = (0..4).map(|space| guest.count_in(space)).collect();
                (guest, tables.len())
            })
        })
        .collect();
    let guests: Vec<_> = made.into_iter().map(|made| made.join().unwrap()).collect();
    for (guest, sets) in guests {
        assert_eq!((guest.counted(), sets), (4, 4));
        check(guest.mmu.memory());
    }
}

#[test]
fn machines_without_a_place_for_more_tables_go_on_with_those_they_have() {
    succeeds("crowd");
}

/// Makes machines that want more tables than a process has room for.
fn crowd() {
    let mut guests: Vec<_> = (0..4).map(|_| Guest::new()).collect();
    let mut sets = vec![];
    for guest in &mut guests {
        let tables = (0..2)
            .flat_map(|_| 0..SPACES)
            .map(|space| guest.count_in(space));
        sets.push(tables.collect::<BTreeSet<_>>().len());
        assert_eq!(guest.counted(), 2 * SPACES);
    }
    println!("sets of tables of four machines: {sets:?}");
    assert!(sets.iter().sum::<usize>() <= TERABYTES as usize);
    assert!(sets.iter().all(|sets| *sets >= 4));
    assert!(sets.iter().any(|sets| *sets < 64));
    // There is still room for another machine.
    let mut last = Guest::new();
    last.count_in(0);
    assert_eq!(last.counted(), 1);
}

#[test]
fn memory_for_32_bits_serves_no_64_bit_processor() {
    let memory = Memory::new(MIN_RAM).unwrap();
    let refused = Mmu::with_model(memory, PagingModel::X86_64);
    assert!(matches!(refused, Err(MemoryError::Narrow)));
    let memory = wide(MIN_RAM);
    assert!(Mmu::with_model(memory, PagingModel::IA32).is_ok());
}

#[test]
fn an_access_by_the_slot_of_another_page_faults() {
    let read = process("0");
    assert!(read.status.success(), "{read:?}");
    assert!(String::from_utf8_lossy(&read.stdout).contains("read 1"));
    for terabytes in [1, 31, 64, 95, 1 << 8, 1 << 15, 1 << 22, 1 << 23, 0xff_ff00] {
        let distance = terabytes * TIB;
        assert_eq!(extracted(PAGE + distance), extracted(PAGE));
        let read = process(&distance.to_string());
        assert_eq!(read.status.signal(), Some(SIGSEGV), "{terabytes}: {read:?}");
    }
}

#[test]
fn memory_and_tables_give_their_addresses_back() {
    succeeds("balance");
}

/// Makes and drops machines in a process that does nothing else.
fn balance() {
    let mapped = || {
        let mappings = Mapping::of_this_process().into_iter();
        let large = mappings.filter(|mapping| mapping.range.end - mapping.range.start >= GIB);
        large.map(|mapping| mapping.range).collect::<Vec<_>>()
    };
    let count = || Mapping::of_this_process().len();
    let (before, lines) = (mapped(), count());
    for ram in [MIN_RAM, MAX_RAM] {
        let start = Instant::now();
        drop(Memory::new(ram).unwrap());
        println!("{} MiB for 32 bits: {:?}", ram >> 20, start.elapsed());
        let start = Instant::now();
        let memory = wide(ram);
        let made = start.elapsed();
        println!("{} MiB: {made:?}, {} mappings", ram >> 20, count() - lines);
        drop(memory);
        println!("dropped after {:?}", start.elapsed() - made);
        assert_eq!(mapped(), before);
    }
    let mut guest = Guest::new();
    let few = count();
    (0..SPACES).for_each(|space| {
        guest.count_in(space);
    });
    println!("tables: {} mappings more", count() - few);
    assert!(count() - lines < 2000);
    drop(guest);
    assert_eq!(mapped(), before);
    let memories: Vec<_> = (0..)
        .map_while(|_| Memory::for_width(MAX_RAM, LinearWidth::Bits48).ok())
        .collect();
    println!("{} memories of 32 GiB fit", memories.len());
    // Eight of them leave 28 GiB. The program, the stack and the host's other mappings lie anywhere, so that each of the three may
    // be in the way of one more.
    assert!(memories.len() >= 5);
    let len = memories[0].file().metadata().unwrap().len();
    assert!(!has_place(len));
    let error = Memory::for_width(MAX_RAM, LinearWidth::Bits48).unwrap_err();
    assert!(matches!(error, MemoryError::Crowded { .. }), "{error}");
    memories.iter().for_each(check);
    drop(memories);
    assert!(has_place(len));
    assert_eq!(mapped(), before);
}
