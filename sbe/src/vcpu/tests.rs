//! Tests of the configuration, and of the exit for code that fails its check.

use super::*;
use crate::EmptyBus;
use crate::cpu::segment::SegReg;
use mmu::{GuestPhys, Memory};

fn vcpu(config: &VcpuConfig) -> Result<Vcpu, VcpuError> {
    let phys = Memory::new(1 << 20).expect("memory");
    Vcpu::new(config, Mmu::new(phys).expect("tables"))
}

#[test]
fn the_default_engine_is_the_translator() {
    assert_eq!(VcpuConfig::default().engine, Engine::Translator);
    let vcpu = vcpu(&VcpuConfig::default()).expect("a processor");
    assert!(vcpu.translation().is_some());
    assert!(vcpu.translation().expect("counts").executing.0.is_none());
    assert_eq!(vcpu.verified(), None);
}

#[test]
fn code_is_checked_and_measured_where_that_is_wanted() {
    let config = VcpuConfig {
        verify_code: true,
        measure_code: true,
        ..VcpuConfig::default()
    };
    let vcpu = vcpu(&config).expect("a processor");
    assert_eq!(vcpu.verified(), Some(0));
    assert!(vcpu.translation().expect("counts").executing.0.is_some());
}

#[test]
fn a_code_cache_out_of_range_is_refused() {
    let config = VcpuConfig {
        code_cache: 4096,
        ..VcpuConfig::default()
    };
    assert!(matches!(vcpu(&config), Err(VcpuError::Host(_))));
}

#[test]
fn a_jitdump_needs_a_folder_and_a_translator() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    for (engine, folder) in [
        (Engine::Emulator, folder.path()),
        (Engine::Translator, &missing),
    ] {
        let config = VcpuConfig {
            engine,
            jitdump: Some(folder.to_owned()),
            ..VcpuConfig::default()
        };
        assert!(matches!(vcpu(&config), Err(VcpuError::Jitdump(_))));
    }
}

#[test]
fn a_saved_pdpte_that_is_refused_is_named_with_its_value() {
    let mut vcpu = vcpu(&VcpuConfig::default()).expect("a processor");
    let mut state = vcpu.save(0);
    state.mmu.pdptes = [0x1001, 0, 0x2007, 0];
    let error = vcpu.restore(&state, 0).expect_err("reserved bits");
    assert_eq!((error.field, error.value), ("PDPTE", 0x2007));
}

#[test]
fn an_instruction_beyond_the_limit_of_code_is_refused_before_the_next_page_is_fetched() {
    let config = VcpuConfig {
        engine: Engine::Emulator,
        ..VcpuConfig::default()
    };
    let mut vcpu = vcpu(&config).expect("a processor");
    let last = GuestPhys::new((1 << 20) - 1);
    vcpu.mmu.memory().store(last, 0x0f_u8).expect("RAM");
    vcpu.set_linux_entry((1 << 20) - 1, 0);
    vcpu.cpu.segs[SegReg::Cs as usize].limit = (1 << 20) - 1;
    // #GP without an IDT is a triple fault; a fetch from the device behind the RAM would be unsupported.
    let exit = vcpu.run(&mut EmptyBus, 10);
    assert!(matches!(exit, Exit::Shutdown(_)), "{exit:?}");
}

#[test]
fn code_that_fails_its_check_is_an_internal_error() {
    let config = VcpuConfig {
        verify_code: true,
        ..VcpuConfig::default()
    };
    let mut vcpu = vcpu(&config).expect("a processor");
    vcpu.set_linux_entry(0x1000, 0);
    let translator = vcpu.translator.as_mut().expect("a translator");
    translator.check_system_call();
    for _ in 0..2 {
        let exit = vcpu.run(&mut EmptyBus, 1000);
        let Exit::Internal(what) = exit else {
            panic!("{exit:?}");
        };
        assert!(what.starts_with("emitted code: "), "{what}");
        assert_eq!(vcpu.cpu.eip, 0x1000, "nothing was executed");
    }
}
