//! Test kernels in every form that a user may have one in, each on both engines: as a bzImage without payload, as a flat
//! Multiboot image, as an ELF in low memory, over the usual place of the boot parameters, and as a ROM at the reset vector.

use guest_kernels::test_kernel::{self, TestKernel};
use vmm::{
    BootSource, Engine, Entry, Kernel, Rom, Start, VcpuConfig, Vm, VmConfig, loader::Protocol,
};

use crate::{Failed, MEMORY, SLICES, report, verdict};

const ENGINES: [Engine; 2] = [Engine::Emulator, Engine::Translator];

/// The address at which kernels in low memory are linked.
const LOW: u32 = 0x1_0000;
/// The address at which the others are.
const HIGH: u32 = 0x10_0000;
/// End of low memory.
const LOW_END: u64 = 0xa_0000;
/// The address of the ROMs.
const ROM: u32 = 0xffff_0000;
const MULTIBOOT_MAGIC: u32 = 0x1bad_b002;

fn read(file: Vec<u8>) -> Kernel {
    Kernel::read(file, None, &mut |_| ()).unwrap()
}

/// The bytes of a kernel from `start` on as they are to lie in memory, without what is zero at the end, and its entry point.
fn flat(elf: &[u8], start: u32) -> (Vec<u8>, u32) {
    let kernel = read(elf.to_vec());
    let mut bytes = Vec::new();
    for segment in &kernel.image().segments {
        let at = (segment.paddr - u64::from(start)) as usize;
        let content = &kernel.file()[segment.file.clone()];
        bytes.resize(bytes.len().max(at + content.len()), 0);
        bytes[at..at + content.len()].copy_from_slice(content);
    }
    (bytes, kernel.image().entry as u32)
}

/// The kernel as the protected-mode code of a bzImage that has no payload.
fn bzimage(kernel: &TestKernel) -> Vec<u8> {
    let (code, entry) = flat(kernel.elf, HIGH);
    let size = read(kernel.elf.to_vec()).end() - u64::from(HIGH);
    let mut file = vec![0; 1024];
    for (at, bytes) in [
        (0x1f1, &[1][..]),                     // setup_sects
        (0x1fe, &[0x55, 0xaa, 0xeb, 0x66]),    // boot_flag, jump
        (0x202, b"HdrS\x0c\x02"),              // header, version 2.12
        (0x211, &[1]),                         // loadflags: LOADED_HIGH
        (0x214, &entry.to_le_bytes()),         // code32_start
        (0x260, &(size as u32).to_le_bytes()), // init_size
    ] {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file.extend(code);
    file
}

/// The kernel in low memory, behind a Multiboot header that says where it lies.
fn multiboot(kernel: &TestKernel) -> Vec<u8> {
    const HEADER: u32 = 32;
    let (code, entry) = flat(kernel.low, LOW);
    let (flags, start) = (1 << 16, LOW - HEADER);
    let sum = 0u32.wrapping_sub(MULTIBOOT_MAGIC).wrapping_sub(flags);
    let bss_end = read(kernel.low.to_vec()).end() as u32;
    let header = [MULTIBOOT_MAGIC, flags, sum, start, start, 0, bss_end, entry];
    let header = header.into_iter().flat_map(u32::to_le_bytes);
    header.chain(code).collect()
}

/// The kernel in low memory as an ELF without its Multiboot header, so one for Linux's boot protocol.
fn low_elf(kernel: &TestKernel) -> Vec<u8> {
    let mut file = kernel.low.to_vec();
    let magic = MULTIBOOT_MAGIC.to_le_bytes();
    let at = file.windows(4).position(|bytes| bytes == magic).unwrap();
    file[at..at + 4].fill(0);
    file
}

fn run(engine: Engine, roms: &[Rom<'_>], start: &Start<'_>) -> Result<usize, Failed> {
    let config = VmConfig {
        memory: MEMORY,
        vcpu: VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        ..VmConfig::default()
    };
    verdict(Vm::power_on(&config, roms, start).unwrap(), SLICES)
}

fn run_kernel(engine: Engine, kernel: &Kernel) -> Result<usize, Failed> {
    let source = BootSource {
        kernel,
        initrd: &[],
        cmdline: "",
    };
    run(engine, &[], &Start::Kernel(source))
}

/// Runs `kernel` in all forms. Adds a line for each that failed.
fn judge(kernel: &TestKernel, engine: Engine, failed: &mut Vec<String>) {
    let rom = Rom {
        address: ROM,
        bytes: kernel.rom,
    };
    let mut results = vec![
        (
            "bzImage without payload",
            run_kernel(engine, &read(bzimage(kernel))),
        ),
        (
            "ROM at the reset vector",
            run(engine, &[rom], &Start::Entry(Entry::ResetVector)),
        ),
    ];
    for (form, file, protocol) in [
        (
            "flat Multiboot image",
            multiboot(kernel),
            Protocol::Multiboot,
        ),
        ("ELF below 1 MiB", low_elf(kernel), Protocol::Linux),
    ] {
        let low = read(file);
        assert_eq!(low.protocol(), protocol);
        assert!(low.end() <= LOW_END);
        results.push((form, run_kernel(engine, &low)));
    }
    for (form, result) in results {
        let what = format!("{} as {form}, {engine:?}", kernel.name);
        match result {
            Ok(cases) => report(&format!("{what}: {cases} cases passed")),
            Err(error) => failed.push(format!("{what}: {error}")),
        }
    }
}

/// The kernels that fit into low memory and leave its first pages alone, or use them as they are.
const KERNELS: [&str; 4] = ["exceptions", "modes", "segmentation", "selfmod"];

#[test]
fn kernels_pass_in_every_form() {
    let mut failed = Vec::new();
    for kernel in test_kernel::all()
        .iter()
        .filter(|kernel| KERNELS.contains(&kernel.name))
    {
        for engine in ENGINES {
            judge(kernel, engine, &mut failed);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
