//! Assembles the test kernels with GNU as and ld, and writes the table that `test_kernel` includes; compiles the guest's
//! programs, which `initramfs` includes.
//!
//! Every `kernels/NAME.S` becomes a row of the table, and is linked twice, at 1 MiB and in low memory, and put into a ROM;
//! `harness.inc`, `kernel.ld` and `reset.inc` are shared by all, `long.inc` by kernels of 64-bit code. The names of these end in
//! 64; what comes out is a 32-bit ELF file, as Multiboot has it, for them, too.

use std::{
    env,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("kernels");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut rows = String::new();
    for source in sources(&folder)? {
        let name = source
            .file_stem()
            .and_then(|s| s.to_str())
            .ok_or("kernel with an odd name")?;
        let stem = out.join(name);
        let object = stem.with_extension("o");
        let target = match name.ends_with("64") {
            false => &NARROW,
            true => &WIDE,
        };
        assemble(target, &source, &[&folder], &[], &object)?;
        let elf = link(target, &object, &folder, &[], &stem.with_extension("elf"))?;
        let low = link(
            target,
            &object,
            &folder,
            &[LOW],
            &stem.with_extension("low"),
        )?;
        let rom = rom(&elf, &folder, &stem)?;
        let bits = target.bits;
        writeln!(
            rows,
            "TestKernel {{ name: {name:?}, bits: {bits}, elf: include_bytes!({elf:?}), low: include_bytes!({low:?}), \
             rom: include_bytes!({rom:?}) }},"
        )?;
    }
    fs::write(out.join("test_kernels.rs"), format!("&[\n{rows}]\n"))?;
    compile_programs(&out)
}

/// The compiler's options for programs of the guest: without a library, at fixed addresses.
const FREESTANDING: &str = "-Os -Wall -Wextra -Werror -std=gnu11 -ffreestanding \
    -fno-tree-loop-distribute-patterns -mgeneral-regs-only -fno-stack-protector -fcf-protection=none \
    -fno-asynchronous-unwind-tables -fno-pic -no-pie -nostdlib -static -Wl,-z,noexecstack -Wl,--build-id=none -s";

/// The guests' architectures in Debian's words, with the compiler's options for every processor of theirs, and the source of what
/// is different.
const ARCHITECTURES: [(&str, &str, &str); 2] = [
    ("i386", "-m32 -march=i686", "i386.c"),
    ("amd64", "-m64 -march=x86-64", "amd64.c"),
];

/// The programs of the guest, with the sources that are the same for all.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "launch",
        &["launch.c", "command.c", "relay.c", "system.c", "user.c"],
    ),
    ("prepare", &["prepare.c", "system.c"]),
];

/// Compiles the programs of the guest for each architecture, into a folder of its name.
fn compile_programs(out: &Path) -> Result<(), Failure> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("programs");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    for (architecture, options, source) in ARCHITECTURES {
        let out = out.join(architecture);
        fs::create_dir_all(&out)?;
        for (name, sources) in PROGRAMS {
            let sources = sources.iter().chain([&source]);
            run(Command::new(&compiler)
                .args(FREESTANDING.split_whitespace())
                .args(options.split_whitespace())
                .args(sources.map(|source| folder.join(source)))
                .arg("-o")
                .arg(out.join(name)))?;
        }
    }
    Ok(())
}

/// The kernels' sources in alphabetical order.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut sources: Vec<_> = entries
        .into_iter()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "S"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// What the tools have to be told about a kernel's code.
struct Target {
    /// Bits of the widest code.
    bits: u32,
    /// Option of the assembler.
    assembler: &'static str,
    /// The linker's format.
    linker: &'static str,
}

const NARROW: Target = Target {
    bits: 32,
    assembler: "--32",
    linker: "elf_i386",
};
const WIDE: Target = Target {
    bits: 64,
    assembler: "--64",
    linker: "elf_x86_64",
};

/// Option of the linker that places a kernel in low memory.
const LOW: &str = "--defsym=BASE=0x10000";
/// Option of the linker that places a ROM below 4 GiB.
const TOP: &str = "-Ttext=0xffff0000";
/// Offset of `e_entry` in an ELF32 file.
const E_ENTRY: usize = 24;

/// Assembles `source` to `object`.
fn assemble(
    target: &Target,
    source: &Path,
    include: &[&Path],
    options: &[&str],
    object: &Path,
) -> Result<(), Failure> {
    let include = include.iter().flat_map(|folder| [Path::new("-I"), folder]);
    run(Command::new("as")
        .arg(target.assembler)
        .args(options)
        .args(include)
        .arg(source)
        .arg("-o")
        .arg(object))
}

/// Links one kernel to `elf`, a 32-bit file, and returns that.
fn link(
    target: &Target,
    object: &Path,
    folder: &Path,
    options: &[&str],
    elf: &Path,
) -> Result<PathBuf, Failure> {
    run(Command::new("ld")
        .args(["-m", target.linker, "--no-warn-rwx-segments"])
        // The script looks for the symbols that these define.
        .args(options)
        .arg("-T")
        .arg(folder.join("kernel.ld"))
        .arg(object)
        .arg("-o")
        .arg(elf))?;
    run(Command::new("objcopy").args(["-O", "elf32-i386"]).arg(elf))?;
    Ok(elf.into())
}

/// Makes a ROM that starts the kernel `elf`, and returns its path.
fn rom(elf: &Path, folder: &Path, stem: &Path) -> Result<PathBuf, Failure> {
    // Its image has the same name for all, in a folder of its own.
    let image = stem.with_extension("image");
    fs::create_dir_all(&image)?;
    run(Command::new("objcopy")
        .args(["-O", "binary"])
        .arg(elf)
        .arg(image.join("kernel.bin")))?;
    let file = fs::read(elf)?;
    let entry = file.get(E_ENTRY..).and_then(|field| field.first_chunk());
    let entry = u32::from_le_bytes(*entry.ok_or("no ELF header")?);
    let (object, rom) = (image.join("rom.o"), stem.with_extension("rom"));
    let options = ["--defsym", &format!("ENTRY={entry}")];
    assemble(
        &NARROW,
        &folder.join("reset.inc"),
        &[&image],
        &options,
        &object,
    )?;
    run(Command::new("ld")
        .args(["-m", "elf_i386", TOP, "--entry=rom", "--oformat=binary"])
        .arg(&object)
        .arg("-o")
        .arg(&rom))?;
    Ok(rom)
}

/// Runs a tool to success.
fn run(command: &mut Command) -> Result<(), Failure> {
    let tool = command.get_program().to_owned();
    let status = command.status().map_err(|e| {
        format!(
            "cannot run {tool:?} ({e}): code for guests needs GNU binutils for x86 (`as`, `ld`, `objcopy`) and a C compiler that \
             knows -m32 and -m64"
        )
    })?;
    if !status.success() {
        return Err(format!("{tool:?} failed on code for guests: {status}").into());
    }
    Ok(())
}
