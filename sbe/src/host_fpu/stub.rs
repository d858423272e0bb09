//! [`Stub`]: one guest instruction, re-encoded so that the host can execute it in 64-bit mode.
//!
//! ```text
//!   guest  66 67 0f 6e 44 24     movd xmm0, [si+0x24]
//!   stub   66 0f 6e 07  c3       movd xmm0, [rdi]; ret
//! ```
//!
//! A stub is built from the decoded instruction and never from guest bytes: registers of the x87, MMX and SSE units keep
//! their names, a memory operand becomes `[rdi]`, a general register becomes EAX or RAX. What the encoder made is decoded again
//! and must satisfy [`is_contained`]; so a `Stub` can read and write the FPU, RAX, RCX, the status flags and at most 16
//! bytes at RDI, and read RDX, whatever the guest asked for. One of class [`Class::Sse`] leaves an empty x87 stack empty.

use super::frame::OPERAND_BYTES;
use super::precision::Rounding;
use iced_x86::{
    Code, CodeSize, CpuidFeature, Decoder, DecoderOptions, Encoder, FlowControl, Instruction,
    InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpCodeOperandKind, OpKind,
    Register, RflagsBits,
};

/// Number of bytes that a stub has, its RET included.
pub const STUB_BYTES: usize = 16;
/// The status flags as iced-x86 numbers them; it counts the x87 condition codes among the flags.
const STATUS_FLAGS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;
/// RET.
const RET: u8 = 0xc3;
/// EMMS.
const EMMS: [u8; 2] = [0x0f, 0x77];

/// The unit that an instruction belongs to, which decides what is checked before it executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// x87 floating point.
    X87,
    /// MMX registers only, the MMX instructions of SSE, SSE2 and SSSE3 included.
    Mmx,
    /// XMM registers only.
    Sse,
    /// Converts or moves between MMX and XMM registers.
    SseMmx,
}

impl Class {
    /// Whether instructions of this class use the x87 register stack (of which the MMX registers are a part).
    pub fn uses_stack(self) -> bool {
        self != Self::Sse
    }

    /// The class of `raw`, if it is an instruction a stub may be made of.
    pub fn of(raw: &Instruction) -> Option<Self> {
        let mut x87 = false;
        let mut simd = false;
        for feature in raw.cpuid_features() {
            match feature {
                CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 => x87 = true,
                // It works on general registers.
                CpuidFeature::SSE4_2 if raw.mnemonic() == Mnemonic::Crc32 => return None,
                CpuidFeature::MMX
                | CpuidFeature::SSE
                | CpuidFeature::SSE2
                | CpuidFeature::SSE3
                | CpuidFeature::SSSE3
                | CpuidFeature::SSE4_1
                | CpuidFeature::SSE4_2 => simd = true,
                CpuidFeature::CMOV => {}
                _ => return None,
            }
        }
        // A memory operand of MMX size is no reason to touch the MMX registers: CVTPI2PS xmm, m64 is an SSE instruction.
        let mut mmx = false;
        let mut xmm = false;
        for (op, kind) in (0..).zip(raw.op_code().op_kinds()) {
            match kind {
                OpCodeOperandKind::mm_reg | OpCodeOperandKind::mm_rm => mmx = true,
                OpCodeOperandKind::mm_or_mem => mmx |= raw.op_kind(op) == OpKind::Register,
                OpCodeOperandKind::xmm_reg
                | OpCodeOperandKind::xmm_rm
                | OpCodeOperandKind::xmm_or_mem => xmm = true,
                _ => {}
            }
        }
        match (x87, simd) {
            // FISTTP belongs to SSE3.
            (true, _) => Some(Self::X87),
            (false, true) if !xmm => Some(Self::Mmx),
            (false, true) if mmx => Some(Self::SseMmx),
            (false, true) => Some(Self::Sse),
            (false, false) => None,
        }
    }
}

/// The use that an instruction makes of its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUse {
    /// The instruction has no memory operand.
    None,
    /// Reads this many bytes.
    Read(u8),
    /// Writes this many bytes.
    Write(u8),
}

/// Alignment that a memory operand must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Any alignment; only alignment checking (EFLAGS.AC) cares.
    Any,
    /// 16 bytes, or #GP(0) (SDM Vol. 1, 4.1.1 "Alignment of Words, Doublewords, Quadwords, and Double Quadwords").
    Paragraph,
}

/// The use that an instruction makes of general registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneralUse {
    /// The instruction names no general register.
    None,
    /// Reads the operand with this number.
    Read(u8),
    /// Writes the operand with this number.
    Write(u8),
    /// Names none, but may read lengths in EAX and EDX, or RAX and RDX, and write an index to ECX: a string comparison of SSE4.2.
    Strings,
}

/// Whether an instruction sets the status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagsUse {
    /// Leaves them; it may read them.
    Keep,
    /// Sets them: FCOMI, COMISS, PTEST and their like.
    Write,
}

/// The facts about an instruction that the emulator needs to feed its stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The unit that the instruction belongs to.
    pub class: Class,
    /// The use of its memory operand.
    pub memory: MemoryUse,
    /// The alignment of its memory operand.
    pub alignment: Alignment,
    /// The use of its general register.
    pub general: GeneralUse,
    /// The use of the status flags.
    pub flags: FlagsUse,
    /// The rounding of its results, if they can overflow or underflow (SSE to SSE4.1).
    pub rounding: Option<Rounding>,
    /// Whether it names one of XMM8 to XMM15.
    pub names_upper_xmm: bool,
}

/// The reason why an instruction got no stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StubError {
    /// The instruction is not of the x87, MMX or SSE sets up to SSE4.2, or has an operand of a kind that stubs do not have.
    #[error("not an instruction for the host's FPU")]
    NotFpu,
    /// The encoder refused the instruction.
    #[error("cannot be encoded for the host")]
    Encoding,
    /// The re-encoded instruction would do more than a stub may.
    #[error("reaches beyond the FPU and its operand")]
    Uncontained,
}

/// Host code that executes one instruction and returns. See the module's description for what it can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    code: [u8; STUB_BYTES],
    facts: Facts,
}

impl Stub {
    /// Makes the stub of `raw`.
    ///
    /// # Errors
    /// See [`StubError`].
    pub fn new(raw: &Instruction) -> Result<Self, StubError> {
        let class = Class::of(raw).ok_or(StubError::NotFpu)?;
        let host = with_host_operands(raw)?;
        let mut encoder = Encoder::new(64);
        let len = encoder.encode(&host, 0).map_err(|_| StubError::Encoding)?;
        let mut bytes = encoder.take_buffer();
        let made = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(&made);
        if made.code() != raw.code() || made.len() != len || !is_contained(&made, info) {
            return Err(StubError::Uncontained);
        }
        if class == Class::Sse && may_switch_to_mmx(&made) {
            bytes.extend(EMMS);
        }
        bytes.push(RET);
        let mut code = [0; STUB_BYTES];
        code.get_mut(..bytes.len())
            .ok_or(StubError::Encoding)?
            .copy_from_slice(&bytes);
        Ok(Self {
            code,
            facts: facts(class, &made, info),
        })
    }

    /// The code, padded with zeros behind its RET.
    pub fn code(&self) -> &[u8; STUB_BYTES] {
        &self.code
    }

    /// The facts about the instruction.
    pub fn facts(&self) -> Facts {
        self.facts
    }
}

/// `raw` with the operands of a stub.
fn with_host_operands(raw: &Instruction) -> Result<Instruction, StubError> {
    let mut host = *raw;
    for op in 0..raw.op_count() {
        match raw.op_kind(op) {
            OpKind::Register if raw.op_register(op).is_gpr32() => {
                host.set_op_register(op, Register::EAX)
            }
            OpKind::Register if raw.op_register(op).is_gpr64() => {
                host.set_op_register(op, Register::RAX)
            }
            OpKind::Register | OpKind::Immediate8 => {}
            OpKind::Memory => {
                host.set_memory_base(Register::RDI);
                host.set_memory_index(Register::None);
                host.set_memory_index_scale(1);
                host.set_memory_displacement64(0);
                host.set_memory_displ_size(0);
            }
            _ => return Err(StubError::NotFpu),
        }
    }
    host.set_segment_prefix(Register::None);
    host.set_has_rep_prefix(false);
    host.set_has_repne_prefix(false);
    host.set_code_size(CodeSize::Code64);
    Ok(host)
}

/// Whether the instruction only touches the FPU, RAX, RCX, the status flags and memory at `[rdi]`, and only reads RDX.
fn is_contained(made: &Instruction, info: &InstructionInfo) -> bool {
    let plain = made.flow_control() == FlowControl::Next
        && !made.is_privileged()
        && !made.is_stack_instruction()
        && made.segment_prefix() == Register::None
        && !made.is_save_restore_instruction();
    let registers = info.used_registers().iter().all(|used| {
        let register = used.register();
        let unit = register.is_st() || register.is_mm() || register.is_xmm();
        let general = match register.full_register() {
            Register::RAX | Register::RCX => true,
            Register::RDX | Register::RDI => used.access() == OpAccess::Read,
            _ => false,
        };
        unit || general
    });
    let memory = info.used_memory().iter().all(|used| {
        used.base() == Register::RDI
            && used.index() == Register::None
            && used.displacement() == 0
            && matches!(used.memory_size().size(), 1..=OPERAND_BYTES)
    });
    let operands = (0..made.op_count()).all(|op| {
        matches!(
            made.op_kind(op),
            OpKind::Register | OpKind::Immediate8 | OpKind::Memory
        )
    });
    plain && registers && memory && operands
}

/// Whether some processors switch the register file to MMX for it, even with a memory operand (SDM Vol. 2A, "CVTPI2PS").
fn may_switch_to_mmx(made: &Instruction) -> bool {
    matches!(
        made.code(),
        Code::Cvtpi2ps_xmm_mmm64 | Code::Cvtpi2pd_xmm_mmm64
    )
}

fn facts(class: Class, made: &Instruction, info: &InstructionInfo) -> Facts {
    let bytes = made.memory_size().size() as u8;
    let mut facts = Facts {
        class,
        memory: MemoryUse::None,
        alignment: Alignment::Any,
        general: match compares_strings(made) {
            true => GeneralUse::Strings,
            false => GeneralUse::None,
        },
        flags: if made.rflags_modified() & STATUS_FLAGS == 0 {
            FlagsUse::Keep
        } else {
            FlagsUse::Write
        },
        rounding: Rounding::of(made),
        names_upper_xmm: names_upper_xmm(made),
    };
    for op in 0..made.op_count() {
        let writes = info.op_access(op) != OpAccess::Read;
        match made.op_kind(op) {
            OpKind::Memory if writes => facts.memory = MemoryUse::Write(bytes),
            OpKind::Memory => facts.memory = MemoryUse::Read(bytes),
            OpKind::Register if is_general(made.op_register(op)) => {
                facts.general = if writes {
                    GeneralUse::Write(op as u8)
                } else {
                    GeneralUse::Read(op as u8)
                };
            }
            _ => {}
        }
    }
    if facts.memory != MemoryUse::None
        && usize::from(bytes) == OPERAND_BYTES
        && !allows_misalignment(made)
    {
        facts.alignment = Alignment::Paragraph;
    }
    facts
}

/// Whether it is one of the string comparisons of SSE4.2.
fn compares_strings(raw: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        raw.mnemonic(),
        Pcmpestrm | Pcmpestrm64 | Pcmpestri | Pcmpestri64 | Pcmpistrm | Pcmpistri
    )
}

fn is_general(register: Register) -> bool {
    register.is_gpr32() || register.is_gpr64()
}

/// Whether the instruction names one of XMM8 to XMM15.
fn names_upper_xmm(made: &Instruction) -> bool {
    (0..made.op_count()).any(|op| {
        let register = match made.op_kind(op) {
            OpKind::Register => made.op_register(op),
            _ => Register::None,
        };
        register.is_xmm() && register.number() >= 8
    })
}

/// Whether an operand of 16 bytes may be misaligned: that of the moves that exist for it, and of string comparisons.
pub fn allows_misalignment(raw: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(raw.mnemonic(), Movups | Movupd | Movdqu | Lddqu) || compares_strings(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulate::fpu::is_host_executed;
    use iced_x86::EncodingKind;

    fn stub32(bytes: &[u8]) -> Result<Stub, StubError> {
        Stub::new(&Decoder::new(32, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn memory_and_general_registers_are_replaced() {
        // movd xmm0, gs:[esp+ecx*4+8]
        let stub = stub32(&[0x65, 0x66, 0x0f, 0x6e, 0x44, 0x8c, 0x08]).expect("SSE2");
        assert_eq!(stub.code()[..5], [0x66, 0x0f, 0x6e, 0x07, RET]);
        assert_eq!(stub.facts().memory, MemoryUse::Read(4));
        // cvttsd2si ebp, xmm3
        let stub = stub32(&[0xf2, 0x0f, 0x2c, 0xeb]).expect("SSE2");
        assert_eq!(stub.code()[..5], [0xf2, 0x0f, 0x2c, 0xc3, RET]);
        assert_eq!(stub.facts().general, GeneralUse::Write(0));
    }

    #[test]
    fn a_stub_of_the_sse_class_leaves_no_mmx_state() {
        // cvtpi2ps xmm1, [eax]
        let stub = stub32(&[0x0f, 0x2a, 0x08]).expect("SSE");
        assert_eq!(stub.facts().class, Class::Sse);
        assert_eq!(stub.code()[..6], [0x0f, 0x2a, 0x0f, 0x0f, 0x77, RET]);
        // cvtpi2ps xmm1, mm0
        let stub = stub32(&[0x0f, 0x2a, 0xc8]).expect("SSE");
        assert_eq!(stub.facts().class, Class::SseMmx);
        assert_eq!(stub.code()[..4], [0x0f, 0x2a, 0xc8, RET]);
    }

    #[test]
    fn alignment_is_asked_of_16_byte_operands_but_unaligned_moves() {
        let alignment = |bytes: &[u8]| stub32(bytes).expect("SSE").facts().alignment;
        assert_eq!(
            alignment(&[0x0f, 0x28, 0x00]),
            Alignment::Paragraph,
            "movaps"
        );
        assert_eq!(alignment(&[0x0f, 0x10, 0x00]), Alignment::Any, "movups");
        assert_eq!(
            alignment(&[0xf3, 0x0f, 0x58, 0x00]),
            Alignment::Any,
            "addss"
        );
    }

    /// Every x87 opcode, and every opcode of the two-byte map under every mandatory prefix, with every ModR/M byte; and those of the
    /// three-byte maps, in which ModR/M bytes choose no instruction, with a memory and a register operand.
    fn encodings() -> impl Iterator<Item = Vec<u8>> {
        let x87 = (0xd8..=0xdf).map(|opcode| vec![opcode]);
        let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf2], &[0xf3]];
        let simd = prefixes
            .into_iter()
            .flat_map(|prefix| (0..=0xff).map(move |opcode| [prefix, &[0x0f, opcode]].concat()));
        let longer = prefixes.into_iter().flat_map(|prefix| {
            [0x38, 0x3a].into_iter().flat_map(move |map| {
                (0..=0xff).map(move |opcode| [prefix, &[0x0f, map, opcode]].concat())
            })
        });
        let with = |opcode: &[u8], modrm: u8| [opcode, &[modrm; 8]].concat();
        let all = x87
            .chain(simd)
            .flat_map(move |opcode| (0..=0xff).map(move |modrm| with(&opcode, modrm)));
        all.chain(longer.flat_map(move |opcode| [0x00, 0xc1].map(|modrm| with(&opcode, modrm))))
    }

    #[test]
    fn every_instruction_for_the_host_has_a_contained_stub() {
        let mut made = std::collections::BTreeSet::new();
        for bytes in encodings() {
            for bits in [16, 32] {
                let raw = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
                if is_host_executed(&raw) {
                    let stub = Stub::new(&raw);
                    assert!(stub.is_ok(), "{:?} {bytes:02X?}: {stub:?}", raw.code());
                    if let Ok(MemoryUse::Read(bytes) | MemoryUse::Write(bytes)) =
                        stub.map(|stub| stub.facts().memory)
                    {
                        assert!(matches!(bytes, 1 | 2 | 4 | 8 | 10 | 16), "{:?}", raw.code());
                    }
                    made.insert(raw.code());
                }
            }
        }
        let known = Code::values().filter(|code| {
            let opcode = code.op_code();
            let mut raw = Instruction::default();
            raw.set_code(*code);
            let is_fwait = opcode.fwait();
            opcode.mode32()
                && opcode.encoding() == EncodingKind::Legacy
                && !is_fwait
                && is_host_executed(&raw)
        });
        assert_eq!(
            known
                .filter(|code| !made.contains(code))
                .collect::<Vec<_>>(),
            []
        );
    }

    #[test]
    fn integer_system_and_state_instructions_get_no_stub() {
        for bytes in [
            &[0x0f, 0x05][..],               // syscall
            &[0x89, 0x00],                   // mov [eax], eax
            &[0xc3],                         // ret
            &[0x0f, 0x01, 0xd0],             // xgetbv
            &[0x0f, 0xae, 0x00],             // fxsave [eax]
            &[0x0f, 0xc7, 0x08],             // cmpxchg8b [eax]
            &[0x0f, 0xf7, 0xc1],             // maskmovq mm0, mm1
            &[0xdd, 0x30],                   // fnsave [eax]
            &[0x66, 0x0f, 0x38, 0xdc, 0xc0], // aesenc xmm0, xmm0
            &[0xf2, 0x0f, 0x38, 0xf0, 0xc0], // crc32 eax, al
            &[0xf3, 0x0f, 0xb8, 0xc0],       // popcnt eax, eax
            &[0xc5, 0xf8, 0x58, 0xc0],       // vaddps
        ] {
            assert!(stub32(bytes).is_err(), "{bytes:02X?}");
        }
    }
}
