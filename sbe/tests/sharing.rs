//! Devices that store by DMA into memory from which the processor has made something: code that is executing, page tables in
//! use, watched pages. Both engines see it as they see the processor's own stores, from another thread too.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, LinearAddr, Memory, Mmu};
use sbe::{
    Bus, EmptyBus, Engine, Exit, Vcpu, VcpuConfig, WatchHit, Watched, Watchpoint, Width, Windows,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::thread;
use vm_memory::{Bytes, GuestAddress};

const MEMORY: u64 = 16 << 20;
const ORIGIN: u32 = 0x10_0000;
const STACK: u32 = 0x20_0000;
/// A page of code that a device changes.
const ROUTINE: u32 = 0x30_0000;
/// The word that the device sets when it is done.
const FLAG: u32 = 0x40_1000;
const DIRECTORY: u32 = 0x50_0000;
const TABLE: u32 = 0x51_0000;
/// A linear page that is mapped to one of two frames.
const PAGE: u32 = 0x0080_0000;
const OLD: u32 = 0x60_0000;
const NEW: u32 = 0x61_0000;

/// The engines, and whether programs have windows.
const ENGINES: [(Engine, Windows); 3] = [
    (Engine::Emulator, Windows::Never),
    (Engine::Translator, Windows::Never),
    (Engine::Translator, Windows::Always),
];

fn assemble(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>, at: u32) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    program(&mut assembler).expect("a program");
    assembler.assemble(at.into()).expect("assembles")
}

/// A processor about to execute `code`.
fn machine((engine, windows): (Engine, Windows), code: &[u8]) -> (Vcpu, Arc<Memory>) {
    let memory = Memory::new(MEMORY).expect("memory");
    put(&memory, ORIGIN, code);
    let config = VcpuConfig {
        engine,
        windows,
        verify_code: true,
        ..VcpuConfig::default()
    };
    let mmu = Mmu::new(Arc::clone(&memory)).expect("tables");
    let mut vcpu = Vcpu::new(&config, mmu).expect("a processor");
    vcpu.set_linux_entry(ORIGIN, 0);
    vcpu.cpu.regs.set(4, STACK);
    (vcpu, memory)
}

fn put(memory: &Memory, at: u32, bytes: &[u8]) {
    let at = GuestPhys::new(at.into());
    memory.write(at, bytes).expect("RAM");
}

/// Stores as a device does that is built on `vm-memory`.
fn dma(memory: &Arc<Memory>, at: u32, bytes: &[u8]) {
    let ram = memory.guest_ram();
    ram.write_slice(bytes, GuestAddress(at.into()))
        .expect("RAM");
}

/// Runs until something else than the budget ends it.
fn run(vcpu: &mut Vcpu, bus: &mut dyn Bus) -> Exit {
    loop {
        match vcpu.run(bus, 2000) {
            Exit::Budget => {}
            exit => return exit,
        }
    }
}

/// `mov eax, value; ret`.
fn routine(value: u32) -> Vec<u8> {
    assemble(
        |a| {
            a.mov(eax, value)?;
            a.ret()
        },
        ROUTINE,
    )
}

/// Calls the routine until the device is done, then a last time: as the manual says, after a serializing instruction
/// (SDM Vol. 3A, 8.1.3 Handling Self- and Cross-Modifying Code).
fn caller() -> Vec<u8> {
    assemble(
        |a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(edx, ROUTINE)?;
            a.call(edx)?;
            a.cmp(dword_ptr(FLAG), 0)?;
            a.je(again)?;
            a.xor(eax, eax)?;
            a.cpuid()?;
            a.mov(edx, ROUTINE)?;
            a.call(edx)?;
            a.hlt()
        },
        ORIGIN,
    )
}

#[test]
fn code_that_is_executing_is_changed_by_another_thread() {
    for engine in ENGINES {
        for round in 0..8 {
            let (mut vcpu, memory) = machine(engine, &caller());
            put(&memory, ROUTINE, &routine(1));
            // The code is known before the device stores.
            for _ in 0..round {
                assert_eq!(vcpu.run(&mut EmptyBus, 2000), Exit::Budget);
            }
            thread::scope(|scope| {
                scope.spawn(|| {
                    dma(&memory, ROUTINE + 1, &2u32.to_le_bytes());
                    dma(&memory, FLAG, &[1]);
                });
                assert_eq!(run(&mut vcpu, &mut EmptyBus), Exit::Halt);
            });
            assert_eq!(vcpu.cpu.regs.get(0), 2, "{engine:?}, round {round}");
        }
    }
}

/// Maps the first 8 MiB to themselves, and [`PAGE`] to [`OLD`].
fn page_tables(memory: &Memory) {
    let entry = |frame: u32| (frame | 0x67).to_le_bytes();
    for index in 0..2 {
        put(memory, DIRECTORY + 4 * index, &entry(index << 22 | 0x80));
    }
    put(memory, DIRECTORY + 4 * (PAGE >> 22), &entry(TABLE));
    put(memory, TABLE + 4 * (PAGE >> 12 & 0x3ff), &entry(OLD));
    put(memory, OLD, &OLD.to_le_bytes());
    put(memory, NEW, &NEW.to_le_bytes());
}

fn page_user() -> Vec<u8> {
    assemble(
        |a| {
            a.mov(eax, DIRECTORY)?;
            a.mov(cr3, eax)?;
            a.mov(eax, cr4)?;
            a.or(eax, 0x10)?;
            a.mov(cr4, eax)?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000u32 as i32)?;
            a.mov(cr0, eax)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.mov(eax, dword_ptr(PAGE))?;
            a.cmp(dword_ptr(FLAG), 0)?;
            a.je(again)?;
            a.invlpg(byte_ptr(PAGE))?;
            a.mov(eax, dword_ptr(PAGE))?;
            a.hlt()
        },
        ORIGIN,
    )
}

#[test]
fn page_tables_in_use_are_changed_by_another_thread() {
    for engine in ENGINES {
        for (what, entry, value) in [
            ("page table", TABLE + 4 * (PAGE >> 12 & 0x3ff), NEW | 0x67),
            // A page of 4 MiB: linear PAGE is physical NEW.
            ("directory", DIRECTORY + 4 * (PAGE >> 22), 0x0040_00e7),
        ] {
            let (mut vcpu, memory) = machine(engine, &page_user());
            page_tables(&memory);
            put(
                &memory,
                0x0040_0000 + (PAGE & 0x3f_ffff),
                &NEW.to_le_bytes(),
            );
            for _ in 0..4 {
                assert_eq!(vcpu.run(&mut EmptyBus, 2000), Exit::Budget);
            }
            assert_eq!(vcpu.cpu.regs.get(0), OLD, "{engine:?}, {what}");
            thread::scope(|scope| {
                scope.spawn(|| {
                    dma(&memory, entry, &value.to_le_bytes());
                    dma(&memory, FLAG, &[1]);
                });
                assert_eq!(run(&mut vcpu, &mut EmptyBus), Exit::Halt);
            });
            assert_eq!(vcpu.cpu.regs.get(0), NEW, "{engine:?}, {what}");
        }
    }
}

/// A device that, when it is written to, changes the instruction that comes next.
struct Changer(Arc<Memory>, u32);

impl Bus for Changer {
    fn port_read(&mut self, _: u16, _: Width) -> u32 {
        u32::MAX
    }

    fn port_write(&mut self, _: u16, _: Width, value: u32) {
        dma(&self.0, self.1, &[value as u8]);
    }

    fn mmio_read(&mut self, _: GuestPhys, _: u8) -> u64 {
        u64::MAX
    }

    fn mmio_write(&mut self, _: GuestPhys, _: u8, value: u64) {
        dma(&self.0, self.1, &[value as u8]);
    }

    fn intr(&self) -> bool {
        false
    }

    fn acknowledge(&mut self) -> u8 {
        0
    }

    fn stop_requested(&self) -> bool {
        false
    }
}

#[test]
fn the_instruction_behind_a_device_access_is_changed_by_the_device() {
    const DEVICE: u32 = 0xb_8000;
    for engine in ENGINES {
        for by_port in [true, false] {
            let code = assemble(
                |a| {
                    let mut again = a.create_label();
                    a.mov(ecx, 0)?;
                    a.mov(ebx, 0)?;
                    a.set_label(&mut again)?;
                    a.lea(eax, dword_ptr(ecx + 1))?;
                    match by_port {
                        true => a.out(0x10, al)?,
                        false => a.mov(byte_ptr(DEVICE), al)?,
                    }
                    // The immediate is the device's to change: the number of this round.
                    a.add(ebx, 0x7f)?;
                    a.inc(ecx)?;
                    a.cmp(ecx, 50)?;
                    a.jne(again)?;
                    a.hlt()
                },
                ORIGIN,
            );
            let add = code.iter().position(|&byte| byte == 0x7f);
            let (mut vcpu, memory) = machine(engine, &code);
            let at = ORIGIN + add.expect("the immediate") as u32;
            let exit = run(&mut vcpu, &mut Changer(memory, at));
            assert_eq!(exit, Exit::Halt);
            assert_eq!(vcpu.cpu.regs.get(3), 50 * 51 / 2, "{engine:?}, {by_port}");
        }
    }
}

#[test]
fn a_store_of_a_device_hits_a_watchpoint() {
    for engine in ENGINES {
        for (offset, hits) in [
            (0xfff, false),
            (0x1001, true),
            (0x1003, true),
            (0x1004, false),
        ] {
            let (mut vcpu, memory) = machine(engine, &caller());
            put(&memory, ROUTINE, &routine(1));
            let watchpoint = Watchpoint {
                start: LinearAddr::from(OLD + 0x1000),
                len: 4,
                watched: Watched::Writes,
            };
            vcpu.debugger_mut().add_watchpoint(watchpoint);
            assert_eq!(vcpu.run(&mut EmptyBus, 2000), Exit::Budget);
            // What the debugger itself writes is no hit.
            put(&memory, OLD + 0x1000, &[1; 4]);
            assert_eq!(vcpu.run(&mut EmptyBus, 2000), Exit::Budget);
            thread::scope(|scope| {
                scope.spawn(|| {
                    dma(&memory, OLD + offset, &[1]);
                    dma(&memory, FLAG, &[1]);
                });
                let exit = run(&mut vcpu, &mut EmptyBus);
                let hit = Exit::Watchpoint(WatchHit {
                    watchpoint,
                    write: true,
                });
                match hits {
                    true => assert_eq!(exit, hit, "{engine:?}"),
                    false => assert_eq!(exit, Exit::Halt, "{engine:?}"),
                }
            });
            if hits {
                assert_eq!(run(&mut vcpu, &mut EmptyBus), Exit::Halt, "{engine:?}");
            }
        }
    }
}

/// Two words in different cache lines, of which the guest stores to one and a device to the other.
const OURS: u32 = 0x70_0000;
const THEIRS: u32 = 0x70_1000;
/// What the guest has read of the device's word after each of its stores.
const LOG: u32 = 0x80_0000;
const STORES: u32 = 1_000_000;

/// Stores the numbers up to [`STORES`] to [`OURS`] by `store`, and after each logs what is in [`THEIRS`].
fn storer(store: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let program = |a: &mut CodeAssembler| {
        let mut next = a.create_label();
        a.mov(ecx, 1)?;
        a.set_label(&mut next)?;
        a.mov(edx, ecx)?;
        store(a)?;
        a.mov(eax, dword_ptr(THEIRS))?;
        a.mov(dword_ptr(ecx * 4 + LOG), eax)?;
        a.inc(ecx)?;
        a.cmp(ecx, STORES as i32)?;
        a.jne(next)?;
        a.hlt()
    };
    assemble(program, ORIGIN)
}

/// Stores numbers to [`THEIRS`] until the guest is done, and returns what was in [`OURS`] after each.
fn store_too(memory: &Arc<Memory>, done: &AtomicBool) -> Vec<u32> {
    let ram = memory.guest_ram();
    let mut seen = vec![0];
    while !done.load(SeqCst) {
        let number = seen.len() as u32;
        ram.store(number, GuestAddress(THEIRS.into()), SeqCst)
            .expect("RAM");
        fence(SeqCst);
        seen.push(ram.load(GuestAddress(OURS.into()), SeqCst).expect("RAM"));
    }
    seen
}

/// Returns how many stores of the guest's came after its next load: it then has missed a store of the device's that itself has
/// missed the guest's.
fn overtaken(memory: &Arc<Memory>, seen: &[u32]) -> usize {
    let ram = memory.guest_ram();
    let missed = |number: &u32| {
        let log = GuestAddress(u64::from(LOG) + 4 * u64::from(*number));
        let theirs: u32 = ram.read_obj(log).expect("RAM");
        let next = seen.get(theirs as usize + 1);
        next.is_some_and(|ours| ours < number)
    };
    (1..STORES).filter(missed).count()
}

/// Drivers and devices tell each other of what is in their rings by a store, a barrier and a load (VIRTIO 1.2, 2.7.7.2 "Notifying The
/// Device").
#[test]
fn what_orders_memory_does_so_for_devices() {
    type Store = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let plain: Store = |a| a.mov(dword_ptr(OURS), edx);
    let barriers: [(&str, Store); 5] = [
        ("lock add", |a| {
            a.mov(dword_ptr(OURS), edx)?;
            a.lock().add(dword_ptr(esp - 4), 0)
        }),
        ("mfence", |a| {
            a.mov(dword_ptr(OURS), edx)?;
            a.mfence()
        }),
        ("xchg", |a| a.xchg(dword_ptr(OURS), edx)),
        ("lock bts", |a| {
            a.mov(dword_ptr(OURS), edx)?;
            a.lock().bts(dword_ptr(esp - 4), eax)
        }),
        ("lock cmpxchg8b", |a| {
            a.mov(dword_ptr(OURS), edx)?;
            a.lock().cmpxchg8b(qword_ptr(esp - 8))
        }),
    ];
    for engine in ENGINES {
        for (name, store) in [("nothing", plain)].into_iter().chain(barriers) {
            let (mut vcpu, memory) = machine(engine, &storer(store));
            let done = AtomicBool::new(false);
            let seen = thread::scope(|scope| {
                let device = scope.spawn(|| store_too(&memory, &done));
                let exit = run(&mut vcpu, &mut EmptyBus);
                done.store(true, SeqCst);
                assert_eq!(exit, Exit::Halt, "{name}");
                device.join().expect("no panic")
            });
            let count = overtaken(&memory, &seen);
            println!("{engine:?}, {name}: {count} of {STORES} stores overtaken");
            assert!(
                count == 0 || name == "nothing",
                "{engine:?}, {name}: {count}"
            );
        }
    }
}
