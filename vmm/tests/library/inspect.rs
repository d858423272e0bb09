//! Reading and writing the memory of a machine.

use vmm::{AccessError, Engine, GuestPhys, LinearAddr, NoTranslation, NotRam, StopReason, Vm};

use crate::support::{ENGINES, PATCHED, START, Typed, machine, physical, run_slice};

/// A guest that turns paging on with the directory at 2 MiB, sets the word at 0x40_3ffe to 1, waits until something else is
/// there and ends with the low byte of that as status.
#[rustfmt::skip]
const PAGED: &[u8] = &[
    0xb8, 0x00, 0x00, 0x20, 0x00,                               // mov eax, 0x200000
    0x0f, 0x22, 0xd8,                                           // mov cr3, eax
    0x0f, 0x20, 0xc0,                                           // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,                               // or eax, 0x80000000
    0x0f, 0x22, 0xc0,                                           // mov cr0, eax
    0xc7, 0x05, 0xfe, 0x3f, 0x40, 0x00, 0x01, 0x00, 0x00, 0x00, // mov dword [0x403ffe], 1
    0xa1, 0xfe, 0x3f, 0x40, 0x00,                               // again: mov eax, [0x403ffe]
    0x83, 0xf8, 0x01,                                           // cmp eax, 1
    0x74, 0xf6,                                                 // je again
    0xe6, 0xf4,                                                 // out 0xf4, al
];

const DIRECTORY: u64 = 0x20_0000;
const LOW: u32 = 0x20_1000;
const TABLE: u32 = 0x20_2000;
const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;

/// Gives the guest its page tables: the first MiBs as they are; from 4 MiB on, page by page, two frames that do not follow
/// each other, nothing, a device's, and one of RAM that is only read.
fn set_page_tables(vm: &mut Vm) {
    let mut write = |address: u64, entries: &[u32]| {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        vm.write_physical(GuestPhys::new(address), &bytes).unwrap();
    };
    let flags = PRESENT | WRITABLE;
    write(DIRECTORY, &[LOW | flags, TABLE | flags]);
    let identity: Vec<u32> = (0..1024).map(|page| page << 12 | flags).collect();
    write(LOW.into(), &identity);
    write(TABLE.into(), &[0; 1024]);
    let frames = [
        0x30_0000 | flags,
        0,
        0xb_8000 | flags,
        0x31_0000 | flags,
        0x30_5000 | flags,
        0x30_6000 | PRESENT,
    ];
    write(TABLE.into(), &frames);
}

fn linear(address: u32) -> LinearAddr {
    LinearAddr::from(address)
}

/// A machine on which [`PAGED`] waits.
fn waiting(engine: Engine) -> Vm {
    let mut vm = machine(engine, PAGED);
    set_page_tables(&mut vm);
    while physical(&vm, 0x31_0ffe) == [0, 0] {
        run_slice(&mut vm);
    }
    vm
}

#[test]
fn linear_addresses_go_through_the_page_tables() {
    for engine in ENGINES {
        let mut vm = waiting(engine);
        let mut word = [0; 4];
        vm.read_memory(linear(0x40_3ffe), &mut word).unwrap();
        assert_eq!(word, [1, 0, 0, 0]);
        assert_eq!(
            vm.translate(linear(0x40_4001)),
            Ok(GuestPhys::new(0x30_5001))
        );

        // The guest may not write there, and looks at none of it.
        let text = *b"replex was here!";
        vm.write_memory(linear(0x40_5100), &text).unwrap();
        assert_eq!(physical(&vm, 0x30_6100), text);
        let entry =
            |vm: &Vm, index: u64| u32::from_le_bytes(physical(vm, u64::from(TABLE) + 4 * index));
        assert_eq!(entry(&vm, 5), 0x30_6000 | PRESENT, "no A or D bit is set");
        assert_eq!(
            entry(&vm, 3) & (ACCESSED | DIRTY),
            ACCESSED | DIRTY,
            "by the guest"
        );

        vm.write_memory(linear(0x40_3ffe), &[42, 5, 6, 7]).unwrap();
        assert_eq!(physical(&vm, 0x31_0ffe), [42, 5]);
        assert_eq!(physical(&vm, 0x30_5000), [6, 7]);
        let stop = vm.run(&mut Typed::default());
        assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    let mut vm = waiting(Engine::Emulator);
    let cases = [
        // From a page that is mapped into one that is not.
        (
            0x40_0ffc,
            8,
            AccessError::NotMapped {
                address: linear(0x40_1000),
                reason: NoTranslation::NotPresent,
            },
            "linear address 00401000 is not mapped",
        ),
        (
            0x40_2010,
            4,
            AccessError::NotMemory(NotRam {
                addr: GuestPhys::new(0xb_8010),
                len: 4,
            }),
            "4 bytes at guest-physical 0xb8010 are not memory",
        ),
        (
            0xffff_fffe,
            3,
            AccessError::TooLong {
                address: linear(0xffff_fffe),
                len: 3,
            },
            "3 bytes at linear address fffffffe do not end below 4 GiB",
        ),
    ];
    for (address, len, error, text) in cases {
        assert_eq!(error.to_string(), text);
        let mut bytes = [0xaa; 8];
        assert_eq!(
            vm.read_memory(linear(address), &mut bytes[..len]),
            Err(error)
        );
        assert_eq!(bytes, [0xaa; 8]);
        assert_eq!(vm.write_memory(linear(address), &bytes[..len]), Err(error));
    }
    assert_eq!(physical(&vm, 0x30_0ffc), [0; 4], "nothing was written");
    let beyond = GuestPhys::new((16 << 20) - 2);
    for result in [
        vm.read_physical(beyond, &mut [0; 4]),
        vm.write_physical(beyond, &[0; 4]),
    ] {
        assert_eq!(
            result,
            Err(AccessError::NotMemory(NotRam {
                addr: beyond,
                len: 4
            }))
        );
    }
    assert_eq!(vm.read_memory(linear(0x40_1000), &mut []), Ok(()));
}

#[test]
fn writing_to_code_takes_effect() {
    type Write = fn(&mut Vm, u32, &[u8]) -> Result<(), AccessError>;
    let ways: [Write; 2] = [
        |vm, address, data| vm.write_memory(linear(address), data),
        |vm, address, data| vm.write_physical(GuestPhys::new(address.into()), data),
    ];
    for engine in ENGINES {
        for write in ways {
            let mut vm = machine(engine, PATCHED);
            run_slice(&mut vm);
            write(&mut vm, START + 1, &[42]).unwrap();
            let stop = vm.run(&mut Typed::default());
            assert!(matches!(stop, StopReason::DebugExit(42)), "{stop}");
        }
    }
}

#[test]
fn changed_page_tables_are_walked() {
    for engine in ENGINES {
        let mut vm = waiting(engine);
        // The page that was read only now is another.
        let entry = 0x31_0000 | PRESENT;
        vm.write_physical(
            GuestPhys::new(u64::from(TABLE) + 5 * 4),
            &entry.to_le_bytes(),
        )
        .unwrap();
        let mut word = [0; 2];
        vm.read_memory(linear(0x40_5ffe), &mut word).unwrap();
        assert_eq!(word, [1, 0]);
    }
}
