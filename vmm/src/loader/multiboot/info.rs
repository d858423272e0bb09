//! The Multiboot information structure, with what it points at, as one block of memory.
//!
//! ```text
//!  0 flags  4 mem_lower  8 mem_upper  16 cmdline  20 mods_count  24 mods_addr  44 mmap_length  48 mmap_addr
//!  64 boot_loader_name │ 88 mmap │ modules │ command line │ names
//! ```

use std::ops::Range;

use super::super::{
    memory_map::memory_map,
    ram::{HIGH_START, LOW_END, Ram},
};

const MEMORY: u32 = 1 << 0;
const CMDLINE: u32 = 1 << 2;
const MODULES: u32 = 1 << 3;
const MEMORY_MAP: u32 = 1 << 6;
const LOADER_NAME: u32 = 1 << 9;

/// Length of the structure in bytes.
const LEN: usize = 88;
/// `size` of an entry of the memory map: its length in bytes without this field.
const ENTRY_SIZE: u32 = 20;
const NAME: &[u8] = b"replex\0";
/// The string of the one module.
const MODULE_NAME: &[u8] = b"initrd\0";

/// Makes the block that tells a kernel its command line, the module in guest-physical `module`, if it is not empty, and the
/// memory of a machine with `ram`. The block is to lie at guest-physical `at`; its length does not depend on that.
pub(in crate::loader) fn info(at: u32, ram: &Ram, cmdline: &[u8], module: Range<u32>) -> Vec<u8> {
    let mut block = Block {
        at,
        bytes: vec![0; LEN],
    };
    let map = block.add(&map(ram));
    block.put(44, block.end() - map);
    block.put(48, map);
    let mut flags = MEMORY | CMDLINE | MEMORY_MAP | LOADER_NAME;
    if !module.is_empty() {
        let name = block.add(MODULE_NAME);
        block.align();
        let words = [module.start, module.end, name, 0].map(u32::to_le_bytes);
        let modules = block.add(words.as_flattened());
        block.put(20, 1);
        block.put(24, modules);
        flags |= MODULES;
    }
    let name = block.add(NAME);
    block.put(64, name);
    let cmdline = block.add(&[cmdline, &[0]].concat());
    block.put(16, cmdline);
    block.put(0, flags);
    // Both end below 4 GiB.
    block.put(4, (ram.low_end().min(LOW_END) >> 10) as u32);
    block.put(8, (ram.low_end().saturating_sub(HIGH_START) >> 10) as u32);
    block.bytes
}

/// The memory map's entries.
fn map(ram: &Ram) -> Vec<u8> {
    let mut map = Vec::new();
    for (range, kind) in memory_map(ram) {
        map.extend(ENTRY_SIZE.to_le_bytes());
        for word in [range.start, range.end - range.start] {
            map.extend(word.to_le_bytes());
        }
        map.extend((kind as u32).to_le_bytes());
    }
    map
}

/// A block under construction.
struct Block {
    at: u32,
    bytes: Vec<u8>,
}

impl Block {
    /// Guest-physical address of the next byte.
    fn end(&self) -> u32 {
        self.at + self.bytes.len() as u32
    }

    /// Adds bytes and returns their guest-physical address.
    fn add(&mut self, bytes: &[u8]) -> u32 {
        let at = self.end();
        self.bytes.extend(bytes);
        at
    }

    /// Makes the next address a multiple of four; the block begins at one.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Sets a field of the structure.
    fn put(&mut self, offset: usize, value: u32) {
        self.bytes[offset..][..4].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u32 = 0x1_0000;

    fn word(block: &[u8], at: u32) -> u32 {
        let offset = at as usize;
        u32::from_le_bytes(block[offset..][..4].try_into().unwrap())
    }

    /// The bytes up to a zero at the address in the field at `offset`.
    fn text(block: &[u8], offset: u32) -> &[u8] {
        let start = (word(block, offset) - AT) as usize;
        block[start..].split(|&byte| byte == 0).next().unwrap()
    }

    #[test]
    fn the_kernel_is_told_about_memory_module_and_command_line() {
        let block = info(AT, &Ram::below(64 << 20), b"a=b c", 0x20_0000..0x20_1234);
        assert_eq!(word(&block, 0), 0b10_0100_1101);
        assert_eq!((word(&block, 4), word(&block, 8)), (639, 63 << 10));
        assert_eq!(text(&block, 16), b"a=b c");
        assert_eq!(text(&block, 64), b"replex");
        assert_eq!(word(&block, 20), 1);
        let module = word(&block, 24) - AT;
        assert_eq!(module % 4, 0);
        assert_eq!(word(&block, module), 0x20_0000);
        assert_eq!(word(&block, module + 4), 0x20_1234);
        assert_eq!(text(&block, module + 8), b"initrd");
        let (len, map) = (word(&block, 44), word(&block, 48) - AT);
        assert_eq!(len, 3 * 24);
        let entries: Vec<_> = (0..3)
            .map(|i| map + 24 * i)
            .map(|at| [0, 4, 8, 12, 16, 20].map(|offset| word(&block, at + offset)))
            .collect();
        assert_eq!(
            entries,
            [
                [20, 0, 0, 0x9_fc00, 0, 1],
                [20, 0xf_0000, 0, 0x1_0000, 0, 2],
                [20, 0x10_0000, 0, 63 << 20, 0, 1],
            ]
        );
    }

    #[test]
    fn without_a_module_there_is_none() {
        let block = info(AT, &Ram::below(1 << 20), b"", 0..0);
        assert_eq!(word(&block, 0), 0b10_0100_0101);
        assert_eq!((word(&block, 20), word(&block, 8)), (0, 0));
        assert_eq!(text(&block, 16), b"");
        assert_eq!(word(&block, 44), 2 * 24);
    }
}
