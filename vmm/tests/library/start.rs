//! Where a machine starts: at the reset vector of a ROM, at a chosen place, or in a kernel beside ROMs; and that a saved state
//! restores all of it.

use vmm::{
    BootSource, Engine, Entry, Kernel, Rom, Start, StopReason, VcpuConfig, Vm, VmConfig,
    cpu::{eflags, regs, segment::SegReg},
};

use crate::support::{ENGINES, Typed, physical};

/// Address of the ROM that the reset vector lies in, 64 KiB.
const TOP: u32 = 0xffff_0000;
/// Offset of the reset vector in it.
const VECTOR: usize = 0xfff0;
const MEMORY: u64 = 16 << 20;

fn config(engine: Engine) -> VmConfig {
    VmConfig {
        memory: MEMORY,
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    }
}

/// A ROM whose reset vector jumps to `code` at its beginning, within the segment.
fn bios(code: &[u8]) -> Vec<u8> {
    let mut rom = vec![0xff; 0x1_0000];
    rom[..code.len()].copy_from_slice(code);
    let jump = 0u16.wrapping_sub(VECTOR as u16 + 3).to_le_bytes();
    rom[VECTOR..VECTOR + 3].copy_from_slice(&[0xe9, jump[0], jump[1]]);
    rom
}

fn start(engine: Engine, roms: &[(u32, &[u8])], entry: Entry) -> Vm {
    try_start(engine, roms, entry).unwrap()
}

fn try_start(engine: Engine, roms: &[(u32, &[u8])], entry: Entry) -> Result<Vm, String> {
    let roms: Vec<_> = roms
        .iter()
        .map(|&(address, bytes)| Rom { address, bytes })
        .collect();
    Vm::power_on(&config(engine), &roms, &Start::Entry(entry)).map_err(|error| error.to_string())
}

fn status(vm: &mut Vm) -> u8 {
    match vm.run(&mut Typed::default()) {
        StopReason::DebugExit(status) => status,
        stop => panic!("{stop}"),
    }
}

/// Code of 16 bits, which ends with the byte of the ROM at CS:0x20 after it has tried to change it, and puts CS into 0:0x500.
#[rustfmt::skip]
const READ_ONLY: &[u8] = &[
    0x8c, 0x0e, 0x00, 0x05,             // mov [0x500], cs
    0x2e, 0xc6, 0x06, 0x20, 0x00, 0x09, // mov byte cs:[0x20], 9
    0x2e, 0xa0, 0x20, 0x00,             // mov al, cs:[0x20]
    0xe6, 0xf4,                         // out 0xf4, al
];

#[test]
fn the_processor_starts_at_the_reset_vector() {
    for engine in ENGINES {
        let mut rom = bios(READ_ONLY);
        rom[0x20] = 42;
        let mut vm = start(engine, &[(TOP, &rom)], Entry::ResetVector);
        let cpu = &vm.vcpu().cpu;
        let cs = cpu.seg(SegReg::Cs);
        assert_eq!(
            (cs.selector.0, cs.base, cpu.eip),
            (0xf000, TOP.into(), 0xfff0)
        );
        assert_eq!((cpu.eflags, cpu.cr0 & 1), (eflags::FIXED, 0));
        assert_eq!(status(&mut vm), 42, "{engine:?}");
        assert_eq!(physical(&vm, 0x500), [0x00, 0xf0]);
    }
}

#[test]
fn a_far_jump_leads_to_the_alias_below_1_mib() {
    for engine in ENGINES {
        let mut top = vec![0xff; 0x1_0000];
        // jmp 0xf000:0
        top[VECTOR..VECTOR + 5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
        let alias = [0xb0, 7, 0xe6, 0xf4]; // mov al, 7; out 0xf4, al
        let roms = [(TOP, &top[..]), (0xf_0000, &alias[..])];
        let mut vm = start(engine, &roms, Entry::ResetVector);
        assert_eq!(status(&mut vm), 7, "{engine:?}");
        assert_eq!(vm.vcpu().cpu.seg(SegReg::Cs).base, 0xf_0000);
    }
}

#[test]
fn a_boot_sector_starts_in_real_mode_and_may_change_itself() {
    // mov byte [0x7c06], 9; mov al, 5 (9 now); out 0xf4, al
    let code = [0xc6, 0x06, 0x06, 0x7c, 9, 0xb0, 5, 0xe6, 0xf4];
    for engine in ENGINES {
        let entry = Entry::Real {
            segment: 0,
            offset: 0x7c00,
        };
        let mut vm = start(engine, &[(0x7c00, &code)], entry);
        assert_eq!(status(&mut vm), 9, "{engine:?}");
    }
}

#[test]
fn flat_code_starts_anywhere() {
    // mov al, 3; out 0xf4, al
    let code = [0xb0, 3, 0xe6, 0xf4];
    for engine in ENGINES {
        for address in [0, 0x7c00, 0xc_0000, 0x20_0000, 0xf000_0001] {
            let mut vm = start(engine, &[(address, &code)], Entry::Flat(address));
            let cpu = &vm.vcpu().cpu;
            assert_eq!(
                (cpu.eip, cpu.cr0 & 1, cpu.is_code32()),
                (address.into(), 1, true)
            );
            assert_eq!(status(&mut vm), 3, "{engine:?}, {address:#x}");
        }
    }
}

#[test]
fn a_place_without_rom_is_named() {
    let code: &[u8] = &[0xf4];
    for (entry, named) in [
        (Entry::ResetVector, "0xfffffff0"),
        (Entry::Flat(0x10_0001), "0x100001"),
        (
            Entry::Real {
                segment: 0xffff,
                offset: 0xf,
            },
            "0xfffff",
        ),
    ] {
        let error = try_start(Engine::Emulator, &[(0x10_0000, code)], entry).err();
        let expected = format!("no ROM holds the first instruction, at {named}");
        assert_eq!(error, Some(expected));
    }
}

#[test]
fn a_kernel_finds_roms_beside_it() {
    for engine in ENGINES {
        // mov al, [0xfffffffe]; out 0xf4, al
        let kernel = Kernel::flat(vec![0xa0, 0xfe, 0xff, 0xff, 0xff, 0xe6, 0xf4]);
        let rom = Rom {
            address: 0xffff_fffe,
            bytes: &[11, 12],
        };
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        let mut vm = Vm::power_on(&config(engine), &[rom], &Start::Kernel(source)).unwrap();
        assert_eq!(status(&mut vm), 11, "{engine:?}");
        let inside = Rom {
            address: 0x10_0000,
            ..rom
        };
        let error = Vm::power_on(&config(engine), &[inside], &Start::Kernel(source)).err();
        let error = error.unwrap().to_string();
        assert!(error.contains("overlap the ROM from 0x100000"), "{error}");
    }
}

#[test]
fn a_multiboot_kernel_is_entered_as_it_expects() {
    for engine in ENGINES {
        let header = [
            0x1bad_b002u32,
            1 << 16,
            0xe451_4ffe,
            0x10_0000,
            0x10_0000,
            0,
            0,
            0x10_0020,
        ];
        let mut file: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
        file.push(0xf4);
        let kernel = Kernel::read(file, None, &mut |_| ()).unwrap();
        let source = BootSource {
            kernel: &kernel,
            initrd: &[],
            cmdline: "",
        };
        let mut vm = Vm::boot(&config(engine), &source).unwrap();
        let cpu = &vm.vcpu().cpu;
        assert_eq!(cpu.regs.get(regs::EAX), 0x2bad_b002);
        let info = cpu.regs.get(regs::EBX);
        assert_eq!(
            physical(&vm, u64::from(info) + 8),
            (15u32 << 10).to_le_bytes()
        );
        assert_eq!((cpu.eip, cpu.eflags), (0x10_0020, eflags::FIXED));
        vm.step(&mut Typed::default());
    }
}

/// CMOS RAM tells firmware how much RAM there is (registers 0x30 and 0x31, in KiB above 1 MiB), whatever ROM lies above it.
#[test]
fn firmware_learns_the_size_of_ram_from_cmos() {
    // mov al, 0x31; out 0x70, al; in al, 0x71; out 0xf4, al
    let code = [0xb0, 0x31, 0xe6, 0x70, 0xe4, 0x71, 0xe6, 0xf4];
    let mut vm = start(Engine::Emulator, &[(TOP, &bios(&code))], Entry::ResetVector);
    assert_eq!(status(&mut vm), ((15 << 10) >> 8) as u8);
}

#[test]
fn a_machine_in_its_rom_is_moved() {
    let mut rom = bios(READ_ONLY);
    rom[0x20] = 42;
    for (from, to) in [(ENGINES[0], ENGINES[1]), (ENGINES[1], ENGINES[0])] {
        let mut vm = start(from, &[(TOP, &rom)], Entry::ResetVector);
        vm.step(&mut Typed::default());
        let state = vm.save().unwrap();
        let memory = vm.memory().file().try_clone().unwrap();
        drop(vm);
        let mut vm = Vm::restore(&config(to), state, memory, Vec::new()).unwrap();
        assert_eq!(status(&mut vm), 42, "{from:?} to {to:?}");
    }
}
