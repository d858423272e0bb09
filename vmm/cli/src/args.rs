//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use guest_kernels::{Addition, Guest};
use vmm::{
    CpuModel, Engine, Entry, KmodUse, Windows,
    devices::virtio::DiskConfig,
    gdb::Address,
    mmu::{self, MAX_RAM, MIN_RAM},
    net::Publish,
    parse,
    sbe::CODE_CACHES,
    trace::Selection,
};

use crate::{engine, net::Network, rom::RomFile, volume::Volume};

/// Boots unmodified Linux inside one ordinary process.
#[derive(Debug, Parser)]
#[command(name = "replex", version, arg_required_else_help = false)]
pub struct Cli {
    /// The command to execute.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boot a kernel.
    Boot(BootArgs),
}

/// Exit statuses, as `--help` shows them.
const EXIT_STATUSES: &str = "\
In the terminal, ctrl-a x quits, ctrl-a h lists what else ctrl-a does.

Exit status:
  0       the guest powered off or halted in good order
  2       bad usage or input
  120     the guest hangs: it halted with interrupts disabled, but not in good order
  121     the guest rebooted
  122     the guest's kernel panicked
  123     triple fault
  124     unsupported guest behaviour, or an internal error
  125     quit by ctrl-a x
  128+n   ended by signal n
With --exec, the command's own exit status. A guest that writes a byte to I/O port 0xf4 ends with that byte.

Environment:
  REPLEX_CACHE   folder for fetched guests and unpacked kernels (default: replex in the user's cache folder)
  RUST_LOG       what to log to standard error, e.g. debug";

/// Boot a kernel.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct BootArgs {
    /// Kernel to boot: an i386 bzImage, a Multiboot kernel (version 1), or an ELF32 entered by Linux's 32-bit boot protocol.
    /// Default: the guest's.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; of a Multiboot kernel, its module. Default: the guest's, or none with --kernel.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Put this at the end of the kernel command line; of a Multiboot kernel it is the whole.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Add FILE to the guest's initramfs as PATH, an absolute path, or in the folder PATH if that ends in /. Of a folder, all that
    /// is in it goes to PATH. PATH begins behind the last colon that a slash follows. May be given several times.
    #[arg(long, value_name = "FILE:PATH")]
    pub add: Vec<Addition>,
    /// Put FILE at guest-physical ADDR: read-only, or in RAM where there is RAM. ADDR is hexadecimal with 0x, or decimal, also with
    /// suffix K, M or G. May be given several times. Without --kernel the processor starts at the reset vector, f000:fff0 at
    /// 0xfffffff0 in real mode.
    #[arg(long, value_name = "FILE@ADDR")]
    pub rom: Vec<RomFile>,
    /// With --rom, start elsewhere: at guest-physical ADDR in flat 32-bit protected mode, or at real:SEGMENT:OFFSET (hexadecimal)
    /// in real mode.
    #[arg(long, value_name = "ADDR", requires = "rom", conflicts_with = "kernel")]
    pub entry: Option<Entry>,
    /// Guest memory, in MiB or with suffix K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = memory_size)]
    pub mem: u64,
    /// Give the guest a disk in the image FILE, as /dev/vda, /dev/vdb and so on. ro: the guest can only read; snapshot: what it
    /// writes is lost at the end. The format is raw, or qcow2 if the name ends in .qcow2. May be given several times.
    #[arg(long, value_name = "FILE[,ro][,snapshot][,format=raw|qcow2]")]
    pub disk: Vec<DiskConfig>,
    /// Give the guest a virtio device with random numbers of the host.
    #[arg(long)]
    pub rng: bool,
    /// Share the directory HOST of this machine with the guest, whose init mounts it at GUEST, an absolute path. OPTIONS, with
    /// commas between them: ro (changes are refused), rw, and cache=none, cache=auto (the default: changes on the host show within
    /// a second) or cache=always. May be given several times. An init of your own mounts the directories by the tags volume0,
    /// volume1, ... of virtiofs.
    #[arg(short, long, value_name = "HOST:GUEST[:OPTIONS]")]
    pub volume: Vec<Volume>,
    /// Run the command, or the shell, in this directory of the host as its root. Changes are in memory, and gone at the end.
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    pub root: Option<PathBuf>,
    /// With --root: make changes in the directory itself.
    #[arg(long, requires = "root")]
    pub rw: bool,
    /// Network of the guest: none, user, user,host-loopback or passt=SOCKET. A user network needs no privileges: connections and
    /// datagrams of the guest, which is 10.0.2.15, are carried by sockets of this process. 10.0.2.3 answers by the host's resolvers;
    /// with host-loopback, 10.0.2.2 leads to 127.0.0.1. passt=SOCKET is the network of a passt that listens at this Unix socket.
    #[arg(long, value_name = "NET", default_value = "none")]
    pub net: Network,
    /// Let port HOST of the host (of 127.0.0.1, unless IP says otherwise) lead to port GUEST of the guest. Needs --net user. May be
    /// given several times.
    #[arg(short, long, value_name = "[IP:]HOST:GUEST[/udp]")]
    pub publish: Vec<Publish>,
    /// Processor that CPUID announces.
    #[arg(long, value_name = "MODEL", default_value = CpuModel::default().name(), value_parser = cpu_model)]
    pub cpu: CpuModel,
    /// What runs guest code. Default: the translator, or the emulator where the host cannot run the translator.
    #[arg(long, value_parser = engine::parser())]
    pub engine: Option<Engine>,
    /// Room for translated code, in MiB or with suffix K, M or G. When it is full, what executed longest ago goes.
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = code_cache_size)]
    pub code_cache: usize,
    /// Which programs reach their memory through the host's MMU instead of tables: auto, always or never. By default those that
    /// run long.
    #[arg(long, value_name = "WHEN", default_value_t, hide_default_value = true)]
    pub windows: Windows,
    /// Whether the host's kernel module fills windows (/dev/replex): auto, off or require. By default where it can be opened.
    #[arg(long, value_name = "WHEN", default_value_t, hide_default_value = true)]
    pub kmod: KmodUse,
    /// Distribution kernel to fetch, if it is not in the cache yet, and boot.
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with_all = ["kernel", "rom"])]
    pub guest: Guest,
    /// Run this shell command in the guest, its output on standard output, the console on standard error.
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub exec: Option<String>,
    /// Check all translated code before it runs, and stop if it could do what the guest must not.
    #[arg(long)]
    pub verify_code: bool,
    /// Show at the end, on standard error, the pages that hold these linear addresses: guest code and what was made from it.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', value_parser = parse::hexadecimal)]
    pub dump_code: Vec<u32>,
    /// Write jit-PID.dump in this folder, by which perf (record -k mono; inject --jit) names translated code.
    #[arg(long, value_name = "FOLDER")]
    pub jitdump: Option<PathBuf>,
    /// Log on standard error the interrupts and exceptions of these vectors, decimal or 0x and hexadecimal; all if none are
    /// named. The guest gets them.
    #[arg(long, value_name = "VEC,...", num_args = 0..=1, value_delimiter = ',', value_parser = parse::vector)]
    pub trace_irq: Option<Vec<u8>>,
    /// Stop at interrupts and exceptions of these vectors before the guest sees them. Without gdb each is shown, a line on standard
    /// error, and then the guest's.
    #[arg(long, value_name = "VEC,...", value_delimiter = ',', value_parser = parse::vector)]
    pub intercept: Vec<u8>,
    /// Let gdb debug the guest: listen at PORT of 127.0.0.1 (1234 if no address is given), ADDR:PORT or unix:PATH. Whoever can
    /// connect controls the guest.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "1234")]
    pub gdb: Option<Address>,
    /// With --gdb: do not execute anything before gdb has connected and says so.
    #[arg(long, requires = "gdb")]
    pub gdb_wait: bool,
    /// Write interrupts, exceptions, writes of control registers and port accesses to this file, a line each, as they happen.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write only these to the file of --trace: interrupt, software, exception, control, port, or some of a kind, as in
    /// exception:14, control:3 or port:3f8-3ff.
    #[arg(
        long,
        value_name = "KIND,...",
        value_delimiter = ',',
        requires = "trace"
    )]
    pub trace_only: Vec<Selection>,
    /// Report at the end, on standard error, what the machine has done.
    #[arg(long)]
    pub stats: bool,
}

/// Parses the name of a processor model.
fn cpu_model(name: &str) -> Result<CpuModel, String> {
    CpuModel::from_name(name).ok_or_else(|| {
        let known = CpuModel::ALL.map(CpuModel::name).join(", ");
        format!("unknown processor model; known models: {known}")
    })
}

/// Parses the size of guest memory, in bytes.
fn memory_size(text: &str) -> Result<u64, String> {
    let bytes = size(text, MIN_RAM..=MAX_RAM)?;
    if bytes % mmu::PAGE_SIZE as u64 != 0 {
        return Err("not a multiple of 4K".into());
    }
    Ok(bytes)
}

/// Parses the room for translated code, in bytes.
fn code_cache_size(text: &str) -> Result<usize, String> {
    let range = *CODE_CACHES.start() as u64..=*CODE_CACHES.end() as u64;
    Ok(size(text, range)? as usize)
}

/// Parses a number of MiB, or a number with a suffix, to bytes.
fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 20),
    };
    // A leading sign would be parsed, too.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a number of MiB, nor a number with suffix K, M or G".into());
    }
    digits
        .parse::<u64>()
        .map_err(|error| error.to_string())?
        .checked_mul(1 << shift)
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            let [start, end] = [range.start(), range.end()].map(|bytes| bytes >> 20);
            format!("not between {start}M and {end}M")
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> BootArgs {
        let args = [&["replex", "boot"], args].concat();
        let Command::Boot(boot) = Cli::try_parse_from(args).unwrap().command;
        boot
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = parse(&[]);
        assert_eq!(args.mem, 256 << 20);
        assert_eq!(args.guest, Guest::Debian686);
        assert_eq!(args.cpu, CpuModel::default());
        assert_eq!(args.engine, None);
        assert_eq!((args.kernel, args.initrd, args.exec), (None, None, None));
    }

    #[test]
    fn everything_given() {
        let args = parse(&[
            "--kernel", "k", "--initrd", "i", "--append", "-x", "--mem", "1G", "--cpu", "pentium4",
            "--engine", "emulator", "--exec", "-y", "--stats",
        ]);
        assert_eq!(args.kernel.as_deref(), Some("k".as_ref()));
        assert_eq!(args.initrd.as_deref(), Some("i".as_ref()));
        assert_eq!(args.append.as_deref(), Some("-x"));
        assert_eq!(args.mem, 1 << 30);
        assert_eq!(args.cpu, CpuModel::Pentium4);
        assert_eq!(args.engine, Some(Engine::Emulator));
        assert_eq!(args.exec.as_deref(), Some("-y"));
        assert!(args.stats);
    }

    #[test]
    fn linear_addresses() {
        let args = parse(&["--dump-code", "0xc1001234,100000"]);
        assert_eq!(args.dump_code, [0xc100_1234, 0x0010_0000]);
    }

    #[test]
    fn vectors() {
        let args = parse(&["--intercept", "14,0x80", "--trace-irq", "0xFf"]);
        assert_eq!(args.intercept, [14, 0x80]);
        assert_eq!(args.trace_irq, Some(vec![0xff]));
        let args = parse(&["--trace-irq", "--stats"]);
        assert_eq!(args.trace_irq, Some(vec![]));
        assert!(args.intercept.is_empty() && args.stats);
        assert_eq!(parse(&[]).trace_irq, None);
    }

    #[test]
    fn memory_sizes() {
        for (text, expected) in [
            ("1", 1 << 20),
            ("64", 64 << 20),
            ("64m", 64 << 20),
            ("65536K", 64 << 20),
            ("3584M", 3584 << 20),
            ("3g", 3 << 30),
        ] {
            assert_eq!(memory_size(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "M",
            "0",
            "1K",
            "1025K",
            "3585M",
            "1T",
            "-1",
            "+1",
            "1.5G",
            "0x10",
            "1MB",
            "99999999999G",
            "ü",
            "18446744073709551616",
        ] {
            assert!(memory_size(text).is_err(), "{text}");
        }
    }
}
