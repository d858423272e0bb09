//! A torture of paging: random scripts for `guest-kernels/kernels/torture.inc`, with the outcome of every access.
//!
//! A script maps, unmaps, remaps and aliases pages of all sizes in all paging modes of 32-bit or of 64-bit code and in many address
//! spaces, and changes rights, CR0.WP and CR4.PGE. In between it reads, writes, copies, pushes and executes in rings 0 and 3, inside
//! pages and across. The outcome of each access is computed by a model of the manual's rules: value, error code and CR2, A and D
//! bits, contents of frames. So whatever runs the kernel says by itself whether it is right; that all do the same in what the manual
//! leaves open, too, is to be seen by the hashes that the kernel prints.
//!
//! Before an access the script flushes what a processor may have cached and what has changed since, by INVLPG, MOV to CR3 or
//! CR4.PGE as the manual demands, and nothing where it demands nothing; other stale translations stay.
//!
//! | file | what it holds |
//! |---|---|
//! | `format` | paging structures by mode, and the width of code |
//! | `layout` | addresses |
//! | `code` | code in frames |
//! | `record` | the script's format |
//! | `model` | paging by the manual |
//! | `stale` | what must be flushed |
//! | `writer` | the script in the making: edits, registers, flushes |
//! | `access` | accesses and their outcomes |
//! | `generate` | the random steps |
//! | `entries` | random entries of paging structures, and edits |

mod access;
mod code;
mod entries;
mod format;
mod generate;
mod layout;
mod model;
mod record;
mod stale;
mod writer;

use std::collections::BTreeMap;

pub use format::Width;
pub use generate::Dialect;
use generate::Generator;
use record::{RECORD, Record};

/// A script for the kernel, to be given as its Multiboot module.
#[derive(Debug)]
pub struct Script {
    /// The module.
    pub bytes: Vec<u8>,
    /// How often each kind of thing occurs in it.
    pub counts: BTreeMap<String, u64>,
    records: Vec<Record>,
}

impl Script {
    /// Makes a script of `steps` random steps for a machine with `memory` bytes of RAM, with a checkpoint every `interval` steps.
    ///
    /// # Panics
    /// If `interval` is 0.
    pub fn new(
        seed: u64,
        steps: u32,
        interval: u32,
        width: Width,
        dialect: Dialect,
        memory: u32,
    ) -> Self {
        let mut generator = Generator::new(seed, width, dialect, memory);
        for step in 0..steps {
            generator.step(step);
            if (step + 1).is_multiple_of(interval) || step + 1 == steps {
                generator.writer.checkpoint(step + 1);
            }
        }
        let mut writer = generator.writer;
        writer.finish();
        let records = writer.records().to_vec();
        let header = record::header(layout::POOL, layout::TABLES, layout::HOME);
        let mut bytes = Vec::with_capacity((records.len() + 1) * RECORD);
        bytes.extend(header);
        bytes.extend(records.iter().flat_map(Record::bytes));
        Self {
            bytes,
            counts: writer.counts,
            records,
        }
    }

    /// Returns the bytes of RAM that a machine needs for scripts of that many steps, a multiple of 4 MiB.
    ///
    /// # Panics
    /// If that is more than the first GiB, which is what scripts map one to one.
    pub fn memory(steps: u32) -> u32 {
        const BYTES_A_STEP: u32 = 480;
        let script = steps.checked_mul(BYTES_A_STEP);
        let memory = script.map(|script| layout::END + 0x40_0000 + script);
        let memory = memory.filter(|memory| *memory <= 1 << 30);
        memory.expect("fewer steps").next_multiple_of(layout::LARGE)
    }

    /// Shows the records around the one that the kernel has numbered `number`.
    pub fn around(&self, number: usize) -> String {
        let end = (number + 4).min(self.records.len());
        let shown = number.saturating_sub(40)..end;
        let lines = shown.map(|index| format!("{:8x} {:?}\n", index + 1, self.records[index]));
        lines.collect()
    }
}
