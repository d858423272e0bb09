//! Emitting host code for one guest instruction.
//!
//! A memory access is a probe of a flat table, all without touching flags:
//!
//! ```text
//!   lea   r8d, [effective address]
//!   rorx  r9d, r8d, log2(size)        ; low bits to the top: a misaligned address indexes slots that are always empty
//!   mov   r10d, 12 - log2(size)
//!   shrx  r9d, r9d, r10d
//!   mov   r11, rcx
//!   mov   rcx, [r14 + r9*8]           ; slot: host page - linear page + 1, or 0
//!   jrcxz miss                        ; the emulator does the instruction
//!   mov   r9, rcx
//!   mov   rcx, r11
//!   op    ..., [r8 + r9 - 1]
//! ```

mod memory;
mod misses;
mod plain;
mod stack;
mod string;
mod transfer;

use super::context::Reason;
use super::operands::memory_operand;
use super::runtime::{Runtime, assembler, leave};
use crate::emulate::fpu::is_host_executed;
use iced_x86::code_asm::*;
use iced_x86::{
    Code, IcedError, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic, Register,
};
use string::is_single_string;

/// log2 of the page size.
const PAGE_SHIFT: u32 = 12;
/// Bytes of a page: branch targets below stay inside.
const PAGE: u32 = 1 << PAGE_SHIFT;
/// How far JRCXZ reaches, in bytes; distances are estimated from above.
const REACH: usize = 127;
/// Bytes of a jump to a pad or away from one.
const JUMP_BYTES: usize = 5;
/// Host bytes of an instruction without memory access.
const PLAIN_BYTES: usize = 16;
/// Host bytes of leaving.
const LEAVE_BYTES: usize = 32;
/// Host bytes of one memory access.
const ACCESS_BYTES: usize = 62;

/// Length of the code that finds out the page's address: LEA with a 32-bit displacement.
pub const ENTRY_BYTES: u32 = 7;

/// Host bytes of checking whether the host's unit holds the guest's state.
const CHECK_BYTES: usize = 16;
/// Host bytes of checking and adding a segment's base.
const SEGMENT_BYTES: usize = 32;

/// What became of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emitted {
    /// Host code was emitted; the next instruction follows.
    Inline,
    /// Host code was emitted that never goes on to the next instruction.
    Ends,
    /// Nothing was emitted: the emulator has to execute it.
    Emulate,
}

/// A direct branch inside the page, to be linked when its target is translated.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// Offset of the target in the page.
    pub target: u16,
    /// Label behind the branch: its displacement ends there.
    pub after: CodeLabel,
}

#[derive(Clone, Copy)]
struct Miss {
    near: CodeLabel,
    /// Offset of the instruction in the page.
    offset: u32,
    cause: Cause,
}

/// Why a check may fail, and so what its piece out of line does.
#[derive(Clone, Copy)]
enum Cause {
    /// The emulator has to do it.
    Refused,
    /// The slot was empty; with a piece to call if the address may only be misaligned, and the way back from there.
    Probe(Option<(u64, CodeLabel)>),
    /// The host's unit does not hold the guest's FPU state.
    Fpu,
}

/// Collects the code of one fragment.
pub struct Emitter {
    /// The code.
    pub code: CodeAssembler,
    /// Branches to link, in the order of their sites.
    pub branches: Vec<Branch>,
    first_site: u32,
    exit: u64,
    jump: u64,
    info: InstructionInfoFactory,
    misses: Vec<Miss>,
    distance: usize,
    far: Vec<(CodeLabel, Miss)>,
    fpu_checked: bool,
    chances: [[u64; 2]; 3],
    links: Vec<Link>,
}

/// An out-of-line piece that a direct branch leads to.
struct Link {
    label: CodeLabel,
    target: u32,
    way: Way,
}

/// Where a direct branch goes.
#[derive(Clone, Copy)]
enum Way {
    /// To another page.
    Out,
    /// Back inside the page: it polls.
    Backward,
    /// Forward inside the page; its site.
    Forward(u32),
}

type Result<T> = std::result::Result<T, IcedError>;

/// Host bytes that `raw` takes at most.
fn most_bytes(raw: &Instruction) -> usize {
    let operand = match (memory_operand(raw), raw.memory_segment()) {
        (None, _) => 0,
        (_, Register::FS | Register::GS) => ACCESS_BYTES + SEGMENT_BYTES,
        _ => ACCESS_BYTES,
    };
    let stack = match raw.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Call | Mnemonic::Ret | Mnemonic::Leave => {
            ACCESS_BYTES
        }
        _ if raw.is_string_instruction() => ACCESS_BYTES,
        _ => 0,
    };
    PLAIN_BYTES.max(operand + stack) + CHECK_BYTES
}

fn guest(register: Register) -> Option<AsmRegister32> {
    Some(match register {
        Register::EAX => eax,
        Register::ECX => ecx,
        Register::EDX => edx,
        Register::EBX => ebx,
        Register::ESP => r12d,
        Register::EBP => ebp,
        Register::ESI => esi,
        Register::EDI => edi,
        _ => return None,
    })
}

/// The memory operand reached by a successful probe, of any size.
fn host_memory() -> MemoryOperand {
    MemoryOperand::new(Register::R8, Register::R9, 1, -1, 1, false, Register::None)
}

/// The doubleword reached by a successful probe.
fn probed() -> AsmMemoryOperand {
    dword_ptr(r8 + r9 - 1)
}

impl Emitter {
    /// An emitter whose branches get site numbers from `first_site` on.
    pub fn new(
        runtime: &Runtime,
        address_of: impl Fn(u32) -> u64,
        first_site: u32,
    ) -> Result<Self> {
        Ok(Self {
            code: assembler()?,
            branches: Vec::new(),
            first_site,
            exit: address_of(runtime.exit),
            jump: address_of(runtime.jump),
            info: InstructionInfoFactory::new(),
            misses: Vec::new(),
            distance: 0,
            far: Vec::new(),
            fpu_checked: false,
            chances: [1, 2, 3].map(|log| {
                [false, true].map(|writes| address_of(runtime.second_chance(log, writes)))
            }),
            links: Vec::new(),
        })
    }

    /// The entry from elsewhere, with EIP in R8D, which gives the page's address. [`ENTRY_BYTES`] further is the entry from
    /// inside the page.
    pub fn entry(&mut self, at: u32) -> Result<()> {
        let page = MemoryOperand::new(
            Register::R8,
            Register::None,
            1,
            -i64::from(at),
            8,
            false,
            Register::None,
        );
        self.code
            .add_instruction(Instruction::with2(Code::Lea_r32_m, Register::R13D, page)?)
    }

    /// Emits `raw`, whose IP is its offset in the page.
    pub fn instruction(&mut self, raw: &Instruction) -> Result<Emitted> {
        let bytes = most_bytes(raw);
        self.keep_pads_near(bytes)?;
        let emitted = self.by_mnemonic(raw)?;
        self.distance += bytes;
        Ok(emitted)
    }

    /// Places the pads now if they would be out of reach behind `bytes` more.
    fn keep_pads_near(&mut self, bytes: usize) -> Result<()> {
        // The pads that an instruction may add, and the jump over them.
        let pads = JUMP_BYTES * (self.misses.len() + 4);
        if !self.misses.is_empty() && self.distance + bytes + pads > REACH {
            self.pads(true)?;
        }
        Ok(())
    }

    /// Goes on at `offset` of this or, beyond its end, the next page.
    pub fn go_on(&mut self, from: u32, target: u32) -> Result<()> {
        self.keep_pads_near(PLAIN_BYTES)?;
        self.branch(from, target, None)
    }

    /// Leaves to have the instruction at `at` emulated.
    pub fn emulate(&mut self, at: u32) -> Result<()> {
        self.keep_pads_near(LEAVE_BYTES)?;
        self.code.lea(r8d, dword_ptr(r13 + at as i32))?;
        leave(&mut self.code, Reason::Emulate, self.exit)
    }

    /// Emits everything that lies out of line. To be called once, behind code that does not fall through.
    pub fn finish(&mut self) -> Result<()> {
        self.pads(false)?;
        for (label, miss) in std::mem::take(&mut self.far) {
            self.failed(label, miss)?;
        }
        for link in std::mem::take(&mut self.links) {
            self.link(link)?;
        }
        Ok(())
    }

    fn by_mnemonic(&mut self, raw: &Instruction) -> Result<Emitted> {
        use Mnemonic::*;
        match raw.mnemonic() {
            Mov | Movzx | Movsx | Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test | Inc
            | Dec | Neg | Not | Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd
            | Imul | Mul | Xchg | Bt | Bts | Btr | Btc | Bsf | Bsr | Bswap | Cbw | Cwde | Cwd
            | Cdq | Xadd | Cmpxchg | Clc | Stc | Cmc | Lahf | Sahf | Cmova | Cmovae | Cmovb
            | Cmovbe | Cmove | Cmovg | Cmovge | Cmovl | Cmovle | Cmovne | Cmovno | Cmovnp
            | Cmovns | Cmovo | Cmovp | Cmovs | Seta | Setae | Setb | Setbe | Sete | Setg
            | Setge | Setl | Setle | Setne | Setno | Setnp | Setns | Seto | Setp | Sets => {
                self.copy(raw)
            }
            Nop | Reservednop | Pause => Ok(Emitted::Inline),
            Lea => self.lea(raw),
            Push => self.push(raw),
            Pop => self.pop(raw),
            Leave => self.leave_frame(raw),
            Jmp | Call | Ret => self.transfer(raw),
            Ja | Jae | Jb | Jbe | Je | Jg | Jge | Jl | Jle | Jne | Jno | Jnp | Jns | Jo | Jp
            | Js if raw.op_code().operand_size() == 32 => {
                self.branch(raw.ip32(), raw.near_branch32(), Some(raw))?;
                Ok(Emitted::Inline)
            }
            Lodsb | Lodsw | Lodsd | Stosb | Stosw | Stosd | Scasb | Scasw | Scasd | Movsb
            | Movsw | Movsd
                if is_single_string(raw) =>
            {
                self.string(raw)
            }
            // DF is clear, else this code would not run.
            Cld => Ok(Emitted::Inline),
            _ if is_host_executed(raw) || raw.code() == Code::Fnstsw_AX => self.fpu(raw),
            _ => Ok(Emitted::Emulate),
        }
    }
}
