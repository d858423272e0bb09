//! Random states and instructions: none raises a signal or puts anything of the host into the guest's state.

use super::*;
use crate::cpu::fpu::{FxState, MXCSR_MASK, USED};
use crate::emulate::fpu::is_host_executed;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use proptest::collection::vec;
use proptest::prelude::*;

/// An x87 opcode, or one of the two-byte map with any mandatory prefix, and a ModR/M byte; room for operands.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let tail = vec(any::<u8>(), 8);
    let x87 = (0xd8u8..=0xdf, any::<u8>(), tail.clone())
        .prop_map(|(opcode, modrm, tail)| [&[opcode, modrm][..], &tail].concat());
    let prefix = prop::sample::select(vec![&[][..], &[0x66], &[0xf2], &[0xf3]]);
    let simd = (prefix, any::<u8>(), any::<u8>(), tail)
        .prop_map(|(prefix, opcode, modrm, tail)| [prefix, &[0x0f, opcode, modrm], &tail].concat());
    prop_oneof![x87, simd].prop_filter("executes on the host", |bytes| decoded(bytes).is_some())
}

/// The instruction, if the host executes it.
fn decoded(bytes: &[u8]) -> Option<Instruction> {
    let raw = Decoder::new(32, bytes, DecoderOptions::NONE).decode();
    (!raw.is_invalid() && is_host_executed(&raw)).then_some(raw)
}

fn state() -> impl Strategy<Value = FxState> {
    (vec(any::<u8>(), USED), 0..=MXCSR_MASK).prop_map(|(bytes, mxcsr)| {
        let mut image: [u8; USED] = bytes.try_into().expect("as many as asked for");
        image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        FxState::from_image(&image).expect("no reserved MXCSR bit")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn any_instruction_on_any_state_stays_inside_the_guest(
        bytes in instruction(),
        state in state(),
        registers in vec(0..RAM_BYTES as u32, 8),
    ) {
        let mut machine = Machine::new();
        machine.cpu.fpu = state;
        for (number, value) in (0..).zip(registers) {
            machine.cpu.regs.set(number, value);
        }
        let before = machine.cpu.clone();
        let length = decoded(&bytes).expect("filtered").len();
        let result = machine.execute(&bytes[..length]);

        prop_assert!(!matches!(result, Err(Fault::Unsupported(_))));
        let fpu = &machine.cpu.fpu;
        let mut image = [0; USED];
        image.copy_from_slice(&fpu.as_bytes()[..USED]);
        prop_assert_eq!(FxState::from_image(&image), Some(fpu.clone()), "reserved bits have their fixed values");
        let pointers = fpu.pointers();
        if pointers != before.fpu.pointers() {
            prop_assert!(result.is_ok());
            prop_assert_eq!((pointers.fip, pointers.fcs), (u64::from(CODE), CODE_SELECTOR));
            let kept = (before.fpu.pointers().fdp, before.fpu.pointers().fds);
            prop_assert!((pointers.fdp, pointers.fds) == kept || pointers.fds == DATA_SELECTOR);
        }
        if result.is_err() {
            prop_assert_eq!(&machine.cpu.regs, &before.regs);
        }
        let changed = (0..8).filter(|&number| machine.cpu.regs.get(number) != before.regs.get(number)).count();
        prop_assert!(changed <= 1, "at most the general register it names");
    }
}
