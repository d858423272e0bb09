//! Guests of a few instructions, in 32-bit code unless they say otherwise, and the files that they are booted from: for the tests
//! of several crates.

/// A guest that executes INT 0x80, which nobody has a handler for, and would then end with status 42.
#[rustfmt::skip]
pub const CALL: &[u8] = &[
    0xcd, 0x80, // int 0x80
    0xb0, 42,   // mov al, 42
    0xe6, 0xf4, // out 0xf4, al
];

/// A guest whose timer interrupts as vector 0x20 and that waits for that for ever.
#[rustfmt::skip]
pub const TIMER: &[u8] = &[
    0xb0, 0x11, 0xe6, 0x20, // 8259A master: ICW1
    0xb0, 0x20, 0xe6, 0x21, // ICW2: vectors 0x20 to 0x27
    0xb0, 0x04, 0xe6, 0x21, // ICW3
    0xb0, 0x01, 0xe6, 0x21, // ICW4
    0xb0, 0xfe, 0xe6, 0x21, // OCW1: only the timer
    0xb0, 0x34, 0xe6, 0x43, // 8254: counter 0, mode 2
    0xb0, 0x00, 0xe6, 0x40, // counts of 0x1000
    0xb0, 0x10, 0xe6, 0x40,
    0xfb,                   // again: sti
    0xf4,                   // hlt
    0xeb, 0xfc,             // jmp again
];

/// Initializes both 8259As, which then have no line masked. Changes AL.
#[rustfmt::skip]
pub const INITIALIZE_PICS: &[u8] = &[
    0xb0, 0x11, 0xe6, 0x20, 0xe6, 0xa0, // ICW1
    0xb0, 0x20, 0xe6, 0x21,             // ICW2: vectors 0x20 to 0x2f
    0xb0, 0x28, 0xe6, 0xa1,
    0xb0, 0x04, 0xe6, 0x21,             // ICW3
    0xb0, 0x02, 0xe6, 0xa1,
    0xb0, 0x01, 0xe6, 0x21, 0xe6, 0xa1, // ICW4
];

/// Masks all lines of both 8259As. Changes AL.
pub const MASK_PICS: &[u8] = &[0xb0, 0xff, 0xe6, 0x21, 0xe6, 0xa1];

/// An ELF32 for the i386 with `code` at 1 MiB, entered at its start.
pub fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    const START: u32 = 0x10_0000;
    let len = code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    let words = [1, START, 52, 0, 0, 52 | 32 << 16, 1, 0];
    let segment = [1, HEADERS, START, START, len, len, 7, 4096];
    for word in words.into_iter().chain(segment) {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// An ELF64 for x86-64 with `code` at 1 MiB, entered at its start.
pub fn elf64(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const START: u64 = 0x10_0000;
    const RWX_LOAD: u64 = 7 << 32 | 1;
    let len = code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    // Behind e_flags: e_ehsize, e_phentsize, e_phnum.
    let header = [START, 64, 0, 64 << 32 | 56 << 48, 1];
    let segment = [RWX_LOAD, HEADERS, START, START, len, len, 4096];
    for word in header.into_iter().chain(segment) {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A bzImage of protocol 2.12 with `payload`, which `code` precedes at the start of the protected-mode code.
pub fn bzimage(code: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]); // boot_flag, jump
    put(0x202, b"HdrS\x0c\x02"); // header, version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x214, &0x10_0000u32.to_le_bytes()); // code32_start
    put(0x238, &255u32.to_le_bytes()); // cmdline_size
    put(0x248, &(code.len() as u32).to_le_bytes()); // payload_offset
    put(0x24c, &(payload.len() as u32).to_le_bytes()); // payload_length
    file.extend(code);
    file.extend(payload);
    file
}

/// A flat kernel with a Multiboot header that places it at 1 MiB, entered behind the header.
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    const START: u32 = 0x10_0000;
    const HEADER: u32 = 32;
    let (magic, flags) = (0x1bad_b002u32, 1 << 16);
    let sum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    let header = [magic, flags, sum, START, START, 0, 0, START + HEADER];
    let header = header.into_iter().flat_map(u32::to_le_bytes);
    header.chain(code.iter().copied()).collect()
}
