//! The stub for gdb, spoken to without gdb.

mod breakpoints;
mod client;
mod connections;
mod ends;
mod events;
mod hostile;
mod listening;
mod memory;
mod monitor;
mod registers;

use std::thread;

use client::Client;
use tempfile::TempDir;
use vmm::{
    Console, Control, Engine, StopReason, Vm,
    gdb::{Address, Gdb, Start},
};

use crate::support::{DATA, START, Typed, machine};

/// The first instructions of guests that need [`write_tables`]'s tables.
#[rustfmt::skip]
const LOAD_TABLES: [u8; 19] = [
    0x0f, 0x01, 0x1d, 0x00, 0x08, 0x20, 0x00,   // 00  lidt [DATA + 0x800]
    0x0f, 0x01, 0x15, 0x10, 0x08, 0x20, 0x00,   // 07  lgdt [DATA + 0x810]
    0xbc, 0x00, 0x00, 0x28, 0x00,               // 0e  mov esp, 0x280000
];

/// Writes an interrupt descriptor table at [`DATA`], of vectors and the offsets of their handlers in the code, a global one with
/// the segments that guests are entered with, and the pointers to both.
fn write_tables(client: &mut Client, handlers: &[(u32, u32)]) {
    const GLOBAL: u32 = DATA + 0x820;
    for &(vector, offset) in handlers {
        let handler = START + offset;
        let low = handler & 0xffff | 0x10 << 16;
        let high = handler & 0xffff_0000 | 0x8e00;
        let gate = [low.to_le_bytes(), high.to_le_bytes()].concat();
        client.write(DATA + 8 * vector, &gate);
    }
    for (at, limit, table) in [
        (DATA + 0x800, 0x7ff_u16, DATA),
        (DATA + 0x810, 0x1f, GLOBAL),
    ] {
        let pointer = [&limit.to_le_bytes()[..], &table.to_le_bytes()].concat();
        client.write(at, &pointer);
    }
    for (selector, descriptor) in [
        (0x10, 0x00cf_9b00_0000_ffff_u64),
        (0x18, 0x00cf_9300_0000_ffff),
    ] {
        client.write(GLOBAL + selector, &descriptor.to_le_bytes());
    }
}

/// Ends the machine when its client fails, as nobody else is left who would.
struct QuitOnPanic(Control);

impl Drop for QuitOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.quit();
        }
    }
}

/// A Unix socket's address in a folder that goes with it.
fn socket() -> (TempDir, Address) {
    let folder = tempfile::tempdir().unwrap();
    let address = Address::Unix(folder.path().join("gdb"));
    (folder, address)
}

/// Runs `vm` with the stub, and beside it `debug`, to whom it is said where the stub listens, until the machine stops.
fn run(
    vm: &mut Vm,
    address: &Address,
    start: Start,
    console: &mut dyn Console,
    debug: impl FnOnce(&Address) + Send,
) -> StopReason {
    let control = vm.control();
    let mut gdb = Gdb::listen(address, control.clone(), start).unwrap();
    let address = gdb.address().clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _guard = QuitOnPanic(control);
            debug(&address);
        });
        let stop = gdb.run(vm, console);
        // Whoever still waits for a turn does not get one.
        drop(gdb);
        stop
    })
}

/// Runs a machine with `code` that waits for `debug`, which is given a client that has just connected, over a Unix socket.
fn debugged(engine: Engine, code: &[u8], debug: impl FnOnce(Client) + Send) -> StopReason {
    let (_folder, address) = socket();
    let mut vm = machine(engine, code);
    run(
        &mut vm,
        &address,
        Start::Wait,
        &mut Typed::default(),
        |address| debug(Client::connect(address)),
    )
}

/// Runs a machine as [`debugged`] does, which the debugger kills in the end.
#[track_caller]
fn killed(engine: Engine, code: &[u8], debug: impl FnOnce(&mut Client) + Send) {
    let stop = debugged(engine, code, |mut client| {
        debug(&mut client);
        client.kill();
    });
    assert!(matches!(stop, StopReason::Quit), "{stop}");
}
