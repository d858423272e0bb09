//! The machine: memory, processor, and what runs its code.

use std::ops::RangeInclusive;

use clap::Args;
use vmm::{
    CpuModel, Engine, KmodUse, Windows,
    mmu::{self, MAX_RAM, MIN_RAM},
    sbe::CODE_CACHES,
};

use crate::{confinement::Confinement, engine};

/// The machine without its devices.
#[derive(Args, Debug)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Guest memory, in MiB or with suffix K, M or G. At most 32G; what is beyond 3584M lies above 4 GiB.
    #[arg(short = 'm', long = "memory", visible_alias = "mem", value_name = "SIZE", default_value = "256M", value_parser = memory_size)]
    pub mem: u64,
    /// Processor that CPUID announces: bonnell, pentium4, x86-64 or x86-64-v2. Default: bonnell, or x86-64 for a 64-bit kernel.
    #[arg(long, value_name = "MODEL", value_parser = cpu_model)]
    pub cpu: Option<CpuModel>,
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
    /// Whether this process keeps to what the machine needs of the host, by Landlock and seccomp: on or off.
    #[arg(long, value_name = "WHEN", default_value = "on", value_enum)]
    pub sandbox: Confinement,
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
    use super::*;

    #[test]
    fn memory_sizes() {
        for (text, expected) in [
            ("1", 1 << 20),
            ("64", 64 << 20),
            ("64m", 64 << 20),
            ("65536K", 64 << 20),
            ("3584M", 3584 << 20),
            ("3g", 3 << 30),
            ("32G", 32 << 30),
        ] {
            assert_eq!(memory_size(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "M",
            "0",
            "1K",
            "1025K",
            "32769M",
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
