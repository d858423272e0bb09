//! Saved states: a restored processor goes on as the one that was saved, and no state harms the host.

mod machine;

use machine::{PROGRAM_BYTES, image, machine, memory, start, undisturbed};
use proptest::collection::vec;
use proptest::prelude::*;
use sbe::cpu::CpuState;
use sbe::cpu::InterruptShadow::{MovSs, None as Nothing, Sti};
use sbe::{EmptyBus, Engine, Exit, Vcpu, VcpuState};

/// Instructions that a processor of an arbitrary state has to survive.
const SURVIVED: u64 = 300;

fn programs() -> impl Strategy<Value = (Vec<u8>, Vec<u16>)> {
    (vec(any::<u8>(), PROGRAM_BYTES), vec(any::<u16>(), 256))
}

/// Saves the processor, sends its state through bytes, and restores it in another machine with the same memory.
fn moved(vcpu: &Vcpu) -> Vcpu {
    let bytes = postcard::to_stdvec(&vcpu.save(0)).expect("plain data");
    let state: VcpuState = postcard::from_bytes(&bytes).expect("plain data");
    let mut other = machine(Engine::Emulator, &memory(vcpu));
    other.restore(&state, 0).expect("a state that was saved");
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_restored_processor_goes_on_as_the_saved_one(
        (program, targets) in programs(),
        before in 1..2000_u64,
        after in 1..2000_u64,
    ) {
        let mut stayed = machine(Engine::Emulator, &image(&program, &targets));
        stayed.restore(&undisturbed(start()), 0).expect("a valid state");
        stayed.run(&mut EmptyBus, before);
        let mut moved = moved(&stayed);
        prop_assert_eq!(moved.save(0), stayed.save(0));
        let exits = [&mut stayed, &mut moved].map(|vcpu| vcpu.run(&mut EmptyBus, after));
        prop_assert_eq!(&exits[0], &exits[1]);
        prop_assert_eq!(moved.save(0), stayed.save(0));
        prop_assert!(memory(&moved) == memory(&stayed), "memory differs");
    }

    #[test]
    fn bytes_that_were_tampered_with_are_refused_or_run(
        (program, targets) in programs(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        engine in engines(),
    ) {
        let mut bytes = postcard::to_stdvec(&undisturbed(start())).expect("plain data");
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(state) = postcard::from_bytes::<VcpuState>(&bytes) {
            refused_or_run(&state, engine, &image(&program, &targets));
        }
    }

    #[test]
    fn states_that_no_guest_would_make_are_refused_or_run(
        (program, targets) in programs(),
        edits in vec((0..EDITS.len(), any::<u64>()), 1..12),
        engine in engines(),
    ) {
        let mut state = start();
        for (edit, value) in edits {
            EDITS[edit](&mut state, value);
        }
        refused_or_run(&undisturbed(state), engine, &image(&program, &targets));
    }
}

fn engines() -> impl Strategy<Value = Engine> {
    prop_oneof![3 => Just(Engine::Emulator), 1 => Just(Engine::Translator)]
}

/// Restores `state` in a processor with this memory and runs it. What it does then is its own affair.
fn refused_or_run(state: &VcpuState, engine: Engine, memory: &[u8]) {
    let mut vcpu = machine(engine, memory);
    let before = vcpu.save(0);
    if vcpu.restore(state, 0).is_err() {
        assert_eq!(vcpu.save(0), before, "nothing has changed");
        return;
    }
    vcpu.run(&mut EmptyBus, SURVIVED);
    // What has become of it can be saved and restored again.
    let after = vcpu.save(0);
    assert_eq!(vcpu.restore(&after, 0), Ok(()));
    assert_eq!(vcpu.save(0), after);
}

/// Changes to a state, by a random value.
const EDITS: [fn(&mut CpuState, u64); 27] = [
    |state, value| state.general[value as usize % 16] = value >> 32,
    |state, value| state.eip = value & 0xffff_ffff,
    // Bits that exist; the second edit turns on modes at random.
    |state, value| state.eflags = value as u32 & 0x003f_7fd7 | 2,
    |state, value| state.eflags ^= 1 << (value % 22),
    |state, value| state.segments[value as usize % 6].selector = (value >> 48) as u16,
    |state, value| state.segments[value as usize % 6].base = value >> 32,
    |state, value| state.segments[value as usize % 6].limit = (value >> 32) as u32,
    |state, value| state.segments[value as usize % 6].attributes = (value >> 48) as u16 & 0xf0ff,
    |state, value| state.ldtr.limit = value as u32,
    |state, value| state.ldtr.attributes = value as u16 & 0xf0ff,
    |state, value| state.tr.base = value & 0xffff_ffff,
    |state, value| state.tr.limit = value as u32,
    |state, value| state.tr.attributes = value as u16 & 0xf0ff,
    |state, value| state.gdtr.base = value & 0xffff_ffff,
    |state, value| state.idtr.limit = value as u16,
    |state, value| state.cpl = value as u8 % 4,
    |state, value| state.cr0 ^= [1, 2, 4, 8, 0x20, 0x1_0000, 0x4_0000, 1 << 31][value as usize % 8],
    |state, value| state.cr3 = value & 0xffff_ffff,
    |state, value| state.cr4 ^= [4, 8, 0x10, 0x20, 0x80, 0x100, 0x200, 0x400][value as usize % 8],
    |state, value| state.breakpoints[value as usize % 4] = value >> 32,
    |state, value| state.dr7 = value & 0xffff_2bff | 0x400,
    |state, value| state.fpu.fcw = value as u16 & 0x1f3f | 0x40,
    |state, value| {
        state.fpu.fsw = value as u16;
        state.fpu.ftw = (value >> 16) as u8;
        state.fpu.st[value as usize % 8] = std::array::from_fn(|byte| (value >> (6 * byte)) as u8);
    },
    |state, value| state.fpu.mxcsr = value as u32 & 0x1_ffff,
    |state, value| {
        state.debug_hits = value & 0xc00f;
        state.nmi_pending = value & 1 << 32 != 0;
        state.nmi_blocked = value & 1 << 33 != 0;
    },
    |state, value| {
        state.shadow = [Nothing, Sti, MovSs][value as usize % 3];
        state.halted = value & 1 << 32 != 0;
    },
    |state, value| {
        state.retired = value;
        state.delivered = value.rotate_left(32);
    },
];

#[test]
fn the_program_runs() {
    let program = [0x40; PROGRAM_BYTES];
    let mut vcpu = machine(Engine::Emulator, &image(&program, &[0]));
    vcpu.restore(&undisturbed(start()), 0)
        .expect("a valid state");
    assert_eq!(vcpu.run(&mut EmptyBus, 100), Exit::Budget);
    assert_eq!(vcpu.save(0).cpu.general[0], 100, "INC EAX");
}
