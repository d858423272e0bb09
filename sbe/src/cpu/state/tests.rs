use super::{CpuState, InterruptShadow};
use crate::cpu::model::CpuModel;
use crate::cpu::{Cpu, Pending};

fn state() -> CpuState {
    Cpu::new(CpuModel::Pentium4).save(0)
}

type Change = fn(&mut CpuState);

#[test]
fn what_no_processor_can_hold_is_refused_by_its_name() {
    let cases: [(&str, Change); 19] = [
        ("CR0", |state| state.cr0 &= !0x10),
        ("CR0", |state| state.cr0 |= 1 << 31),
        ("CR0", |state| state.cr0 = 0x2000_0010),
        ("CR4", |state| state.cr4 |= 1),
        ("IA32_EFER", |state| state.efer |= 1),
        ("EFLAGS", |state| state.eflags = 0),
        ("EFLAGS", |state| state.eflags |= 1 << 15),
        ("EFLAGS", |state| state.eflags |= 1 << 17),
        ("CPL", |state| state.cpl = 3),
        ("CPL", |state| (state.cr0, state.cpl) = (0x11, 4)),
        ("CPL", |state| {
            (state.cr0, state.eflags) = (0x11, 1 << 17 | 2);
        }),
        ("DR6", |state| state.dr6 = 0),
        ("DR7", |state| state.dr7 = 0),
        ("debug hits", |state| state.debug_hits = 1 << 13),
        ("FS", |state| state.segments[4].attributes |= 1 << 8),
        ("FCW", |state| state.fpu.fcw = 0),
        ("FOP", |state| state.fpu.fop = 1 << 11),
        ("MXCSR", |state| state.fpu.mxcsr |= 1 << 16),
        ("retired instructions", |state| state.retired = u64::MAX),
    ];
    assert!(Cpu::restore(&state(), 0).is_ok());
    for (field, change) in cases {
        let mut state = state();
        change(&mut state);
        let refused = Cpu::restore(&state, 0).expect_err(field);
        assert_eq!(refused.field, field);
    }
}

#[test]
fn an_error_names_the_field_and_its_value() {
    let mut state = state();
    state.fpu.mxcsr = 0x1_1f80;
    let refused = Cpu::restore(&state, 0).expect_err("a reserved bit");
    assert_eq!(
        refused.to_string(),
        "saved processor state: MXCSR cannot be 0x11f80"
    );
}

#[test]
fn what_holds_up_the_next_instruction_is_kept() {
    for (shadow, bits) in [
        (InterruptShadow::None, 0),
        (InterruptShadow::Sti, Pending::SHADOW),
        (InterruptShadow::MovSs, Pending::SHADOW | Pending::SHADOW_SS),
    ] {
        let mut state = state();
        state.shadow = shadow;
        (state.halted, state.nmi_pending, state.nmi_blocked) = (true, true, true);
        state.debug_hits = 1 << 14;
        let cpu = Cpu::restore(&state, 0).expect("a valid state");
        let always = Pending::REFETCH | Pending::HALT | Pending::NMI | Pending::DEBUG_TRAP;
        assert_eq!(cpu.pending.0, always | bits);
        assert_eq!(cpu.save(0), state);
    }
}

#[test]
fn the_time_stamp_counter_stands_still_while_the_state_is_saved() {
    let mut cpu = Cpu::new(CpuModel::Bonnell);
    cpu.set_time_stamp(1000, 50);
    let state = cpu.save(60);
    assert_eq!(state.time_stamp, 1010);
    let restored = Cpu::restore(&state, 7).expect("a valid state");
    assert_eq!(restored.time_stamp(9), 1012);
}
