//! The fixed code at the start of the arena: the way in, the way out, and the jump dispatcher.

use super::arena::Arena;
use super::context::{Context, JUMP_FOLD, Reason, WRITE_TABLE, offset};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};

/// Where the fixed pieces are.
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    /// `extern "C" fn(*mut Context, target)`: loads the guest's state and goes to `target`.
    enter: u32,
    /// Saves the guest's state and returns to the caller of `enter`; EIP and reason are already in the context.
    pub exit: u32,
    /// Goes to the code of the EIP in R8D, if the jump cache knows it; else leaves.
    pub jump: u32,
    /// Leaves to have the instruction at R8D emulated: what the jump cache holds for such instructions.
    pub emulate: u32,
    /// Checks a misaligned access: see [`Runtime::second_chance`].
    chances: [u32; CHANCES],
    /// Where code that can be thrown away begins.
    pub end: u32,
}

/// Guest registers by number, as the host holds them.
const GUEST: [AsmRegister64; 8] = [rax, rcx, rdx, rbx, r12, rbp, rsi, rdi];
/// Callee-saved registers of the C ABI that guest state overwrites.
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// Pieces for misaligned accesses: 2, 4 and 8 bytes, reads and writes.
const CHANCES: usize = 6;

/// Adding this to AL = 0 or 1 leaves OF = 0 or 1.
const OVERFLOW_MAKER: i32 = 0x7F;

/// An assembler whose branches to labels take their long form, so that they reach and can be patched.
pub fn assembler() -> Result<CodeAssembler, IcedError> {
    let mut code = CodeAssembler::new(64)?;
    code.set_prefer_short_branch(false);
    Ok(code)
}

/// Encodes `code` for the end of the arena and appends it. Branches keep the forms they were given.
pub fn append(arena: &mut Arena, code: &mut CodeAssembler) -> Result<Option<u32>, IcedError> {
    let rip = arena.address_of(arena.next());
    let result = code.assemble_options(rip, BlockEncoderOptions::DONT_FIX_BRANCHES)?;
    Ok(arena.append(&result.inner.code_buffer))
}

/// Counts one poll down and goes to `expired` when it was the last. Keeps flags; R11 is scratch.
pub fn poll(code: &mut CodeAssembler, expired: CodeLabel) -> Result<(), IcedError> {
    let polls = dword_ptr(r15 + offset::POLLS);
    code.mov(r11, rcx)?;
    code.mov(ecx, polls)?;
    code.lea(ecx, ptr(rcx - 1))?;
    code.mov(polls, ecx)?;
    code.jrcxz(expired)?;
    code.mov(rcx, r11)
}

impl Runtime {
    /// Emits the fixed pieces into an empty arena.
    pub fn emit(arena: &mut Arena) -> Result<Self, IcedError> {
        let missing = |place: Option<u32>| place.unwrap_or(0);
        let enter = missing(append(arena, &mut enter()?)?);
        let exit = missing(append(arena, &mut exit()?)?);
        let exit_address = arena.address_of(exit);
        let jump = missing(append(arena, &mut jump(exit_address)?)?);
        let emulate = missing(append(arena, &mut emulate(exit_address)?)?);
        let mut chances = [0; CHANCES];
        for (index, chance) in chances.iter_mut().enumerate() {
            let (log, writes) = (index as u32 / 2 + 1, index % 2 != 0);
            *chance = missing(append(arena, &mut second_chance(1 << log, writes)?)?);
        }
        Ok(Self {
            enter,
            exit,
            jump,
            emulate,
            chances,
            end: arena.next(),
        })
    }

    /// The piece that is called after a probe for 2^`log` bytes (2, 4 or 8) at R8D found nothing, since the address may only
    /// be misaligned. It leaves the slot in R9, or 0 where the emulator must do it: a miss, or two pages.
    pub fn second_chance(&self, log: u32, writes: bool) -> u32 {
        self.chances[(log as usize - 1) * 2 + usize::from(writes)]
    }

    /// Runs emitted code at `target` until it exits.
    pub fn run(&self, arena: &mut Arena, context: &mut Context, target: u64) {
        arena.publish();
        let address = arena.address_of(self.enter);
        // SAFETY: `address` is the `enter` piece, a function of this signature that keeps the C ABI's promises. Code at
        // `target` was made by `fragment`: it touches the context, the host stack below RSP by one return address, and
        // guest memory through the tables in the context only, and ends at the `exit` piece.
        unsafe {
            let enter: extern "C" fn(*mut Context, u64) = std::mem::transmute(address as *const ());
            enter(context, target);
        }
    }
}

/// RDI: context, RSI: target.
fn enter() -> Result<CodeAssembler, IcedError> {
    let mut code = assembler()?;
    for register in SAVED {
        code.push(register)?;
    }
    code.mov(r15, rdi)?;
    code.mov(r11, rsi)?;
    code.mov(r14, qword_ptr(r15 + offset::TABLE))?;
    code.mov(r8d, dword_ptr(r15 + offset::EIP))?;
    let mut no_fpu = code.create_label();
    code.cmp(qword_ptr(r15 + offset::FPU_LIVE), 0)?;
    code.je(no_fpu)?;
    code.fxrstor(ptr(r15 + offset::FPU))?;
    code.set_label(&mut no_fpu)?;
    code.mov(eax, dword_ptr(r15 + offset::FLAGS))?;
    code.add(al, OVERFLOW_MAKER)?;
    code.sahf()?;
    for (number, register) in GUEST.into_iter().enumerate() {
        code.mov(register, qword_ptr(r15 + offset::REGS + 8 * number as i32))?;
    }
    code.jmp(r11)?;
    Ok(code)
}

fn exit() -> Result<CodeAssembler, IcedError> {
    let mut code = assembler()?;
    for (number, register) in GUEST.into_iter().enumerate() {
        code.mov(qword_ptr(r15 + offset::REGS + 8 * number as i32), register)?;
    }
    code.lahf()?;
    code.seto(al)?;
    code.mov(dword_ptr(r15 + offset::FLAGS), eax)?;
    let mut no_fpu = code.create_label();
    code.cmp(qword_ptr(r15 + offset::FPU_LIVE), 0)?;
    code.je(no_fpu)?;
    code.fxsave(ptr(r15 + offset::FPU))?;
    code.mov(qword_ptr(r15 + offset::FPU_LIVE), 0)?;
    code.mov(qword_ptr(r15 + offset::FPU_SAVED), 1)?;
    code.fninit()?;
    code.ldmxcsr(dword_ptr(r15 + offset::HOST_MXCSR))?;
    code.set_label(&mut no_fpu)?;
    code.zero_bytes()?;
    for register in SAVED.into_iter().rev() {
        code.pop(register)?;
    }
    code.ret()?;
    Ok(code)
}

/// R8D: EIP. The table holds negated keys, so that a match is a zero sum and needs no flags.
fn jump(exit: u64) -> Result<CodeAssembler, IcedError> {
    let mut code = assembler()?;
    let mut hit = code.create_label();
    let mut expired = code.create_label();
    poll(&mut code, expired)?;
    code.mov(r11, rcx)?;
    // The slot: see `jump_slot`.
    code.mov(r10d, JUMP_FOLD)?;
    code.shrx(r10d, r8d, r10d)?;
    code.lea(r10d, dword_ptr(r8 + r10))?;
    code.movzx(r10d, r10w)?;
    code.mov(r9, qword_ptr(r15 + offset::SPACE))?;
    code.lea(r9, ptr(r9 + r8))?;
    code.mov(rcx, qword_ptr(r15 + offset::JUMP_KEYS))?;
    code.mov(rcx, qword_ptr(rcx + r10 * 8))?;
    code.lea(rcx, ptr(rcx + r9))?;
    code.jrcxz(hit)?;
    code.mov(rcx, r11)?;
    leave(&mut code, Reason::Lookup, exit)?;
    code.set_label(&mut hit)?;
    code.mov(rcx, r11)?;
    code.mov(r9, qword_ptr(r15 + offset::JUMP_TARGETS))?;
    code.jmp(qword_ptr(r9 + r10 * 8))?;
    code.set_label(&mut expired)?;
    code.mov(rcx, r11)?;
    leave(&mut code, Reason::Budget, exit)?;
    Ok(code)
}

/// Leaves with EIP in R8D.
pub fn leave(code: &mut CodeAssembler, reason: Reason, exit: u64) -> Result<(), IcedError> {
    code.mov(dword_ptr(r15 + offset::EIP), r8d)?;
    code.mov(dword_ptr(r15 + offset::REASON), reason as i32)?;
    code.jmp(exit)
}

/// R8D: EIP.
fn emulate(exit: u64) -> Result<CodeAssembler, IcedError> {
    let mut code = assembler()?;
    leave(&mut code, Reason::Emulate, exit)?;
    Ok(code)
}

/// R8D: address. Keeps flags and all registers but R9.
fn second_chance(size: i32, writes: bool) -> Result<CodeAssembler, IcedError> {
    let mut code = assembler()?;
    let mut refused = code.create_label();
    let mut done = code.create_label();
    let table = if writes { WRITE_TABLE } else { 0 };
    code.mov(qword_ptr(r15 + offset::SAVED_AX), rax)?;
    code.lahf()?;
    code.seto(al)?;
    code.mov(dword_ptr(r15 + offset::SAVED_FLAGS), eax)?;
    code.lea(r9d, dword_ptr(r8 + (size - 1)))?;
    code.xor(r9d, r8d)?;
    code.shr(r9d, mmu::PAGE_SHIFT)?;
    code.jnz(refused)?;
    code.mov(r9d, r8d)?;
    code.shr(r9d, mmu::PAGE_SHIFT)?;
    code.mov(r9, qword_ptr(r14 + r9 * 8 + table))?;
    code.jmp(done)?;
    code.set_label(&mut refused)?;
    code.xor(r9d, r9d)?;
    code.set_label(&mut done)?;
    code.mov(eax, dword_ptr(r15 + offset::SAVED_FLAGS))?;
    code.add(al, OVERFLOW_MAKER)?;
    code.sahf()?;
    code.mov(rax, qword_ptr(r15 + offset::SAVED_AX))?;
    code.ret()?;
    Ok(code)
}
