//! Memory by linear address.

use vmm::StopReason;

use super::{client::Client, debugged, killed};
use crate::support::{DATA, ENGINES, PATCHED, START};

const DIRECTORY: u32 = 0x30_0000;
const TABLE: u32 = 0x30_1000;
const PAGE: u32 = 0x1000;
const PRESENT_WRITABLE: u32 = 3;

/// Switches paging on with the directory at `DIRECTORY`, and stays.
#[rustfmt::skip]
const PAGED: &[u8] = &[
    0xb8, 0x00, 0x00, 0x30, 0x00,       // mov eax, DIRECTORY
    0x0f, 0x22, 0xd8,                   // mov cr3, eax
    0x0f, 0x20, 0xc0,                   // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,       // or eax, PG
    0x0f, 0x22, 0xc0,                   // mov cr0, eax
    0xeb, 0xfe,                         // jmp to itself
];

/// Maps the first 4 MiB to themselves, but for the page behind `DATA`, which is not mapped, and the next, which is the one at
/// `DATA + 5 * PAGE`.
fn map(client: &mut Client) {
    client.write(DIRECTORY, &(TABLE | PRESENT_WRITABLE).to_le_bytes());
    let mut table: Vec<u32> = (0..1024)
        .map(|page| (page * PAGE) | PRESENT_WRITABLE)
        .collect();
    let data = (DATA / PAGE) as usize;
    table[data + 1] = 0;
    table[data + 2] = (DATA + 5 * PAGE) | PRESENT_WRITABLE;
    for (part, at) in table.chunks(256).zip((TABLE..).step_by(1024)) {
        let bytes: Vec<u8> = part.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        client.write(at, &bytes);
    }
    client.order(format!("Z1,{:x},1", START + 19));
    assert!(client.go_on().starts_with("T05"));
    client.order(format!("z1,{:x},1", START + 19));
}

#[test]
fn memory_is_read_and_written_through_the_page_tables() {
    for engine in ENGINES {
        killed(engine, PAGED, |client| {
            client.write(DATA + 5 * PAGE, b"behind");
            client.write(DATA + PAGE - 4, b"ends");
            map(client);
            assert_eq!(client.read(DATA + 2 * PAGE, 6), b"behind");
            client.write(DATA + 2 * PAGE, b"BEFORE");
            assert_eq!(client.read(DATA + 5 * PAGE, 6), b"BEFORE");
            // Up to the page that is not mapped.
            assert_eq!(client.read(DATA + PAGE - 4, 8), b"ends");
            assert_eq!(client.read(DATA + PAGE - 4, usize::MAX), b"ends");
            assert_eq!(client.ask(format!("m{:x},1", DATA + PAGE)), "E0e");
            // All or nothing.
            let across = format!("M{:x},8:{}", DATA + PAGE - 4, "00".repeat(8));
            assert_eq!(client.ask(across), "E0e");
            assert_eq!(client.read(DATA + PAGE - 4, 4), b"ends");
            assert_eq!(client.ask(format!("M{:x},1:00", DATA + PAGE)), "E0e");
            // Beyond the tables, and at the end.
            for address in [0x40_0000_u32, 0xffff_fff0, 0xffff_ffff] {
                assert_eq!(client.ask(format!("m{address:x},20")), "E0e");
                assert_eq!(client.ask(format!("M{address:x},2:0000")), "E0e");
            }
            // Across a page boundary that is none.
            assert_eq!(client.read(DATA - 2, 4).len(), 4);
            // What one answer holds, however much was asked for.
            for len in [0x800_usize, 0x801, 0x1000, 1 << 32, usize::MAX] {
                assert_eq!(client.read(DATA - 0x1000, len).len(), 0x800);
            }
        });
    }
}

#[test]
fn devices_are_not_read() {
    for engine in ENGINES {
        killed(engine, PAGED, |client| {
            assert_eq!(client.ask("ma0000,4"), "E0e");
            assert_eq!(client.ask("Ma0000,4:00000000"), "E0e");
            // The last RAM before the hole.
            assert_eq!(client.read(0x9_fff0, 0x20).len(), 0x10);
            // The end of RAM, and the end of the address space.
            assert_eq!(client.read((16 << 20) - 8, 0x10).len(), 8);
            assert!(client.read(0x10_0000, 0).is_empty());
            let end = client.ask("mfffffff8,2000");
            assert!(end == "E0e" || end.len() == 16, "{end}");
            let across = client.ask(format!("Mfffffff8,10:{}", "00".repeat(16)));
            assert_eq!(across, "E0e");
        });
    }
}

#[test]
fn code_that_ran_is_replaced() {
    for engine in ENGINES {
        let stop = debugged(engine, PATCHED, |mut client| {
            for _ in 0..3 {
                client.send("vCont;c");
                assert_eq!(client.interrupt(), "S02");
            }
            client.write(START + 1, &[9]);
            assert_eq!(client.go_on(), "W09");
        });
        assert!(matches!(stop, StopReason::DebugExit(9)), "{stop}");
    }
}
