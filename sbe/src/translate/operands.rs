//! Rewriting of a guest instruction's operands, so that the host executes it in 64-bit mode on the host's registers.
//!
//! Guest RCX and RSP live in R11 and R12, and what has its place in the context is loaded into scratch registers; a memory operand
//! is the sum of two registers, or lies in the window; everything else keeps its encoding.

use iced_x86::{Code, Instruction, OpKind, Register};
use smallvec::SmallVec;

/// The register that holds guest ECX while an instruction executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// R11, as usual.
    R11,
    /// ECX, for an instruction that cannot do without.
    Ecx,
}

/// A memory operand in its host form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOperand {
    /// Base register.
    pub base: Register,
    /// Index register, or none.
    pub index: Register,
    /// Factor of the index.
    pub scale: u32,
    /// Displacement.
    pub displacement: i32,
    /// Segment prefix, or none.
    pub segment: Register,
}

/// Registers of the guest's that are in scratch registers of the host's, by their 64-bit names: guest's, host's.
pub type Loaded = SmallVec<[(Register, Register); 2]>;

/// The host register that stands in for guest register `register`.
fn host_register(register: Register, counter: Counter, loaded: &Loaded) -> Register {
    if !register.is_gpr() || is_high_byte(register) {
        return register;
    }
    let whole = register.full_register();
    let host = match (whole, counter) {
        (Register::RSP, _) => Register::R12,
        (Register::RCX, Counter::R11) => Register::R11,
        _ => {
            let found = loaded.iter().find(|&&(guest, _)| guest == whole);
            found.map_or(whole, |&(_, host)| host)
        }
    };
    if host == whole {
        return register;
    }
    let first = match register.size() {
        1 => Register::R8L,
        2 => Register::R8W,
        4 => Register::R8D,
        _ => Register::R8,
    };
    first + (host.number() as u32 - 8)
}

/// Whether `register` is AH, CH, DH or BH.
pub fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

/// The form of an instruction that exists in 64-bit mode.
fn host_code(code: Code) -> Code {
    match code {
        Code::Inc_r16 => Code::Inc_rm16,
        Code::Inc_r32 => Code::Inc_rm32,
        Code::Dec_r16 => Code::Dec_rm16,
        Code::Dec_r32 => Code::Dec_rm32,
        Code::Mov_AL_moffs8 => Code::Mov_r8_rm8,
        Code::Mov_AX_moffs16 => Code::Mov_r16_rm16,
        Code::Mov_EAX_moffs32 => Code::Mov_r32_rm32,
        Code::Mov_moffs8_AL => Code::Mov_rm8_r8,
        Code::Mov_moffs16_AX => Code::Mov_rm16_r16,
        Code::Mov_moffs32_EAX => Code::Mov_rm32_r32,
        other => other,
    }
}

/// The index of the memory operand.
pub fn memory_operand(raw: &Instruction) -> Option<u32> {
    (0..raw.op_count()).find(|&index| raw.op_kind(index) == OpKind::Memory)
}

/// The index of the register operand that is AH, CH, DH or BH; of two, the last.
pub fn high_byte_operand(raw: &Instruction) -> Option<u32> {
    (0..raw.op_count()).rev().find(|&index| {
        raw.op_kind(index) == OpKind::Register && is_high_byte(raw.op_register(index))
    })
}

/// Rewrites `raw` to host registers, of which `loaded` hold registers that have none, and the memory operand `operand`; `None` when
/// it cannot be encoded: AH..BH do not go together with R8..R15 (SDM Vol. 2A, 2.2.1.2 "More on REX Prefix Fields"), and CH exists
/// in ECX only.
pub fn rewrite(
    raw: &Instruction,
    counter: Counter,
    loaded: &Loaded,
    operand: Option<HostOperand>,
) -> Option<Instruction> {
    let mut host = *raw;
    host.set_code(host_code(raw.code()));
    // Without meaning for the guest, but F3 0F BC is TZCNT on the host and BSF for the guest.
    host.set_has_rep_prefix(false);
    host.set_has_repne_prefix(false);
    let (mut high, mut extended) = (false, false);
    for index in 0..raw.op_count() {
        match raw.op_kind(index) {
            OpKind::Register => {
                let register = host_register(raw.op_register(index), counter, loaded);
                if register == Register::CH && counter == Counter::R11 {
                    return None;
                }
                high |= is_high_byte(register);
                extended |= is_extended(register);
                host.set_op_register(index, register);
            }
            OpKind::Memory => {
                let operand = operand?;
                extended |= is_extended(operand.base) || is_extended(operand.index);
                point_at(&mut host, operand);
            }
            _ => {}
        }
    }
    (!(high && extended)).then_some(host)
}

/// Whether an operand in `register` takes a REX prefix.
fn is_extended(register: Register) -> bool {
    register.is_gpr() && register.full_register().number() >= 8
        || matches!(
            register,
            Register::SPL | Register::BPL | Register::SIL | Register::DIL
        )
}

/// Sets the memory operand of `host`.
pub fn point_at(host: &mut Instruction, operand: HostOperand) {
    let absolute = operand.base == Register::None;
    host.set_segment_prefix(operand.segment);
    host.set_memory_base(operand.base);
    host.set_memory_index(operand.index);
    host.set_memory_index_scale(operand.scale);
    host.set_memory_displacement64(i64::from(operand.displacement) as u64);
    // As short as fits.
    host.set_memory_displ_size(match absolute {
        true => 4,
        false => u32::from(operand.displacement != 0),
    });
}
