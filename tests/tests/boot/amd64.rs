//! Debian's kernel for x86-64, as far as the loader goes.

use std::fs;

use guest_kernels::{Guest, fetch};
use tests::fetched::fetched;
use vmm::{
    Kernel,
    loader::{BootSource, EntryPoint, Mode, place},
    mmu::{GuestPhys, Memory},
    stop::status,
};

use crate::program::Boot;

const MIB: u64 = 1 << 20;
/// Where Linux for x86-64 is linked to run (`CONFIG_PHYSICAL_START`).
const START: u64 = 16 * MIB;
/// Offset of `payload_length` in a bzImage (boot.rst, "The Real-Mode Kernel Header").
const PAYLOAD_LENGTH: usize = 0x24c;

/// The kernel's file, and the guest's initrd.
fn files() -> Option<(Vec<u8>, Vec<u8>)> {
    let images = fetched(Guest::DebianAmd64, |progress| {
        fetch(Guest::DebianAmd64, progress)
    })?;
    let read = |path| fs::read(path).unwrap();
    Some((read(images.kernel), read(images.initrd)))
}

fn read(file: Vec<u8>) -> Kernel {
    Kernel::read(file, None, &mut |_| ()).unwrap()
}

#[test]
fn the_kernel_is_placed_by_the_64_bit_protocol() {
    let Some((file, initrd)) = files() else {
        return;
    };
    let kernel = read(file);
    let image = kernel.image();
    assert_eq!((image.mode, image.entry), (Mode::Long, START));
    assert!(kernel.initrd_above_4g());
    assert_eq!(kernel.cmdline_size(), 2047);
    let memory = Memory::new(256 * MIB).unwrap();
    let ram = memory.guest_ram();
    let source = BootSource {
        kernel: &kernel,
        initrd: &initrd,
        cmdline: "console=ttyS0",
    };
    let EntryPoint::Linux64 { entry, .. } = place(&ram, &[], &source).unwrap() else {
        panic!("not entered in long mode");
    };
    assert_eq!(entry, START);
    for segment in &image.segments {
        let mut placed = vec![0; segment.file.len()];
        memory
            .read(GuestPhys::new(segment.paddr), &mut placed)
            .unwrap();
        assert!(placed == kernel.file()[segment.file.clone()], "{segment}");
    }
    let mut placed = vec![0; initrd.len()];
    let start = (256 * MIB - initrd.len() as u64) / 4096 * 4096;
    memory.read(GuestPhys::new(start), &mut placed).unwrap();
    assert!(placed == initrd);
}

#[test]
fn the_bzimage_is_entered_in_long_mode_if_it_unpacks_itself() {
    let Some((mut file, _)) = files() else {
        return;
    };
    file[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0);
    let kernel = read(file);
    let image = kernel.image();
    assert_eq!((image.mode, image.entry), (Mode::Long, START + 0x200));
    // CLD and CLI, with which startup_64 of the unpacker begins.
    let code = &kernel.file()[image.segments[0].file.clone()];
    assert_eq!(code[0x200..0x202], [0xfc, 0xfa]);
}

#[test]
fn the_processor_is_what_is_missing() {
    let Some(_) = files() else {
        return;
    };
    let boot = Boot::of(Guest::DebianAmd64).unwrap();
    let ended = boot.with("--exec", "true").run();
    assert_eq!(ended.status.code(), Some(status::USAGE.into()));
    let message = ended.stderr.lines().last().unwrap();
    assert!(
        message.ends_with(": 64-bit guests are not there yet"),
        "{message}"
    );
}
