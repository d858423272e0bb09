//! Rounding with an unbounded exponent agrees with the host's PE wherever no exponent is near its bounds.

use super::*;
use crate::cpu::fpu::{MXCSR_INIT, MXCSR_PE};
use crate::host_fpu::precision::{Denormals, Rounding};
use crate::host_fpu::{OPERAND_BYTES, StubFrame};
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use proptest::prelude::*;

type Assemble = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// The instructions under test, on XMM0 and XMM1.
const FORMS: [Assemble; 24] = [
    |a| a.addss(xmm0, xmm1),
    |a| a.addps(xmm0, xmm1),
    |a| a.addsd(xmm0, xmm1),
    |a| a.addpd(xmm0, xmm1),
    |a| a.haddps(xmm0, xmm1),
    |a| a.haddpd(xmm0, xmm1),
    |a| a.hsubps(xmm0, xmm1),
    |a| a.hsubpd(xmm0, xmm1),
    |a| a.addsubps(xmm0, xmm1),
    |a| a.addsubpd(xmm0, xmm1),
    |a| a.subss(xmm0, xmm1),
    |a| a.subps(xmm0, xmm1),
    |a| a.subsd(xmm0, xmm1),
    |a| a.subpd(xmm0, xmm1),
    |a| a.mulss(xmm0, xmm1),
    |a| a.mulps(xmm0, xmm1),
    |a| a.mulsd(xmm0, xmm1),
    |a| a.mulpd(xmm0, xmm1),
    |a| a.divss(xmm0, xmm1),
    |a| a.divps(xmm0, xmm1),
    |a| a.divsd(xmm0, xmm1),
    |a| a.divpd(xmm0, xmm1),
    |a| a.cvtsd2ss(xmm0, xmm1),
    |a| a.cvtpd2ps(xmm0, xmm1),
];

/// A number of few or many significant bits and an exponent far from the bounds, or zero.
fn number(fraction_bits: u32, bias: u64) -> impl Strategy<Value = u64> {
    let zeros = prop_oneof![
        0..fraction_bits,
        Just(fraction_bits),
        Just(fraction_bits - 2)
    ];
    (any::<bool>(), 0..60u64, any::<u64>(), zeros, 0..12u8).prop_map(
        move |(negative, exponent, fraction, zeros, kind)| {
            let fraction = fraction & ((1 << fraction_bits) - 1) & !((1 << zeros) - 1);
            let magnitude = (bias - 30 + exponent) << fraction_bits | fraction;
            let sign = u64::from(negative) << (if bias == 127 { 31 } else { 63 });
            if kind == 0 { sign } else { sign | magnitude }
        },
    )
}

/// Four single-precision numbers.
fn singles() -> impl Strategy<Value = u128> {
    prop::array::uniform4(number(23, 127)).prop_map(|parts| {
        parts
            .into_iter()
            .fold(0, |all, part| all << 32 | u128::from(part))
    })
}

/// Two double-precision numbers.
fn doubles() -> impl Strategy<Value = u128> {
    prop::array::uniform2(number(52, 1023))
        .prop_map(|[high, low]| u128::from(high) << 64 | u128::from(low))
}

proptest! {
    #[test]
    fn rounding_is_the_hosts_away_from_the_bounds(
        form in 0..FORMS.len(),
        (single, double) in ((singles(), singles()), (doubles(), doubles())),
    ) {
        let bytes = assembled(FORMS[form]);
        let raw = Decoder::new(32, &bytes, DecoderOptions::NONE).decode();
        let rounding = Rounding::of(&raw).expect("one that can overflow");
        let doubles = match raw.mnemonic() {
            Mnemonic::Haddps | Mnemonic::Hsubps | Mnemonic::Addsubps => false,
            _ => bytes[0] == 0x66 || bytes[0] == 0xf2,
        };
        let (left, right) = if doubles { double } else { single };
        let mut machine = Machine::new();
        machine.cpu.fpu.set_xmm(0, left);
        machine.cpu.fpu.set_xmm(1, right);
        let frame = StubFrame {
            image: machine.cpu.fpu.clone(),
            operand: [0; OPERAND_BYTES],
            general: 0,
            index: 0,
            length: 0,
            flags: 0,
        };
        machine.must(FORMS[form]);
        let raised = machine.cpu.fpu.mxcsr() & !MXCSR_INIT;
        prop_assert_eq!(rounding.is_inexact(&frame, Denormals::Kept), raised & MXCSR_PE != 0);
    }
}
