//! Rewriting a guest instruction so that the host's 64-bit mode executes it on the host's registers.
//!
//! Guest ESP lives in R12 and memory operands become [R8 + R9 - 1]; all else keeps its encoding.

use iced_x86::{Code, Instruction, OpKind, Register};

/// What stands in for guest register `register`.
fn host_register(register: Register) -> Register {
    match register {
        Register::ESP => Register::R12D,
        Register::SP => Register::R12W,
        other => other,
    }
}

/// The 64-bit register that holds guest address register `register` zero-extended.
pub fn host_address_register(register: Register) -> Register {
    match register {
        Register::None => Register::None,
        Register::ESP => Register::R12,
        other => other.full_register(),
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

/// The form of the instruction that 64-bit mode has.
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

/// Index of the memory operand.
pub fn memory_operand(raw: &Instruction) -> Option<u32> {
    (0..raw.op_count()).find(|&index| raw.op_kind(index) == OpKind::Memory)
}

/// `raw` with host registers and the memory operand at [R8 + R9 - 1]; `None` when it cannot be encoded: AH..BH do not go
/// together with R8..R15 (SDM Vol. 2A, 2.2.1.2 "More on REX Prefix Fields").
pub fn rewrite(raw: &Instruction) -> Option<Instruction> {
    let mut host = *raw;
    host.set_code(host_code(raw.code()));
    host.set_has_lock_prefix(false);
    // Without meaning for the guest, but F3 0F BC is TZCNT on the host and BSF for the guest.
    host.set_has_rep_prefix(false);
    host.set_has_repne_prefix(false);
    // The assembler numbers its labels in this field.
    host.set_ip(0);
    let (mut high, mut extended) = (false, false);
    for index in 0..raw.op_count() {
        match raw.op_kind(index) {
            OpKind::Register => {
                let register = host_register(raw.op_register(index));
                high |= is_high_byte(register);
                extended |= register != raw.op_register(index);
                host.set_op_register(index, register);
            }
            OpKind::Memory => {
                extended = true;
                point_at_host(&mut host);
            }
            _ => {}
        }
    }
    (!(high && extended)).then_some(host)
}

fn point_at_host(host: &mut Instruction) {
    host.set_segment_prefix(Register::None);
    host.set_memory_base(Register::R8);
    host.set_memory_index(Register::R9);
    host.set_memory_index_scale(1);
    host.set_memory_displacement64(-1i64 as u64);
    host.set_memory_displ_size(1);
}
