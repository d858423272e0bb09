//! The instruction table: one row per instruction, which names its handler.
//!
//! `by_width!` picks the instance for the width of operand 0 (or another), `by_operand_size!` for the operand size of an
//! instruction whose operands do not show it (stack, branches, far transfers).

use super::alu::{self, Adc, Add, And, Or, Sbb, Sub, Xor};
use super::bits::{self, Complement, Reset, Set, Test};
use super::exec::Handler;
use super::{
    bcd, branch, data, far, flags, fpu, interrupt, io, iret, muldiv, segcheck, segload, shift,
    stack, string, syscall, sysenter, sysseg, system,
};
use crate::decode::decoder::is_absolute;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// The width in bits of operand `index`.
fn operand_bits(raw: &Instruction, index: u32) -> usize {
    let bytes = match raw.op_kind(index) {
        OpKind::Register => raw.op_register(index).size(),
        _ => raw.memory_size().size(),
    };
    bytes * 8
}

/// Whether the branch or call goes through a register or memory.
fn is_indirect(raw: &Instruction) -> bool {
    matches!(raw.op0_kind(), OpKind::Register | OpKind::Memory)
}

/// Whether the operand is a far pointer, immediate or in memory.
fn is_far(raw: &Instruction) -> bool {
    matches!(raw.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32)
        || matches!(
            raw.code(),
            Code::Call_m1616
                | Code::Call_m1632
                | Code::Call_m1664
                | Code::Jmp_m1616
                | Code::Jmp_m1632
                | Code::Jmp_m1664
        )
}

/// The handler of a decoded instruction; `None` if the processor does not have it.
pub fn handler(raw: &Instruction) -> Option<Handler> {
    fpu::handler(raw).or_else(|| integer_handler(raw))
}

fn integer_handler(raw: &Instruction) -> Option<Handler> {
    macro_rules! by_width {
        ($module:ident :: $handler:ident) => {
            by_width!($module::$handler, 0)
        };
        ($module:ident :: $handler:ident, $operand:expr) => {
            match operand_bits(raw, $operand) {
                8 => $module::$handler::<u8> as Handler,
                16 => $module::$handler::<u16>,
                32 => $module::$handler::<u32>,
                64 => $module::$handler::<u64>,
                _ => return None,
            }
        };
    }
    macro_rules! by_width_of {
        ($module:ident :: $handler:ident, $op:ident) => {
            match operand_bits(raw, 0) {
                8 => $module::$handler::<$op, u8> as Handler,
                16 => $module::$handler::<$op, u16>,
                32 => $module::$handler::<$op, u32>,
                64 => $module::$handler::<$op, u64>,
                _ => return None,
            }
        };
    }
    macro_rules! by_operand_size {
        ($module:ident :: $handler:ident) => {
            match raw.op_code().operand_size() {
                16 => $module::$handler::<u16> as Handler,
                32 => $module::$handler::<u32>,
                64 => $module::$handler::<u64>,
                _ => return None,
            }
        };
    }
    macro_rules! extension {
        ($module:ident :: $handler:ident) => {
            match (operand_bits(raw, 0), operand_bits(raw, 1)) {
                (16, 8) => $module::$handler::<u16, u8> as Handler,
                (32, 8) => $module::$handler::<u32, u8>,
                (16, 16) => $module::$handler::<u16, u16>,
                (32, 16) => $module::$handler::<u32, u16>,
                (64, 8) => $module::$handler::<u64, u8>,
                (64, 16) => $module::$handler::<u64, u16>,
                (16, 32) => $module::$handler::<u16, u32>,
                (32, 32) => $module::$handler::<u32, u32>,
                (64, 32) => $module::$handler::<u64, u32>,
                _ => return None,
            }
        };
    }

    let moves_sreg = |index| {
        raw.op_kind(index) == OpKind::Register && raw.op_register(index).is_segment_register()
    };
    let moves = |register: fn(Register) -> bool, index| {
        raw.op_kind(index) == OpKind::Register && register(raw.op_register(index))
    };

    Some(match raw.mnemonic() {
        // Data transfer.
        Mnemonic::Mov if moves_sreg(0) => segload::mov_to_sreg,
        Mnemonic::Mov if moves_sreg(1) => by_operand_size!(segload::mov_from_sreg),
        Mnemonic::Mov if moves(Register::is_cr, 0) => by_width!(system::mov_to_cr, 1),
        Mnemonic::Mov if moves(Register::is_cr, 1) => by_width!(system::mov_from_cr),
        Mnemonic::Mov if moves(Register::is_dr, 0) => by_width!(system::mov_to_dr, 1),
        Mnemonic::Mov if moves(Register::is_dr, 1) => by_width!(system::mov_from_dr),
        Mnemonic::Mov if moves(Register::is_tr, 0) || moves(Register::is_tr, 1) => return None,
        Mnemonic::Mov if raw.op1_kind() == OpKind::Immediate64 => data::mov_immediate64,
        Mnemonic::Mov if is_absolute(raw) && raw.op0_kind() == OpKind::Memory => {
            by_width!(data::mov_store_absolute)
        }
        Mnemonic::Mov if is_absolute(raw) => by_width!(data::mov_load_absolute),
        Mnemonic::Mov if raw.op0_kind() == OpKind::Memory => by_width!(data::mov_store),
        Mnemonic::Mov if raw.op1_kind() == OpKind::Memory => by_width!(data::mov_load),
        Mnemonic::Mov => by_width!(data::mov),
        Mnemonic::Movzx => extension!(data::movzx),
        Mnemonic::Movsx | Mnemonic::Movsxd => extension!(data::movsx),
        Mnemonic::Xchg => by_width!(data::xchg),
        Mnemonic::Lea => by_width!(data::lea),
        Mnemonic::Xlatb => data::xlat,
        Mnemonic::Salc => data::salc,
        Mnemonic::Cmova
        | Mnemonic::Cmovae
        | Mnemonic::Cmovb
        | Mnemonic::Cmovbe
        | Mnemonic::Cmove
        | Mnemonic::Cmovg
        | Mnemonic::Cmovge
        | Mnemonic::Cmovl
        | Mnemonic::Cmovle
        | Mnemonic::Cmovne
        | Mnemonic::Cmovno
        | Mnemonic::Cmovnp
        | Mnemonic::Cmovns
        | Mnemonic::Cmovo
        | Mnemonic::Cmovp
        | Mnemonic::Cmovs => by_width!(data::cmov),
        Mnemonic::Seta
        | Mnemonic::Setae
        | Mnemonic::Setb
        | Mnemonic::Setbe
        | Mnemonic::Sete
        | Mnemonic::Setg
        | Mnemonic::Setge
        | Mnemonic::Setl
        | Mnemonic::Setle
        | Mnemonic::Setne
        | Mnemonic::Setno
        | Mnemonic::Setnp
        | Mnemonic::Setns
        | Mnemonic::Seto
        | Mnemonic::Setp
        | Mnemonic::Sets => data::setcc,
        Mnemonic::Bound => by_width!(data::bound),
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Reservednop => data::nop,
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 | Mnemonic::Rsm => data::undefined,

        // Arithmetic and logic.
        Mnemonic::Add => by_width_of!(alu::binary, Add),
        Mnemonic::Adc => by_width_of!(alu::binary, Adc),
        Mnemonic::Sub => by_width_of!(alu::binary, Sub),
        Mnemonic::Sbb => by_width_of!(alu::binary, Sbb),
        Mnemonic::And => by_width_of!(alu::binary, And),
        Mnemonic::Or => by_width_of!(alu::binary, Or),
        Mnemonic::Xor => by_width_of!(alu::binary, Xor),
        Mnemonic::Cmp => by_width_of!(alu::compare, Sub),
        Mnemonic::Test => by_width_of!(alu::compare, And),
        Mnemonic::Inc => by_width!(alu::inc),
        Mnemonic::Dec => by_width!(alu::dec),
        Mnemonic::Neg => by_width!(alu::neg),
        Mnemonic::Not => by_width!(alu::not),
        Mnemonic::Xadd => by_width!(alu::xadd),
        Mnemonic::Cmpxchg => by_width!(alu::cmpxchg),
        Mnemonic::Cmpxchg8b => alu::cmpxchg8b,
        Mnemonic::Cmpxchg16b => alu::cmpxchg16b,
        Mnemonic::Mul => by_width!(muldiv::mul),
        Mnemonic::Imul => match raw.op_count() {
            1 => by_width!(muldiv::imul1),
            2 => by_width!(muldiv::imul2),
            _ => by_width!(muldiv::imul3),
        },
        Mnemonic::Div => by_width!(muldiv::div),
        Mnemonic::Idiv => by_width!(muldiv::idiv),
        Mnemonic::Cbw => muldiv::cbw,
        Mnemonic::Cwde => muldiv::cwde,
        Mnemonic::Cwd => muldiv::sign_to_edx::<u16>,
        Mnemonic::Cdqe => muldiv::cdqe,
        Mnemonic::Cdq => muldiv::sign_to_edx::<u32>,
        Mnemonic::Cqo => muldiv::sign_to_edx::<u64>,
        Mnemonic::Daa => bcd::daa,
        Mnemonic::Das => bcd::das,
        Mnemonic::Aaa => bcd::aaa,
        Mnemonic::Aas => bcd::aas,
        Mnemonic::Aam => bcd::aam,
        Mnemonic::Aad => bcd::aad,

        // Shifts and bits.
        Mnemonic::Shl | Mnemonic::Sal => by_width!(shift::do_shl),
        Mnemonic::Shr => by_width!(shift::do_shr),
        Mnemonic::Sar => by_width!(shift::do_sar),
        Mnemonic::Rol => by_width!(shift::do_rol),
        Mnemonic::Ror => by_width!(shift::do_ror),
        Mnemonic::Rcl => by_width!(shift::do_rcl),
        Mnemonic::Rcr => by_width!(shift::do_rcr),
        Mnemonic::Shld => by_width!(shift::shld),
        Mnemonic::Shrd => by_width!(shift::shrd),
        Mnemonic::Bt => by_width_of!(bits::bit_test, Test),
        Mnemonic::Bts => by_width_of!(bits::bit_test, Set),
        Mnemonic::Btr => by_width_of!(bits::bit_test, Reset),
        Mnemonic::Btc => by_width_of!(bits::bit_test, Complement),
        Mnemonic::Bsf => by_width!(bits::bsf),
        Mnemonic::Bsr => by_width!(bits::bsr),
        Mnemonic::Popcnt => by_width!(bits::popcnt),
        Mnemonic::Crc32 => by_width!(bits::crc32, 1),
        Mnemonic::Bswap if operand_bits(raw, 0) == 16 => bits::bswap16,
        Mnemonic::Bswap if operand_bits(raw, 0) == 64 => bits::bswap64,
        Mnemonic::Bswap => bits::bswap32,

        // Flags.
        Mnemonic::Clc => flags::clc,
        Mnemonic::Stc => flags::stc,
        Mnemonic::Cmc => flags::cmc,
        Mnemonic::Cld => flags::cld,
        Mnemonic::Std => flags::std,
        Mnemonic::Cli => flags::cli,
        Mnemonic::Sti => flags::sti,
        Mnemonic::Sahf => flags::sahf,
        Mnemonic::Lahf => flags::lahf,
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => by_operand_size!(flags::pushf),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => by_operand_size!(flags::popf),

        // Stack.
        Mnemonic::Push if moves_sreg(0) => by_operand_size!(segload::push_sreg),
        Mnemonic::Pop if moves_sreg(0) => by_operand_size!(segload::pop_sreg),
        Mnemonic::Push => by_operand_size!(stack::push),
        Mnemonic::Pop => by_operand_size!(stack::pop),
        Mnemonic::Pusha | Mnemonic::Pushad => by_operand_size!(stack::pusha),
        Mnemonic::Popa | Mnemonic::Popad => by_operand_size!(stack::popa),
        Mnemonic::Enter => by_operand_size!(stack::enter),
        Mnemonic::Leave => by_operand_size!(stack::leave),

        // Near control transfer.
        Mnemonic::Jmp if is_far(raw) && is_indirect(raw) => by_operand_size!(far::jmp_far_mem),
        Mnemonic::Jmp if is_far(raw) => by_operand_size!(far::jmp_far_imm),
        Mnemonic::Jmp if is_indirect(raw) => by_operand_size!(branch::jmp_indirect),
        Mnemonic::Jmp => by_operand_size!(branch::jmp),
        Mnemonic::Call if is_far(raw) && is_indirect(raw) => by_operand_size!(far::call_far_mem),
        Mnemonic::Call if is_far(raw) => by_operand_size!(far::call_far_imm),
        Mnemonic::Call if is_indirect(raw) => by_operand_size!(branch::call_indirect),
        Mnemonic::Call => by_operand_size!(branch::call),
        Mnemonic::Ret => by_operand_size!(branch::ret),
        Mnemonic::Retf => by_operand_size!(far::ret_far),
        Mnemonic::Ja
        | Mnemonic::Jae
        | Mnemonic::Jb
        | Mnemonic::Jbe
        | Mnemonic::Je
        | Mnemonic::Jg
        | Mnemonic::Jge
        | Mnemonic::Jl
        | Mnemonic::Jle
        | Mnemonic::Jne
        | Mnemonic::Jno
        | Mnemonic::Jnp
        | Mnemonic::Jns
        | Mnemonic::Jo
        | Mnemonic::Jp
        | Mnemonic::Js => by_operand_size!(branch::jcc),
        Mnemonic::Jcxz | Mnemonic::Jecxz | Mnemonic::Jrcxz => by_operand_size!(branch::jcxz),
        Mnemonic::Loop => by_operand_size!(branch::loop_always),
        Mnemonic::Loope => by_operand_size!(branch::loop_equal),
        Mnemonic::Loopne => by_operand_size!(branch::loop_not_equal),

        // Interrupts and system calls.
        Mnemonic::Int => interrupt::int_n,
        Mnemonic::Int1 => interrupt::int1,
        Mnemonic::Int3 => interrupt::int3,
        Mnemonic::Into => interrupt::into,
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => by_operand_size!(iret::iret),
        Mnemonic::Sysenter => sysenter::sysenter,
        Mnemonic::Sysexitq => sysenter::sysexit64,
        Mnemonic::Sysexit => sysenter::sysexit,
        Mnemonic::Syscall => syscall::syscall,
        Mnemonic::Sysretq => syscall::sysret64,
        Mnemonic::Sysret => syscall::sysret32,
        Mnemonic::Swapgs => syscall::swapgs,

        // Strings and ports.
        Mnemonic::Movsb => string::movs::<u8>,
        Mnemonic::Movsw => string::movs::<u16>,
        Mnemonic::Movsd => string::movs::<u32>,
        Mnemonic::Movsq => string::movs::<u64>,
        Mnemonic::Cmpsb => string::cmps::<u8>,
        Mnemonic::Cmpsw => string::cmps::<u16>,
        Mnemonic::Cmpsd => string::cmps::<u32>,
        Mnemonic::Cmpsq => string::cmps::<u64>,
        Mnemonic::Stosb => string::stos::<u8>,
        Mnemonic::Stosw => string::stos::<u16>,
        Mnemonic::Stosd => string::stos::<u32>,
        Mnemonic::Stosq => string::stos::<u64>,
        Mnemonic::Lodsb => string::lods::<u8>,
        Mnemonic::Lodsw => string::lods::<u16>,
        Mnemonic::Lodsd => string::lods::<u32>,
        Mnemonic::Lodsq => string::lods::<u64>,
        Mnemonic::Scasb => string::scas::<u8>,
        Mnemonic::Scasw => string::scas::<u16>,
        Mnemonic::Scasd => string::scas::<u32>,
        Mnemonic::Scasq => string::scas::<u64>,
        Mnemonic::Insb => string::ins::<u8>,
        Mnemonic::Insw => string::ins::<u16>,
        Mnemonic::Insd => string::ins::<u32>,
        Mnemonic::Outsb => string::outs::<u8>,
        Mnemonic::Outsw => string::outs::<u16>,
        Mnemonic::Outsd => string::outs::<u32>,
        Mnemonic::In => by_width!(io::port_in),
        Mnemonic::Out => by_width!(io::port_out, 1),

        // Segmentation.
        Mnemonic::Lds => by_width!(segload::lds),
        Mnemonic::Les => by_width!(segload::les),
        Mnemonic::Lss => by_width!(segload::lss),
        Mnemonic::Lfs => by_width!(segload::lfs),
        Mnemonic::Lgs => by_width!(segload::lgs),
        Mnemonic::Lldt => sysseg::lldt,
        Mnemonic::Ltr => sysseg::ltr,
        Mnemonic::Sldt => by_operand_size!(sysseg::sldt),
        Mnemonic::Str => by_operand_size!(sysseg::str),
        Mnemonic::Lar => by_width!(segcheck::lar),
        Mnemonic::Lsl => by_width!(segcheck::lsl),
        Mnemonic::Verr => segcheck::verr,
        Mnemonic::Verw => segcheck::verw,
        Mnemonic::Arpl => segcheck::arpl,

        // System.
        Mnemonic::Lgdt if raw.code() == Code::Lgdt_m1664 => system::lgdt::<u64>,
        Mnemonic::Lgdt => by_operand_size!(system::lgdt),
        Mnemonic::Lidt if raw.code() == Code::Lidt_m1664 => system::lidt::<u64>,
        Mnemonic::Lidt => by_operand_size!(system::lidt),
        Mnemonic::Sgdt => system::sgdt,
        Mnemonic::Sidt => system::sidt,
        Mnemonic::Lmsw => system::lmsw,
        Mnemonic::Smsw => by_operand_size!(system::smsw),
        Mnemonic::Clts => system::clts,
        Mnemonic::Hlt => system::hlt,
        Mnemonic::Cpuid => system::cpuid,
        Mnemonic::Rdtsc => system::rdtsc,
        Mnemonic::Rdpmc => system::rdpmc,
        Mnemonic::Rdmsr => system::rdmsr,
        Mnemonic::Wrmsr => system::wrmsr,
        Mnemonic::Invlpg => system::invlpg,
        Mnemonic::Invd | Mnemonic::Wbinvd => system::invd,
        _ => return None,
    })
}
