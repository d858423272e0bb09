//! [`JitDump`]: a file that tells `perf` the names of emitted code.
//!
//! The file lists each section of code with its name and bytes, as it is emitted (Linux, tools/perf/Documentation/
//! jitdump-specification.txt). `perf record -k mono` notes that the process has the file mapped executable, and `perf inject
//! --jit` makes symbols of it.

use mmu::{Mapping, Protection};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process;

/// "JiTD" as a number.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
/// EM_X86_64.
const MACHINE: u32 = 62;
/// The size in bytes of the file's header, and of that of a code record.
const HEADER_BYTES: u32 = 40;
const CODE_HEADER_BYTES: usize = 56;
/// JIT_CODE_LOAD.
const CODE_LOAD: u32 = 0;
/// Bytes of the file that are mapped.
const MAPPED: usize = 4096;

/// A jitdump file that is being written.
pub struct JitDump {
    file: File,
    /// The mapping by which `perf` finds the file; nobody accesses it.
    _marker: Mapping,
    /// The number of records so far.
    count: u64,
}

impl JitDump {
    /// Creates the file `jit-PID.dump` in `folder`: `perf` goes by that name.
    ///
    /// # Errors
    /// The host's, where it cannot make, write or map the file.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let pid = process::id();
        let path = folder.join(format!("jit-{pid}.dump"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let mut header = Vec::new();
        for word in [MAGIC, VERSION, HEADER_BYTES, MACHINE, 0, pid] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(now()?.to_ne_bytes());
        header.extend(0u64.to_ne_bytes());
        file.write_all(&header)?;
        let marker = Mapping::of_file(&file, MAPPED, Protection::ReadExecute)?;
        Ok(Self {
            file,
            _marker: marker,
            count: 0,
        })
    }

    /// Appends a record of the code that executes at the host address `address`.
    ///
    /// # Errors
    /// The host's, where it cannot write the record.
    pub fn add(&mut self, name: &str, address: u64, code: &[u8]) -> io::Result<()> {
        let bytes = CODE_HEADER_BYTES + name.len() + 1 + code.len();
        let mut record = Vec::with_capacity(bytes);
        record.extend(CODE_LOAD.to_ne_bytes());
        record.extend((bytes as u32).to_ne_bytes());
        record.extend(now()?.to_ne_bytes());
        record.extend(process::id().to_ne_bytes());
        record.extend((gettid().as_raw() as u32).to_ne_bytes());
        for number in [address, address, code.len() as u64, self.count] {
            record.extend(number.to_ne_bytes());
        }
        record.extend(name.bytes().chain([0]));
        record.extend(code);
        self.count += 1;
        self.file.write_all(&record)
    }
}

/// The time in nanoseconds by the clock that `perf record -k mono` uses.
fn now() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_a_header_and_a_record_for_each_section() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut dump = JitDump::create(folder.path()).expect("a file");
        dump.add("first", 0x1000, &[0x90; 3]).expect("is written");
        dump.add("second", 0x2000, &[0xc3]).expect("is written");
        let path = folder.path().join(format!("jit-{}.dump", process::id()));
        let bytes = std::fs::read(path).expect("the file");
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let number = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!((word(0), word(8), word(12)), (MAGIC, 40, 62));
        let mut at = 40;
        let sections = [("first", 0x1000, 3), ("second", 0x2000, 1)];
        for (index, (name, address, length)) in (0..).zip(sections) {
            let total = 56 + name.len() + 1 + length;
            assert_eq!((word(at), word(at + 4)), (0, total as u32));
            let numbers = [24, 32, 40, 48].map(|offset| number(at + offset));
            assert_eq!(numbers, [address, address, length as u64, index]);
            assert_eq!(&bytes[at + 56..at + 56 + name.len()], name.as_bytes());
            at += total;
        }
        assert_eq!(at, bytes.len());
    }
}
