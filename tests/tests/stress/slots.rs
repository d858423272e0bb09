//! Data of 64-bit programs at pages that share slots of the tables, and at the ends of the canonical halves.
//!
//! ```text
//!   an access:  R14 = address of the next, RBX, RBP, RSI or R13 = address
//!               load, store, both, or REP MOVSB       ──► #PF, #GP or #SS: the handler mixes what is known into R12, and goes on at R14
//!   the next:   RAX is rotated
//! ```

use fastrand::Rng;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::contents::PAGE;
use super::machine::Program;
use super::paging::{
    Descriptors, FLAT_DATA, INTERRUPT_GATE, TABLES, code_segment, entry, place_identity, turn_on,
};
use super::tables::PRESENT;
use super::width::{ByWidth, Width};

const DESCRIPTORS: Descriptors = Descriptors {
    gdt: 0x14_0000,
    idt: 0x14_1000,
    pointers: 0x14_2000,
};
/// Physical addresses of the handlers, and bytes from one to the next.
const HANDLERS: u32 = 0x14_3000;
const HANDLER_BYTES: u32 = 0x100;
/// Physical address of the counts of faults, by vector.
const FAULTS: u32 = 0x14_5000;
const STACK: u32 = 0x18_0000;
const CODE: u32 = 0x20_0000;
/// Physical address of the first frame of data.
const FRAMES: u32 = 0x30_0000;
/// Vectors of the faults: #SS, #GP and #PF.
const VECTORS: [u8; 3] = [12, 13, 14];
/// Accesses of a program, times that it is executed, and programs.
const ACCESSES: usize = 1_500;
const ROUNDS: u32 = 12;
const PROGRAMS: u64 = 6;
/// CR4.OSFXSR.
const SSE_ENABLED: i32 = 1 << 9;
const TERABYTE: u64 = 1 << 40;
const HALF: u64 = 1 << 47;

/// The pages of data.
fn pages() -> Vec<u64> {
    let upper = 0u64.wrapping_sub(HALF);
    let homes = [
        TERABYTE,
        2 * TERABYTE,
        95 * TERABYTE,
        upper + TERABYTE,
        upper + 3 * TERABYTE,
    ];
    let sharing = homes
        .iter()
        .flat_map(|home| [0, 1, 2].map(|page| home + 0x5000_0000 + page * u64::from(PAGE)));
    let ends = [HALF, upper, 0].map(|end| [-2, -1, 0, 1].map(|page| (end, page)));
    let ends = ends
        .into_iter()
        .flatten()
        .map(|(end, page)| end.wrapping_add_signed(page * i64::from(PAGE)));
    sharing.chain(ends).collect()
}

fn is_canonical(address: u64) -> bool {
    !(HALF..0u64.wrapping_sub(HALF)).contains(&address)
}

/// An address from which an access may go on in the next page.
fn address(pages: &[u64], rng: &mut Rng) -> u64 {
    let page = pages[rng.usize(..pages.len())];
    let offset = match rng.bool() {
        true => u64::from(PAGE) - rng.u64(1..20),
        false => rng.u64(..u64::from(PAGE)),
    };
    page.wrapping_add(offset)
}

/// Emits an access.
fn access(code: &mut CodeAssembler, pages: &[u64], rng: &mut Rng) -> Result<(), IcedError> {
    let mut next = code.create_label();
    let base = [rbx, rbp, rsi, r13][rng.usize(..4)];
    code.lea(r14, ptr(next))?;
    // A displacement that does not stay within the page, or none.
    let distance = match rng.u32(..3) {
        0 => 0,
        _ => rng.i32(-0x4000..0x4000),
    };
    let start = address(pages, rng).wrapping_sub(distance as u64);
    code.mov(base, start)?;
    let at = base + distance;
    match rng.u32(..12) {
        0 => code.mov(rdx, qword_ptr(at))?,
        1 => code.mov(r9d, dword_ptr(at))?,
        2 => code.movzx(edx, byte_ptr(at))?,
        3 => code.mov(qword_ptr(at), rax)?,
        4 => code.mov(word_ptr(at), ax)?,
        5 => code.add(qword_ptr(at), rax)?,
        6 => code.xadd(dword_ptr(at), r9d)?,
        7 => code.movups(xmm9, xmmword_ptr(at))?,
        8 => code.movups(xmmword_ptr(at), xmm9)?,
        9 => code.fild(qword_ptr(at))?,
        10 => code.fistp(qword_ptr(at))?,
        _ => {
            code.mov(rsi, address(pages, rng))?;
            code.mov(rdi, address(pages, rng))?;
            code.mov(ecx, rng.u32(..40))?;
            code.rep().movsb()?;
        }
    }
    code.set_label(&mut next)?;
    code.add(rax, rdx)?;
    code.xor(rax, r9)?;
    code.rol(rax, rng.u32(1..64))
}

/// Goes on at R14. All that is known about the fault, and the registers of REP MOVSB, go into R12.
fn handler(code: &mut CodeAssembler, vector: u8) -> Result<(), IcedError> {
    code.inc(dword_ptr(FAULTS + 4 * u32::from(vector)))?;
    code.pop(r8)?;
    code.xor(r8, i32::from(vector) << 8)?;
    for known in [r8, rcx, rsi, rdi] {
        code.xor(r12, known)?;
        code.rol(r12, 11)?;
    }
    code.mov(r8, cr2)?;
    code.add(r12, r8)?;
    code.add(r12, qword_ptr(rsp))?;
    code.mov(qword_ptr(rsp), r14)?;
    code.iretq()
}

fn program(seed: u64) -> Program {
    let rng = &mut Rng::with_seed(seed);
    let mut program = Program::new(Width::Wide, 4 << 20, CODE, STACK);
    let mut tables = place_identity(&mut program);
    let pages = pages();
    for (&page, frame) in pages.iter().zip((FRAMES..).step_by(PAGE as usize)) {
        let entry = match rng.u32(..8) {
            0 => 0,
            1 => frame | PRESENT,
            _ => entry(frame),
        };
        if is_canonical(page) {
            tables.map(&mut program.contents, page, entry);
        }
        let data: Vec<u8> = (0..PAGE).map(|_| rng.u8(..)).collect();
        program.place(frame, data);
    }
    assert!(tables.end() <= DESCRIPTORS.gdt, "{:x}", tables.end());
    place_rounds(&mut program, |code| {
        (0..ACCESSES).try_for_each(|_| access(code, &pages, rng))
    });
    program
}

/// Adds the handlers, and code that executes `round` in each of the rounds.
fn place_rounds(
    program: &mut Program,
    round: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    let handlers = (HANDLERS..).step_by(HANDLER_BYTES as usize);
    let handlers: Vec<_> = VECTORS.into_iter().zip(handlers).collect();
    let gates: Vec<_> = (handlers.iter())
        .map(|&(vector, handler)| (vector, handler, INTERRUPT_GATE))
        .collect();
    let code_segment = code_segment(Width::Wide, 0);
    DESCRIPTORS.place(program, &[0, 0, code_segment, FLAT_DATA], &gates);
    for (vector, at) in handlers {
        program.assemble(at, |code| handler(code, vector));
    }
    program.assemble(CODE, |code| {
        let mut again = code.create_label();
        DESCRIPTORS.load(code)?;
        turn_on(code, TABLES)?;
        code.set_cr4(SSE_ENABLED)?;
        code.fninit()?;
        code.mov(r15d, ROUNDS)?;
        code.set_label(&mut again)?;
        round(code)?;
        code.dec(r15d)?;
        code.jnz(again)?;
        code.hlt()
    });
}

/// Emits some instructions.
type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Emits jumps, calls and returns to `target`, which fault there or at once.
fn leave(code: &mut CodeAssembler, target: u64) -> Result<(), IcedError> {
    let transfers: [Emit; 4] = [
        |code| code.jmp(rbx),
        |code| code.call(rbx),
        |code| {
            code.push(rbx)?;
            code.ret()
        },
        |code| {
            code.push(rbx)?;
            code.jmp(qword_ptr(rsp))
        },
    ];
    for transfer in transfers {
        let mut next = code.create_label();
        code.lea(r14, ptr(next))?;
        code.mov(rbx, target)?;
        transfer(code)?;
        code.set_label(&mut next)?;
        code.sub(r12, rsp)?;
        code.mov(esp, STACK)?;
    }
    Ok(())
}

#[test]
fn accesses_at_shared_slots_and_at_ends_of_halves() {
    let mut faults = [0; VECTORS.len()];
    for seed in 0..PROGRAMS {
        let ended = program(seed).agree(&format!("shared slots, seed {seed}"));
        for (sum, vector) in faults.iter_mut().zip(VECTORS) {
            *sum += ended.dwords(FAULTS + 4 * u32::from(vector), 1)[0];
        }
    }
    assert!(faults.iter().all(|&count| count > ROUNDS), "{faults:?}");
}

/// Code that runs off the end of the lower half, and branches to addresses that are not canonical, fault where the emulator says.
#[test]
fn code_that_leaves_the_halves() {
    // add rax, 1: the last instruction of the lower half.
    const LAST: [u8; 4] = [0x48, 0x83, 0xc0, 1];
    let last = HALF - LAST.len() as u64;
    let mut program = Program::new(Width::Wide, 4 << 20, CODE, STACK);
    let mut tables = place_identity(&mut program);
    tables.map(&mut program.contents, last, entry(FRAMES));
    program.place(FRAMES + PAGE - LAST.len() as u32, LAST);
    place_rounds(&mut program, |code| {
        // The first is the last instruction, the second lies across the end.
        [last, HALF - 1, HALF, 0u64.wrapping_sub(HALF) - 1, 1 << 63]
            .into_iter()
            .try_for_each(|target| leave(code, target))
    });
    let ended = program.agree("code that leaves the halves");
    assert_eq!(ended.dwords(FAULTS + 4 * 13, 1), [5 * 4 * ROUNDS]);
}

/// Places a page of direct branches in the second of three frames, of which the others hold what they lead to, if the page is executed
/// where these are its neighbours. Returns the offsets at which to begin.
fn place_branches(program: &mut Program) -> Vec<u32> {
    // jmp r14
    const LANDING: [u8; 3] = [0x41, 0xff, 0xe6];
    let before = FRAMES;
    let [page, behind] = [1, 2].map(|number| FRAMES + number * PAGE);
    let mut offsets = Vec::new();
    let mut add = |at: u32, code: &[u8], landing: u32| {
        program.place(page + at, code.to_vec());
        program.place(landing, LANDING);
        offsets.push(at);
    };
    let mut at = 0x100;
    for (distance, landings) in [(PAGE as i32, behind), (-(PAGE as i32), before)] {
        // jmp; cmp rsp, rsp and je; call
        for code in [&[0xe9][..], &[0x48, 0x39, 0xe4, 0x0f, 0x84], &[0xe8]] {
            let length = code.len() as i32 + 4;
            let code = [code, &(distance - length).to_le_bytes()].concat();
            add(at, &code, landings + at);
            at += 0x40;
        }
    }
    // xor ecx, ecx; jrcxz
    add(0, &[0x31, 0xc9, 0xe3, 0xf0], before + 0xff4);
    add(0xfe0, &[0x31, 0xc9, 0xe3, 0x2c], behind + 0x10);
    // add rax, 1: what follows is the next page.
    add(0xffc, &[0x48, 0x83, 0xc0, 1], behind);
    offsets
}

/// Direct branches that lead out of a half fault where they are, with nothing pushed; the same code elsewhere does not fault.
#[test]
fn direct_branches_that_leave_the_halves() {
    let mut program = Program::new(Width::Wide, 4 << 20, CODE, STACK);
    let mut tables = place_identity(&mut program);
    let offsets = place_branches(&mut program);
    let upper = 0u64.wrapping_sub(HALF);
    let page = FRAMES + PAGE;
    let places = [page.into(), HALF - u64::from(PAGE), upper];
    for place in &places[1..] {
        tables.map(&mut program.contents, *place, entry(page));
    }
    place_rounds(&mut program, |code| {
        for (place, offset) in places
            .iter()
            .flat_map(|place| offsets.iter().map(move |offset| (place, offset)))
        {
            let mut next = code.create_label();
            code.lea(r14, ptr(next))?;
            code.mov(rbx, place + u64::from(*offset))?;
            // A fault's frame is aligned, and so leaves what CALL would have pushed.
            code.mov(esp, STACK - 8)?;
            code.mov(qword_ptr(STACK - 16), 0)?;
            code.jmp(rbx)?;
            code.set_label(&mut next)?;
            code.sub(r12, qword_ptr(STACK - 16))?;
            code.sub(r12, rsp)?;
        }
        code.mov(esp, STACK)
    });
    let ended = program.agree("direct branches that leave the halves");
    // Each way out of the lower half: three branches, JRCXZ and the last instruction; all but the latter lead out of the upper one.
    assert_eq!(ended.dwords(FAULTS + 4 * 13, 1), [(5 + 4) * ROUNDS]);
}
