//! Programs and handlers of a hostile guest: instructions of all forms, bytes of no meaning, and what kernels do, done wrong.

use fastrand::Rng;
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};
use std::sync::OnceLock;
use tests::differential::{
    encode::{self, Encoded},
    forms::{self, Row, Style},
    mode::Mode,
    values::{self, percent},
};

use crate::{
    layout::{
        CODE, CODE_BYTES, CODE64, DATA, DATA0, GDT_BYTES, HANDLER_BYTES, HANDLER_COUNT, HANDLERS,
        HOPS, PAGE_MAPS, PLACES, USER_CODE32, USER_CODE64, USER_DATA,
    },
    structures,
};

/// Instructions of a piece of code.
const LENGTH: std::ops::Range<usize> = 8..40;
/// Distance between the beginnings of two pieces.
const PIECE: u64 = 0x200;

/// Forms that hostile guests execute and the differential harness does not, as the host's user programs cannot.
const SYSTEM: [Code; 12] = [
    Code::Cpuid,
    Code::Int1,
    Code::Sgdt_m1664,
    Code::Sidt_m1664,
    Code::Sldt_rm16,
    Code::Smsw_rm16,
    Code::Str_rm16,
    Code::Syscall,
    Code::Sysretd,
    Code::Sysretq,
    Code::Sysenter,
    Code::Sysexitq,
];

/// MSRs (SDM Vol. 4, 2.1 "Architectural MSRs") but the time-stamp counter.
const MSRS: [u32; 16] = [
    0x174,
    0x175,
    0x176,
    0x1a0,
    0x1d9,
    0x17a,
    0x1b,
    0x277,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
];

/// The forms of code of so many bits.
fn all_forms(bits: u32) -> &'static [Code] {
    static FORMS: OnceLock<[Vec<Code>; 2]> = OnceLock::new();
    let [narrow, wide] = FORMS.get_or_init(|| {
        let mut wide = forms::generated(Mode::Bits64);
        wide.extend(SYSTEM);
        [forms::generated(Mode::Compatibility), wide]
    });
    if bits == 64 { wide } else { narrow }
}

/// Fills in the handlers and the pieces of a program, and returns the physical addresses of these. All but handlers is code of so
/// many bits.
pub fn fill(memory: &mut [u8], bits: u32, rng: &mut Rng) -> Vec<u64> {
    let entries: Vec<u64> = (CODE..CODE + CODE_BYTES)
        .step_by(PIECE as usize)
        .map(|at| {
            at + if percent(rng, 30) {
                PIECE - rng.u64(1..20)
            } else {
                rng.u64(..16)
            }
        })
        .filter(|at| at + 0x400 < CODE + CODE_BYTES)
        .collect();
    for &at in &entries {
        let piece = piece(bits, &entries, at, rng);
        memory[at as usize..][..piece.len()].copy_from_slice(&piece);
    }
    let mut entries = entries;
    rng.shuffle(&mut entries);
    for number in 0..HANDLER_COUNT {
        let at = HANDLERS + number * HANDLER_BYTES;
        let handler = handler(at, bits, &entries, rng);
        memory[at as usize..][..handler.len()].copy_from_slice(&handler);
    }
    entries
}

/// A piece of a program, which goes on at another one or halts.
fn piece(bits: u32, entries: &[u64], at: u64, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(LENGTH) {
        bytes.extend(some(bits, rng));
        if bytes.len() > 0x1a0 {
            break;
        }
    }
    if percent(rng, 50) {
        let target = entries[rng.usize(..entries.len())];
        let next = at + bytes.len() as u64 + 5;
        bytes.push(0xe9);
        bytes.extend((target.wrapping_sub(next) as u32).to_le_bytes());
    }
    bytes.extend([0xcd, rng.u8(..), 0xf4]);
    bytes
}

/// One or several instructions.
fn some(bits: u32, rng: &mut Rng) -> Vec<u8> {
    match rng.u32(..100) {
        0..55 => form(bits, rng),
        55..60 => encode::noise(bits, rng).map_or_else(Vec::new, |noise| noise.bytes),
        60..78 => load(bits, rng),
        _ if bits != 64 => form(bits, rng),
        78..82 => store_entry(rng),
        82..85 => write_msr(rng),
        85..88 => control(rng),
        88..91 => go_far(rng),
        91..93 => table(rng),
        93..95 => store_code(rng),
        95..97 => repeat(rng),
        97..98 => go_near(rng),
        _ => invalidate(rng),
    }
}

/// An instruction of a random form. Branches lead to somewhere near.
fn form(bits: u32, rng: &mut Rng) -> Vec<u8> {
    let forms = all_forms(bits);
    let code = forms[rng.usize(..forms.len())];
    let Some(mut encoded) = encode::random(code, bits, rng) else {
        return Vec::new();
    };
    let mode = if bits == 64 {
        Mode::Bits64
    } else {
        Mode::Compatibility
    };
    if forms::row(code, mode) == Some(Row::Generated(Style::Relative)) && percent(rng, 90) {
        encoded.set_immediate(rng.i64(-40..60) as u64);
    }
    near(&mut encoded, rng);
    encoded.bytes
}

/// Often makes a displacement small, or relative to RIP one that leads to data or code.
fn near(encoded: &mut Encoded, rng: &mut Rng) {
    if encoded.offsets.displacement_size() == 4 && percent(rng, 70) {
        let small = match encoded.instruction.is_ip_rel_memory_operand() {
            true => (DATA - CODE).wrapping_add_signed(rng.i64(-0x2000..0x2000)),
            false => rng.i64(-64..64) as u64,
        };
        encoded.set_displacement(small);
    }
}

/// Bytes of an instruction; none if it cannot be encoded.
fn bytes(instruction: Result<Instruction, iced_x86::IcedError>) -> Vec<u8> {
    let mut encoder = Encoder::new(64);
    let instruction = instruction.expect("operands of its kinds");
    encoder.encode(&instruction, 0).expect("an instruction");
    encoder.take_buffer()
}

const REGISTERS: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn set(register: Register, value: u64) -> Vec<u8> {
    bytes(Instruction::with2(Code::Mov_r64_imm64, register, value))
}

fn push_all(values: &[u64]) -> Vec<u8> {
    let push = |&value: &u64| {
        let push = bytes(Instruction::with1(Code::Push_r64, Register::RAX));
        [set(Register::RAX, value), push].concat()
    };
    values.iter().flat_map(push).collect()
}

/// Loads a register with an address or another value that matters.
fn load(bits: u32, rng: &mut Rng) -> Vec<u8> {
    let value = match rng.u32(..4) {
        0 => values::register(bits, rng),
        _ => structures::address(rng),
    };
    if bits < 64 {
        let mut load = vec![0xb8 | rng.u8(..8)];
        load.extend(&value.to_le_bytes()[..bits as usize / 8]);
        return load;
    }
    set(REGISTERS[rng.usize(..16)], value)
}

/// Stores `value` at a linear address by RAX and RDX.
fn store(address: u64, value: u64) -> Vec<u8> {
    let to = MemoryOperand::with_base(Register::RDX);
    let store = Instruction::with2(Code::Mov_rm64_r64, to, Register::RAX);
    [
        set(Register::RDX, address),
        set(Register::RAX, value),
        bytes(store),
    ]
    .concat()
}

fn place(rng: &mut Rng) -> u64 {
    PLACES[rng.usize(..PLACES.len())]
}

/// Changes an entry of a page table, and often forgets to flush.
fn store_entry(rng: &mut Rng) -> Vec<u8> {
    let at = place(rng) | structures::entry_in_use(rng);
    let mut code = store(at, structures::entry(rng));
    if percent(rng, 50) {
        code.extend(invalidate(rng));
    }
    code
}

/// INVLPG of a random address, or a load of CR3.
fn invalidate(rng: &mut Rng) -> Vec<u8> {
    if percent(rng, 30) {
        let cr3 = PAGE_MAPS[rng.usize(..2)] | if percent(rng, 5) { rng.u64(..) } else { 0 };
        return [set(Register::RAX, cr3), vec![0x0f, 0x22, 0xd8]].concat();
    }
    [
        set(Register::RAX, structures::address(rng)),
        vec![0x0f, 0x01, 0x38],
    ]
    .concat()
}

fn write_msr(rng: &mut Rng) -> Vec<u8> {
    let msr = MSRS[rng.usize(..MSRS.len())];
    let value = match rng.u32(..4) {
        0 => rng.u64(..),
        1 => rng.u64(..0x1000) & 0xd01 | 0x500,
        2 => u64::from(USER_CODE32) << 48 | u64::from(CODE64) << 32,
        _ => structures::address(rng),
    };
    let mut code = set(Register::RCX, msr.into());
    code.extend(set(Register::RAX, value & 0xffff_ffff));
    code.extend(set(Register::RDX, value >> 32));
    code.extend([0x0f, if percent(rng, 80) { 0x30 } else { 0x32 }]);
    code
}

/// Flips a bit of a control or debug register.
fn control(rng: &mut Rng) -> Vec<u8> {
    let number = [0, 0, 2, 3, 4, 4, 8][rng.usize(..7)];
    let (opcode, number) = match percent(rng, 80) {
        true => (0x20, number),
        false => (0x21, rng.u8(..8)),
    };
    // REX.R for CR8; RAX.
    let rex = 0x40 | (number >> 3) << 2;
    let modrm = 0xc0 | (number & 7) << 3;
    let bit = [16, 18, 3, 2, 1, 7, 9, 5, 31, 0, rng.u8(..64)][rng.usize(..11)];
    vec![
        rex,
        0x0f,
        opcode,
        modrm,
        0x48,
        0x0f,
        0xba,
        0xf8,
        bit,
        rex,
        0x0f,
        opcode + 2,
        modrm,
    ]
}

/// IRETQ, RETFQ or SYSRET with whatever there is, or what should be there.
fn go_far(rng: &mut Rng) -> Vec<u8> {
    let selector = |rng: &mut Rng| match rng.u32(..3) {
        0 => [CODE64, USER_CODE64, USER_CODE32, 0x08][rng.usize(..4)],
        _ => rng.u16(..GDT_BYTES),
    };
    let target = match rng.u32(..5) {
        0 => structures::address(rng),
        _ => place(rng) | (CODE + PIECE * rng.u64(..CODE_BYTES / PIECE)),
    };
    let code = u64::from(selector(rng));
    match rng.u32(..4) {
        0 => {
            let mut bytes = push_all(&[code, target]);
            bytes.extend([0x48, 0xcb]);
            bytes
        }
        1 => {
            let flags = rng.u64(..) & 0x24_7ed5 | 2;
            let mut bytes = [set(Register::RCX, target), set(Register::R11, flags)].concat();
            bytes.extend(if percent(rng, 80) {
                &[0x48, 0x0f, 0x07][..]
            } else {
                &[0x0f, 0x07]
            });
            bytes
        }
        _ => {
            let stack = match rng.u32(..5) {
                0 => u64::from(selector(rng)),
                1 => 0,
                _ => u64::from(if code & 3 == 3 { USER_DATA } else { DATA0 }),
            };
            let flags = rng.u64(..) & 0x24_4ed5 | 2;
            let mut bytes = push_all(&[stack, structures::address(rng), flags, code, target]);
            bytes.extend([0x48, 0xcf]);
            bytes
        }
    }
}

/// LGDT, LIDT, LLDT, LTR, or a load of a segment register.
fn table(rng: &mut Rng) -> Vec<u8> {
    let operand = [
        set(Register::RDX, structures::address(rng)),
        vec![0x0f, 0x01],
    ]
    .concat();
    let selector = u64::from(rng.u16(..GDT_BYTES));
    let by_selector = |tail: &[u8]| [set(Register::RAX, selector), tail.to_vec()].concat();
    match rng.u32(..6) {
        0 => [operand, vec![0x12]].concat(),
        1 => [operand, vec![0x1a]].concat(),
        2 => by_selector(&[0x0f, 0x00, 0xd0]),
        3 => by_selector(&[0x0f, 0x00, 0xd8]),
        _ => by_selector(&[0x8e, 0xc0 | rng.u8(..6) << 3]),
    }
}

/// Overwrites code with other instructions.
fn store_code(rng: &mut Rng) -> Vec<u8> {
    let at = place(rng) | (CODE + rng.u64(..CODE_BYTES - 8));
    let mut other = form(64, rng);
    other.resize(8, 0x90);
    let other = other.first_chunk().expect("eight bytes");
    store(at, u64::from_le_bytes(*other))
}

/// A repeated string instruction over random places.
fn repeat(rng: &mut Rng) -> Vec<u8> {
    let count = match rng.u32(..8) {
        0 => rng.u64(..0x2000),
        _ => rng.u64(..64),
    };
    let mut code = set(Register::RCX, count);
    code.extend(set(Register::RSI, structures::address(rng)));
    code.extend(set(Register::RDI, structures::address(rng)));
    code.push(if percent(rng, 80) { 0xf3 } else { 0xf2 });
    if percent(rng, 50) {
        code.push(0x48);
    }
    code.push([0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf][rng.usize(..10)]);
    code
}

/// A return, call or jump to a random address.
fn go_near(rng: &mut Rng) -> Vec<u8> {
    let target = match rng.u32(..3) {
        0 => structures::address(rng),
        _ => place(rng) | (CODE + PIECE * rng.u64(..CODE_BYTES / PIECE)),
    };
    match rng.u32(..3) {
        0 => [push_all(&[target]), vec![0xc3]].concat(),
        1 => [set(Register::RAX, target), vec![0xff, 0xd0]].concat(),
        _ => [set(Register::RAX, target), vec![0xff, 0xe0]].concat(),
    }
}

/// A handler: halts if it is the last, does something that only a kernel may, and goes on with another piece of the program. The
/// code is at `at`, also in the upper half.
fn handler(at: u64, bits: u32, entries: &[u64], rng: &mut Rng) -> Vec<u8> {
    // dec qword [rip + HOPS]; jns over; cli; hlt
    let mut code = vec![0x48, 0xff, 0x0d];
    code.extend((HOPS.wrapping_sub(at + 7) as u32).to_le_bytes());
    code.extend([0x79, 0x02, 0xfa, 0xf4]);
    let mut work = match rng.u32(..8) {
        0 => vec![0x0f, 0x01, 0xf8],
        1 => vec![0x0f, 0x06],
        2 => invalidate(rng),
        3 => control(rng),
        4 => write_msr(rng),
        5 => store_entry(rng),
        _ => Vec::new(),
    };
    if work.len() > 40 {
        work.clear();
    }
    code.extend(work);
    let target = entries[rng.usize(..entries.len())];
    let (selector, stack) = match (bits, rng.u32(..4)) {
        (64, 0) => (CODE64, DATA0),
        (64, _) => (USER_CODE64, USER_DATA),
        _ => (USER_CODE32, USER_DATA),
    };
    let place = if bits == 64 {
        PLACES[rng.usize(..3)]
    } else {
        0
    };
    let flags = rng.u32(..) & 0x0004_0cd5 | 2;
    // push imm32 of all but addresses, these by RAX.
    let push = |value: u32| [vec![0x68], value.to_le_bytes().to_vec()].concat();
    code.extend(push(stack.into()));
    code.extend(push_all(&[place | (DATA + 8 * rng.u64(..0x1000))]));
    code.extend(push(flags));
    code.extend(push(selector.into()));
    code.extend(push_all(&[place | target]));
    code.extend([0x48, 0xcf]);
    assert!(code.len() <= HANDLER_BYTES as usize, "{}", code.len());
    code
}
