//! The table of instruction forms: which are generated and how, and which are not and why.
//!
//! A form is one `iced_x86::Code`, that is, one row of the manual's opcode tables: `Add_rm32_imm8` and `Add_rm32_imm32`
//! are two. The table covers every form of a mode that has a legacy encoding; VEX, EVEX and XOP belong to no processor that
//! replex announces.

use super::mode::Mode;
use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Mnemonic};
use std::collections::BTreeMap;

/// A way to prepare the operands of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A form of which only the memory operand and the stack need care.
    Plain,
    /// A branch, call or loop with a relative target.
    Relative,
    /// Any other control transfer: indirect, far, returns.
    Transfer,
}

/// The table's entry for one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Generated.
    Generated(Style),
    /// Never generated, with the reason.
    Never(&'static str),
}

/// Whether the announced processor has this feature: below a 32-bit kernel a Pentium 4 with SSE2, below a 64-bit one a processor with
/// x86-64-v2. With 64-bit mode come CMPXCHG16B and SWAPGS.
fn announced(feature: CpuidFeature, mode: Mode) -> bool {
    let of_64 = matches!(feature, CpuidFeature::X64 | CpuidFeature::CMPXCHG16B);
    announced_32(feature)
        || mode.is_64() && of_64
        || mode != Mode::Protected && announced_v2(feature)
}

/// Whether x86-64-v2 adds this feature to the x86-64 baseline.
fn announced_v2(feature: CpuidFeature) -> bool {
    use CpuidFeature::{POPCNT, SSE3, SSE4_1, SSE4_2, SSSE3};
    matches!(feature, SSE3 | SSSE3 | SSE4_1 | SSE4_2 | POPCNT)
}

/// Whether x86-64-v2 adds this form to the x86-64 baseline.
pub fn is_of_v2(code: Code) -> bool {
    code.cpuid_features()
        .iter()
        .any(|&feature| announced_v2(feature))
}

fn announced_32(feature: CpuidFeature) -> bool {
    use CpuidFeature::{
        CLFSH, CMOV, CPUID, CX8, FPU, FPU287, FPU387, FXSR, INTEL186, INTEL286, INTEL386, INTEL486,
        INTEL8086, MMX, MSR, MULTIBYTENOP, PAUSE, RDPMC, SEP, SMM, SSE, SSE2, TSC,
    };
    matches!(
        feature,
        CLFSH
            | CMOV
            | CPUID
            | CX8
            | FPU
            | FPU287
            | FPU387
            | FXSR
            | INTEL186
            | INTEL286
            | INTEL386
            | INTEL486
            | INTEL8086
            | MMX
            | MSR
            | MULTIBYTENOP
            | PAUSE
            | RDPMC
            | SEP
            | SMM
            | SSE
            | SSE2
            | TSC
    )
}

/// Returns the reason why a form of an announced feature cannot be compared with the host, if there is one.
fn reason_against(code: Code) -> Option<&'static str> {
    match code.mnemonic() {
        Mnemonic::Cpuid => Some("answers differ by design: the model is not the host's"),
        Mnemonic::Int1 => {
            Some("under a hypervisor the host reports its #DB at the instruction, not after it")
        }
        Mnemonic::Rdtsc => Some("counts time, no two runs agree"),
        Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Sldt | Mnemonic::Smsw | Mnemonic::Str => {
            Some("the host's UMIP turns it into #GP, which Linux partly emulates")
        }
        Mnemonic::Sysenter | Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            Some("enters the host kernel, or is undefined in compatibility mode of an AMD host")
        }
        Mnemonic::Syscall | Mnemonic::Sysret | Mnemonic::Sysretq => {
            Some("enters the host's kernel, or returns from it")
        }
        _ => match code {
            Code::Ud0 | Code::Ud0_r16_rm16 | Code::Ud0_r32_rm32 => {
                Some("AMD processors take no ModRM byte: the length differs (#UD either way)")
            }
            Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D => {
                Some("PREFETCHW on the host, not announced: #UD with a register")
            }
            Code::Movsxd_r16_rm16 => Some("AMD's processors read 32 bits, Intel's 16"),
            _ if code.op_code().fwait() => {
                Some("WAIT and the form without it, both generated on their own")
            }
            _ => None,
        },
    }
}

/// The row of `code` in `mode`; `None` if the form does not belong to the table (another mode's, VEX, EVEX, XOP, 3DNow!).
pub fn row(code: Code, mode: Mode) -> Option<Row> {
    let info = code.op_code();
    let exists = if mode.is_64() {
        info.mode64()
    } else {
        info.mode32()
    };
    if !info.is_instruction() || info.encoding() != EncodingKind::Legacy || !exists {
        return None;
    }
    if info.decoder_option() != 0 {
        return Some(Row::Never("existed on other processors only"));
    }
    if !code
        .cpuid_features()
        .iter()
        .all(|&feature| announced(feature, mode))
    {
        return Some(Row::Never("not announced by CPUID"));
    }
    if let Some(reason) = reason_against(code) {
        return Some(Row::Never(reason));
    }
    if mode.is_64() && !(info.intel_decoder64() && info.amd_decoder64()) {
        return Some(Row::Never("Intel's and AMD's processors differ"));
    }
    let style = match code.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
            if !is_far(code) =>
        {
            Style::Relative
        }
        FlowControl::UnconditionalBranch
        | FlowControl::Call
        | FlowControl::IndirectBranch
        | FlowControl::IndirectCall => Style::Transfer,
        FlowControl::Return if code.mnemonic() != Mnemonic::Rsm => Style::Transfer,
        _ => Style::Plain,
    };
    Some(Row::Generated(style))
}

fn is_far(code: Code) -> bool {
    matches!(
        code,
        Code::Jmp_ptr1616 | Code::Jmp_ptr1632 | Code::Call_ptr1616 | Code::Call_ptr1632
    )
}

/// Whether a user program that executes `code` always gets an exception.
pub fn always_faults(code: Code) -> bool {
    code.op_code().must_be_cpl0()
        || code.op_code().is_input_output()
        || matches!(
            code.mnemonic(),
            Mnemonic::Cli
                | Mnemonic::Sti
                | Mnemonic::Insb
                | Mnemonic::Insw
                | Mnemonic::Insd
                | Mnemonic::Outsb
                | Mnemonic::Outsw
                | Mnemonic::Outsd
                | Mnemonic::In
                | Mnemonic::Out
                | Mnemonic::Ud1
                | Mnemonic::Ud2
                | Mnemonic::Int3
                | Mnemonic::Rdpmc
                | Mnemonic::Rsm
        )
}

/// Whether `code` transfers control with an operand that is shorter than the addresses of the flat code segment: taken, RIP is cut,
/// to 16 bits mostly, where nothing is mapped.
pub fn cuts_rip(code: Code, mode: Mode) -> bool {
    let transfers = matches!(
        row(code, mode),
        Some(Row::Generated(Style::Relative | Style::Transfer))
    );
    let size = code.op_code().operand_size();
    let is_cut = size == 16 || mode.is_64() && size == 32;
    transfers && is_cut
}

/// Every form that is generated for `mode`, in the order of `iced_x86::Code`.
pub fn generated(mode: Mode) -> Vec<Code> {
    Code::values()
        .filter(|&code| matches!(row(code, mode), Some(Row::Generated(_))))
        .collect()
}

/// The forms never generated for `mode`, by reason.
pub fn never(mode: Mode) -> BTreeMap<&'static str, Vec<Code>> {
    let mut reasons: BTreeMap<_, Vec<Code>> = BTreeMap::new();
    for code in Code::values() {
        if let Some(Row::Never(reason)) = row(code, mode) {
            reasons.entry(reason).or_default().push(code);
        }
    }
    reasons
}

/// Byte strings that raise #UD in `mode`.
pub fn undefined(mode: Mode) -> &'static [&'static [u8]] {
    if mode.is_64() {
        &UNDEFINED_64
    } else {
        &UNDEFINED
    }
}

/// Byte strings that no announced processor takes for an instruction: each raises #UD (SDM Vol. 2D, A.3 "One, Two, and
/// Three-Byte Opcode Maps"). Register forms of BOUND, LES and LDS are not among them: to the host they are EVEX and VEX.
const UNDEFINED: [&[u8]; 21] = [
    &[0x0f, 0x0a],
    &[0x0f, 0x04],
    &[0x0f, 0x24, 0xc0],
    &[0x0f, 0x26, 0xc0],
    &[0x0f, 0x36],
    &[0x0f, 0x3b],
    &[0x0f, 0xa6, 0xff],
    &[0x8d, 0xc0],
    &[0x8e, 0xc8],
    &[0x8e, 0xf0],
    &[0x8c, 0xf0],
    &[0xfe, 0xd0],
    &[0xff, 0xf8],
    &[0xff, 0xd8],
    &[0xf0, 0x89, 0xc8],
    &[0xf0, 0x90],
    &[0xf0, 0x01, 0xc8],
    &[0xd9, 0xd1],
    &[0xd9, 0xe2],
    &[0xdb, 0xe5],
    &[0xdf, 0xe1],
];

/// The same for 64-bit mode: first the forms that do not exist there (SDM Vol. 2D, Table A-1 "Superscripts Utilized in Opcode
/// Tables", i64), with the operands that they have elsewhere. 0x62, 0xc4 and 0xc5 are not among them: to the host they are EVEX and
/// VEX.
const UNDEFINED_64: [&[u8]; 44] = [
    &[0x06],
    &[0x07],
    &[0x0e],
    &[0x16],
    &[0x17],
    &[0x1e],
    &[0x1f],
    &[0x27],
    &[0x2f],
    &[0x37],
    &[0x3f],
    &[0x60],
    &[0x61],
    &[0x66, 0x60],
    &[0x82, 0xc0, 0x01],
    &[0x9a, 0, 0, 0, 0, 0x23, 0],
    &[0x9a, 0, 0, 0, 0, 0x33, 0],
    &[0xce],
    &[0xd4, 0x0a],
    &[0xd5, 0x0a],
    &[0xd6],
    &[0xea, 0, 0, 0, 0, 0x33, 0],
    &[0x48, 0x06],
    &[0x41, 0xce],
    &[0x0f, 0x0a],
    &[0x0f, 0x04],
    &[0x0f, 0x24, 0xc0],
    &[0x0f, 0x26, 0xc0],
    &[0x0f, 0x36],
    &[0x0f, 0x3b],
    &[0x0f, 0xa6, 0xff],
    &[0x8d, 0xc0],
    &[0x8e, 0xc8],
    &[0x8e, 0xf0],
    &[0x8c, 0xf0],
    &[0xfe, 0xd0],
    &[0xff, 0xf8],
    &[0xff, 0xd8],
    &[0xf0, 0x89, 0xc8],
    &[0xf0, 0x48, 0x89, 0xc8],
    &[0xf0, 0x90],
    &[0xf0, 0x01, 0xc8],
    &[0xd9, 0xd1],
    &[0xdf, 0xe1],
];

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn count(mode: Mode, mnemonic: Mnemonic) -> usize {
        let forms = generated(mode).into_iter();
        forms.filter(|code| code.mnemonic() == mnemonic).count()
    }

    #[test]
    fn the_table_covers_the_instruction_set_of_a_pentium_4() {
        let count = |mnemonic| count(Mode::Protected, mnemonic);
        assert_eq!(count(Mnemonic::Add), 15);
        assert_eq!(count(Mnemonic::Cmpxchg8b), 1);
        assert_eq!(count(Mnemonic::Fsin), 1);
        assert_eq!(count(Mnemonic::Maskmovdqu), 1);
        assert_eq!(count(Mnemonic::Haddps), 0);
        let forms = generated(Mode::Protected).len();
        assert!(forms > 900, "{forms} forms");
    }

    #[test]
    fn the_table_covers_64_bit_mode() {
        let count = |mnemonic| count(Mode::Bits64, mnemonic);
        assert_eq!(count(Mnemonic::Add), 19);
        assert_eq!(count(Mnemonic::Cmpxchg16b), 1);
        assert_eq!(count(Mnemonic::Movsxd), 2);
        assert_eq!(count(Mnemonic::Iretq), 1);
        assert_eq!(count(Mnemonic::Daa), 0);
        assert_eq!(count(Mnemonic::Haddps), 1);
        assert_eq!(count(Mnemonic::Crc32), 5);
        assert_eq!(count(Mnemonic::Mwait), 0);
        let forms = generated(Mode::Bits64).len();
        assert!(forms > 950, "{forms} forms");
    }

    #[test]
    fn every_form_left_out_has_one_reason() {
        for mode in [Mode::Protected, Mode::Bits64] {
            let left_out: usize = never(mode).values().map(Vec::len).sum();
            let rows = Code::values().filter(|&code| row(code, mode).is_some());
            assert_eq!(left_out + generated(mode).len(), rows.count());
        }
    }

    #[test]
    fn the_undefined_strings_of_64_bit_mode_decode_to_nothing() {
        for bytes in UNDEFINED_64 {
            let padded = [bytes, &[0; 8]].concat();
            let mut decoder = Decoder::new(64, &padded, DecoderOptions::NONE);
            assert!(decoder.decode().is_invalid(), "{bytes:x?}");
        }
    }
}
