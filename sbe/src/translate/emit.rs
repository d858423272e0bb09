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

use super::context::{Reason, WRITE_TABLE, offset};
use super::operands::{host_address_register, memory_operand, rewrite};
use super::runtime::{Runtime, assembler, leave, poll};
use crate::emulate::fpu::is_host_executed;
use iced_x86::code_asm::*;
use iced_x86::{
    Code, ConditionCode, IcedError, Instruction, InstructionInfoFactory, MemoryOperand, MemorySize,
    Mnemonic, OpAccess, OpKind, Register,
};

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

/// Whether `raw` is a string instruction on its own, with 32-bit addresses.
fn is_single_string(raw: &Instruction) -> bool {
    let string = |index| {
        matches!(
            raw.op_kind(index),
            OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::Register
        )
    };
    raw.op_count() == 2
        && string(0)
        && string(1)
        && raw.is_string_instruction()
        && !raw.has_rep_prefix()
        && !raw.has_repne_prefix()
        && !matches!(raw.memory_segment(), Register::FS | Register::GS)
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

    /// Places the near targets of misses: jumps to their pieces out of line.
    fn pads(&mut self, falls_through: bool) -> Result<()> {
        if self.misses.is_empty() {
            return Ok(());
        }
        let mut over = self.code.create_label();
        if falls_through {
            self.code.jmp(over)?;
        }
        for mut miss in std::mem::take(&mut self.misses) {
            let far = self.code.create_label();
            self.code.set_label(&mut miss.near)?;
            self.code.jmp(far)?;
            self.far.push((far, miss));
        }
        if falls_through {
            self.code.set_label(&mut over)?;
            self.code.zero_bytes()?;
        }
        self.distance = 0;
        Ok(())
    }

    /// The piece out of line for a failed check.
    fn failed(&mut self, mut label: CodeLabel, miss: Miss) -> Result<()> {
        self.code.set_label(&mut label)?;
        self.code.mov(rcx, r11)?;
        match miss.cause {
            Cause::Refused | Cause::Probe(None) => self.emulate(miss.offset),
            Cause::Probe(Some((chance, back))) => {
                let mut refused = self.code.create_label();
                self.code.call(chance)?;
                self.code.mov(r11, rcx)?;
                self.code.mov(rcx, r9)?;
                self.code.jrcxz(refused)?;
                self.code.mov(rcx, r11)?;
                self.code.jmp(back)?;
                self.code.set_label(&mut refused)?;
                self.code.mov(rcx, r11)?;
                self.emulate(miss.offset)
            }
            Cause::Fpu => {
                self.code.lea(r8d, dword_ptr(r13 + miss.offset as i32))?;
                leave(&mut self.code, Reason::LoadFpu, self.exit)
            }
        }
    }

    fn miss(&mut self, raw: &Instruction, cause: Cause) -> CodeLabel {
        let near = self.code.create_label();
        if self.misses.is_empty() {
            self.distance = 0;
        }
        self.misses.push(Miss {
            near,
            offset: raw.ip32(),
            cause,
        });
        near
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

    /// An instruction that the host executes as it is, its operands renamed.
    fn copy(&mut self, raw: &Instruction) -> Result<Emitted> {
        let integer =
            |register: Register| register.is_gpr8() || register.is_gpr16() || register.is_gpr32();
        let plain = (0..raw.op_count())
            .all(|index| raw.op_kind(index) != OpKind::Register || integer(raw.op_register(index)));
        let Some(host) = rewrite(raw).filter(|_| plain && raw.code() != Code::Bswap_r16) else {
            return Ok(Emitted::Emulate);
        };
        if let Some(index) = memory_operand(raw) {
            // A bit offset in a register reaches beyond the operand.
            let reaches = matches!(
                raw.mnemonic(),
                Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            ) && raw.op_kind(1) == OpKind::Register;
            let access = self.info.info(raw).op_access(index);
            let writes = !matches!(access, OpAccess::Read | OpAccess::CondRead);
            if reaches || !self.probe_operand(raw, writes)? {
                return Ok(Emitted::Emulate);
            }
        }
        self.code.add_instruction(host)?;
        Ok(Emitted::Inline)
    }

    /// Leaves the address of the memory operand in R8 + R9 - 1; `false` when it has to be emulated.
    fn probe_operand(&mut self, raw: &Instruction, writes: bool) -> Result<bool> {
        let size = raw.memory_size().size() as u32;
        if !matches!(size, 1 | 2 | 4) || !self.is_addressable(raw, writes) {
            return Ok(false);
        }
        self.address(raw)?;
        self.probe(raw, size, writes)?;
        Ok(true)
    }

    /// 32-bit addresses in segments that are flat or checked at run time.
    fn is_addressable(&self, raw: &Instruction, writes: bool) -> bool {
        let wide = |register: Register| register == Register::None || register.is_gpr32();
        let registers = (raw.memory_base(), raw.memory_index());
        let absolute = registers == (Register::None, Register::None);
        wide(registers.0)
            && wide(registers.1)
            && (!absolute || raw.memory_displ_size() == 4)
            && !(writes && raw.memory_segment() == Register::CS)
    }

    /// R8D = linear address of the memory operand.
    fn address(&mut self, raw: &Instruction) -> Result<()> {
        let segment = match raw.memory_segment() {
            Register::FS => Some((offset::FS_USABLE, offset::FS_BASE)),
            Register::GS => Some((offset::GS_USABLE, offset::GS_BASE)),
            _ => None,
        };
        if let Some((usable, _)) = segment {
            let miss = self.miss(raw, Cause::Refused);
            self.code.mov(r11, rcx)?;
            self.code.mov(rcx, qword_ptr(r15 + usable))?;
            self.code.jrcxz(miss)?;
            self.code.mov(rcx, r11)?;
        }
        self.effective_address(Register::R8D, raw)?;
        if let Some((_, base)) = segment {
            self.code.mov(r9, qword_ptr(r15 + base))?;
            self.code.lea(r8d, dword_ptr(r8 + r9))?;
        }
        Ok(())
    }

    /// `target` (32 bits) = effective address of the memory operand.
    fn effective_address(&mut self, target: Register, raw: &Instruction) -> Result<()> {
        let base = host_address_register(raw.memory_base());
        let index = host_address_register(raw.memory_index());
        let displacement = raw.memory_displacement32();
        if base == Register::None && index == Register::None {
            return self.code.add_instruction(Instruction::with2(
                Code::Mov_r32_imm32,
                target,
                displacement,
            )?);
        }
        // 0: none; 1: as short as fits; 8: 32 bits, sign-extended, which an operand without a base always has.
        let size = match (base, displacement) {
            (Register::None, _) => 8,
            (_, 0) => 0,
            _ => 1,
        };
        let memory = MemoryOperand::new(
            base,
            index,
            raw.memory_index_scale(),
            i64::from(displacement as i32),
            size,
            false,
            Register::None,
        );
        self.code
            .add_instruction(Instruction::with2(Code::Lea_r32_m, target, memory)?)
    }

    /// Probes the table for `size` bytes (a power of two up to 16) at R8D; leaves the slot in R9.
    fn probe(&mut self, raw: &Instruction, size: u32, writes: bool) -> Result<()> {
        let log = size.trailing_zeros();
        let table = if writes { WRITE_TABLE } else { 0 };
        let mut found = self.code.create_label();
        // What may be misaligned, but 16 bytes: most such instructions fault then, the emulator knows which.
        let chance = matches!(log, 1..=3)
            .then(|| (self.chances[log as usize - 1][usize::from(writes)], found));
        let miss = self.miss(raw, Cause::Probe(chance));
        let code = &mut self.code;
        let source = if log == 0 {
            r8d
        } else {
            code.rorx(r9d, r8d, log)?;
            r9d
        };
        code.mov(r10d, PAGE_SHIFT - log)?;
        code.shrx(r9d, source, r10d)?;
        code.mov(r11, rcx)?;
        code.mov(rcx, qword_ptr(r14 + r9 * 8 + table))?;
        code.jrcxz(miss)?;
        code.mov(r9, rcx)?;
        code.mov(rcx, r11)?;
        code.set_label(&mut found)?;
        code.zero_bytes()
    }

    /// An x87, MMX or SSE instruction on the host's unit, which the guest's state is loaded into on first use.
    fn fpu(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(host) = rewrite(raw) else {
            return Ok(Emitted::Emulate);
        };
        let access = memory_operand(raw).map(|index| self.info.info(raw).op_access(index));
        let size = raw.memory_size().size() as u32;
        if access.is_some()
            && !(matches!(size, 1 | 2 | 4 | 8 | 16) && self.is_addressable(raw, true))
        {
            return Ok(Emitted::Emulate);
        }
        if !self.fpu_checked {
            let miss = self.miss(raw, Cause::Fpu);
            self.code.mov(r11, rcx)?;
            self.code.mov(rcx, qword_ptr(r15 + offset::FPU_LIVE))?;
            self.code.jrcxz(miss)?;
            self.code.mov(rcx, r11)?;
            self.fpu_checked = true;
        }
        if let Some(access) = access {
            self.address(raw)?;
            self.probe(
                raw,
                size,
                !matches!(access, OpAccess::Read | OpAccess::CondRead),
            )?;
        }
        self.code.add_instruction(host)?;
        Ok(Emitted::Inline)
    }

    /// LODS, STOS, SCAS or MOVS, once, upwards.
    fn string(&mut self, raw: &Instruction) -> Result<Emitted> {
        let size = raw.memory_size().size() as u32;
        let step = size as i32;
        let accumulator = match size {
            1 => Register::AL,
            2 => Register::AX,
            _ => Register::EAX,
        };
        let reads_source = raw.op1_kind() == OpKind::MemorySegESI;
        let writes = matches!(raw.op0_kind(), OpKind::MemoryESEDI)
            && !matches!(
                raw.mnemonic(),
                Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd
            );
        if reads_source {
            self.code.mov(r8d, esi)?;
            self.probe(raw, size, false)?;
        }
        if reads_source && writes {
            // Zero-extended loads keep flags and the rest of the scratch register out of it.
            self.access(Register::R9D, size, false)?;
            self.code.mov(dword_ptr(r15 + offset::SCRATCH), r9d)?;
            self.pads(true)?;
        } else if reads_source {
            self.access(accumulator, size, false)?;
        }
        if raw.op0_kind() == OpKind::MemoryESEDI || raw.op1_kind() == OpKind::MemoryESEDI {
            self.code.mov(r8d, edi)?;
            self.probe(raw, size, writes)?;
            if !writes {
                let code = [Code::Cmp_r8_rm8, Code::Cmp_r16_rm16, Code::Cmp_r32_rm32]
                    [size.trailing_zeros() as usize];
                self.code
                    .add_instruction(Instruction::with2(code, accumulator, host_memory())?)?;
            } else if reads_source {
                self.code.mov(r10d, dword_ptr(r15 + offset::SCRATCH))?;
                self.access(Register::R10D, size, true)?;
            } else {
                self.access(accumulator, size, true)?;
            }
            self.code.lea(edi, dword_ptr(rdi + step))?;
        }
        if reads_source {
            self.code.lea(esi, dword_ptr(rsi + step))?;
        }
        Ok(Emitted::Inline)
    }

    /// Moves `size` bytes between the probed memory and `register` or its lower part.
    fn access(&mut self, register: Register, size: u32, writes: bool) -> Result<()> {
        let part = match (register, size) {
            (Register::R9D, 1) => Register::R9L,
            (Register::R9D, 2) => Register::R9W,
            (Register::R10D, 1) => Register::R10L,
            (Register::R10D, 2) => Register::R10W,
            (register, _) => register,
        };
        let index = size.trailing_zeros() as usize;
        let instruction = if writes {
            let code = [Code::Mov_rm8_r8, Code::Mov_rm16_r16, Code::Mov_rm32_r32][index];
            Instruction::with2(code, host_memory(), part)?
        } else {
            let code = [Code::Mov_r8_rm8, Code::Mov_r16_rm16, Code::Mov_r32_rm32][index];
            Instruction::with2(code, part, host_memory())?
        };
        self.code.add_instruction(instruction)
    }

    fn lea(&mut self, raw: &Instruction) -> Result<Emitted> {
        let target = match raw.op0_register() {
            Register::ESP => Register::R12D,
            register if register.is_gpr32() => register,
            _ => return Ok(Emitted::Emulate),
        };
        if !self.is_addressable(raw, false) {
            return Ok(Emitted::Emulate);
        }
        self.effective_address(target, raw)?;
        Ok(Emitted::Inline)
    }

    /// R8D = new top of stack, probed for writing a doubleword.
    fn open_slot(&mut self, raw: &Instruction) -> Result<()> {
        self.code.lea(r8d, dword_ptr(r12 - 4))?;
        self.probe(raw, 4, true)
    }

    /// R9D = doubleword at the top of stack.
    fn top_of_stack(&mut self, raw: &Instruction) -> Result<()> {
        self.code.mov(r8d, r12d)?;
        self.probe(raw, 4, false)?;
        self.code.mov(r9d, probed())
    }

    fn push(&mut self, raw: &Instruction) -> Result<Emitted> {
        if raw.op_code().operand_size() != 32 {
            return Ok(Emitted::Emulate);
        }
        match raw.op0_kind() {
            OpKind::Register => {
                let Some(register) = guest(raw.op0_register()) else {
                    return Ok(Emitted::Emulate);
                };
                self.open_slot(raw)?;
                self.code.mov(probed(), register)?;
            }
            OpKind::Memory => {
                if raw.memory_size() != MemorySize::UInt32 || !self.probe_operand(raw, false)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.mov(r9d, probed())?;
                self.code.mov(dword_ptr(r15 + offset::SCRATCH), r9d)?;
                self.pads(true)?;
                self.open_slot(raw)?;
                self.code.mov(r10d, dword_ptr(r15 + offset::SCRATCH))?;
                self.code.mov(probed(), r10d)?;
            }
            _ => {
                self.open_slot(raw)?;
                self.code.mov(probed(), raw.immediate(0) as i32)?;
            }
        }
        self.code.mov(r12d, r8d)?;
        Ok(Emitted::Inline)
    }

    fn pop(&mut self, raw: &Instruction) -> Result<Emitted> {
        let Some(register) =
            guest(raw.op0_register()).filter(|_| raw.op0_kind() == OpKind::Register)
        else {
            return Ok(Emitted::Emulate);
        };
        self.top_of_stack(raw)?;
        self.code.lea(r12d, dword_ptr(r12 + 4))?;
        self.code.mov(register, r9d)?;
        Ok(Emitted::Inline)
    }

    fn leave_frame(&mut self, raw: &Instruction) -> Result<Emitted> {
        if raw.op_code().operand_size() != 32 {
            return Ok(Emitted::Emulate);
        }
        self.code.mov(r8d, ebp)?;
        self.probe(raw, 4, false)?;
        self.code.mov(r9d, probed())?;
        self.code.lea(r12d, dword_ptr(rbp + 4))?;
        self.code.mov(ebp, r9d)?;
        Ok(Emitted::Inline)
    }

    /// Near jumps, calls and returns with 32-bit operand size.
    fn transfer(&mut self, raw: &Instruction) -> Result<Emitted> {
        match raw.code() {
            Code::Jmp_rel8_32 | Code::Jmp_rel32_32 => {
                self.branch(raw.ip32(), raw.near_branch32(), None)?
            }
            Code::Call_rel32_32 => {
                self.push_return_address(raw)?;
                self.branch(raw.ip32(), raw.near_branch32(), None)?;
            }
            Code::Jmp_rm32 => {
                if !self.target(raw)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.jmp(self.jump)?;
            }
            Code::Call_rm32 => {
                if !self.target(raw)? {
                    return Ok(Emitted::Emulate);
                }
                self.code.mov(dword_ptr(r15 + offset::SCRATCH), r8d)?;
                self.pads(true)?;
                self.push_return_address(raw)?;
                self.code.mov(r8d, dword_ptr(r15 + offset::SCRATCH))?;
                self.code.jmp(self.jump)?;
            }
            Code::Retnd | Code::Retnd_imm16 => {
                let released = if raw.code() == Code::Retnd {
                    0
                } else {
                    raw.immediate16()
                };
                self.top_of_stack(raw)?;
                self.code
                    .lea(r12d, dword_ptr(r12 + 4 + i32::from(released)))?;
                self.code.mov(r8d, r9d)?;
                self.code.jmp(self.jump)?;
            }
            _ => return Ok(Emitted::Emulate),
        }
        Ok(Emitted::Ends)
    }

    /// R8D = target of an indirect jump or call.
    fn target(&mut self, raw: &Instruction) -> Result<bool> {
        if raw.op0_kind() == OpKind::Memory {
            if !self.probe_operand(raw, false)? {
                return Ok(false);
            }
            self.code.mov(r8d, probed())?;
            return Ok(true);
        }
        let Some(register) = guest(raw.op0_register()) else {
            return Ok(false);
        };
        self.code.mov(r8d, register)?;
        Ok(true)
    }

    fn push_return_address(&mut self, raw: &Instruction) -> Result<()> {
        self.open_slot(raw)?;
        self.code
            .lea(r10d, dword_ptr(r13 + raw.next_ip32() as i32))?;
        self.code.mov(probed(), r10d)?;
        self.code.mov(r12d, r8d)
    }

    /// A direct branch, conditional like `condition` or not, to offset `target` of the page (beyond it: another page).
    fn branch(&mut self, from: u32, target: u32, condition: Option<&Instruction>) -> Result<()> {
        let label = self.code.create_label();
        let way = match (target < PAGE, target <= from) {
            (false, _) => Way::Out,
            (true, true) => Way::Backward,
            (true, false) => Way::Forward(self.site(target)),
        };
        match condition {
            Some(raw) => self.conditional_jump(raw.condition_code(), label)?,
            None => self.code.jmp(label)?,
        }
        if let Way::Forward(site) = way {
            self.mark_site(site)?;
        }
        self.links.push(Link { label, target, way });
        Ok(())
    }

    /// Takes the next site number for a branch to `target`.
    fn site(&mut self, target: u32) -> u32 {
        let after = self.code.create_label();
        self.branches.push(Branch {
            target: target as u16,
            after,
        });
        self.first_site + self.branches.len() as u32 - 1
    }

    /// The branch just emitted is the one of `site`.
    fn mark_site(&mut self, site: u32) -> Result<()> {
        let branch = &mut self.branches[(site - self.first_site) as usize];
        self.code.set_label(&mut branch.after)?;
        self.code.zero_bytes()
    }

    fn conditional_jump(&mut self, condition: ConditionCode, label: CodeLabel) -> Result<()> {
        let code = &mut self.code;
        match condition {
            ConditionCode::o => code.jo(label),
            ConditionCode::no => code.jno(label),
            ConditionCode::b => code.jb(label),
            ConditionCode::ae => code.jae(label),
            ConditionCode::e => code.je(label),
            ConditionCode::ne => code.jne(label),
            ConditionCode::be => code.jbe(label),
            ConditionCode::a => code.ja(label),
            ConditionCode::s => code.js(label),
            ConditionCode::ns => code.jns(label),
            ConditionCode::p => code.jp(label),
            ConditionCode::np => code.jnp(label),
            ConditionCode::l => code.jl(label),
            ConditionCode::ge => code.jge(label),
            ConditionCode::le => code.jle(label),
            ConditionCode::g => code.jg(label),
            ConditionCode::None => code.jmp(label),
        }
    }

    /// The piece out of line that a branch leads to until it is linked, and for good where it polls or leaves the page.
    fn link(&mut self, mut link: Link) -> Result<()> {
        self.code.set_label(&mut link.label)?;
        match link.way {
            Way::Out => {
                self.code.lea(r8d, dword_ptr(r13 + link.target as i32))?;
                self.code.jmp(self.jump)
            }
            Way::Forward(site) => self.ask_for_link(site, link.target),
            Way::Backward => self.poll_and_link(link.target),
        }
    }

    fn poll_and_link(&mut self, target: u32) -> Result<()> {
        let mut expired = self.code.create_label();
        let mut unlinked = self.code.create_label();
        let site = self.site(target);
        poll(&mut self.code, expired)?;
        self.code.jmp(unlinked)?;
        self.mark_site(site)?;
        self.code.set_label(&mut unlinked)?;
        self.ask_for_link(site, target)?;
        self.code.set_label(&mut expired)?;
        self.code.mov(rcx, r11)?;
        self.code.lea(r8d, dword_ptr(r13 + target as i32))?;
        leave(&mut self.code, Reason::Budget, self.exit)
    }

    fn ask_for_link(&mut self, site: u32, target: u32) -> Result<()> {
        self.code.mov(dword_ptr(r15 + offset::SITE), site as i32)?;
        self.code.lea(r8d, dword_ptr(r13 + target as i32))?;
        leave(&mut self.code, Reason::Link, self.exit)
    }
}
