//! String instructions of programs, whose accesses to their window fault.

use super::users::{HANDLER, LAST_SELECTOR, set_up, set_up_sysenter, write, write_task};
use super::windows::place;
use super::{Program, STACK, agree, assemble, run};
use crate::{VcpuConfig, Windows};
use iced_x86::code_asm::*;

/// Source and target of moves, and a page that programs may only read.
const SOURCE: u32 = 0x0028_0000;
const TARGET: u32 = 0x0029_0000;
const READ_ONLY: u32 = 0x002a_0000;

/// The source is read, and shown by the window, before the target faults. Nothing has moved then.
#[test]
fn a_move_whose_store_faults_moves_no_pointer() {
    for (downwards, moved) in [(false, SOURCE + 4), (true, SOURCE - 4)] {
        let program = |a: &mut CodeAssembler| enter_moves(a, downwards);
        let vcpu = agree(program);
        let [source, target] = [6, 7].map(|register| vcpu.cpu.regs.get(register));
        assert_eq!([source, target], [moved, READ_ONLY + 0x120]);
        assert_eq!(vcpu.cpu.cr2, u64::from(READ_ONLY + 0x120));
        let windowed = VcpuConfig {
            windows: Windows::Always,
            ..VcpuConfig::default()
        };
        let vcpu = run(&windowed, &assemble(program));
        let faults = vcpu.translation().map(|stats| stats.exits.window);
        assert!(faults > Some(0), "no access went through the window");
    }
}

/// Sets up a kernel that halts at page faults, and enters [`moves`].
fn enter_moves(a: &mut CodeAssembler, downwards: bool) -> Program {
    const HALT: u32 = 0xf4;
    let task = write_task(a)?;
    set_up(a, (READ_ONLY, READ_ONLY | 5), task)?;
    write(a, HANDLER, HALT)?;
    a.mov(eax, LAST_SELECTOR)?;
    a.ltr(ax)?;
    a.xor(ebx, ebx)?;
    set_up_sysenter(a)?;
    place(a, |a| moves(a, downwards))?;
    a.mov(edx, ebx)?;
    a.mov(ecx, STACK as i32 - 0x1000)?;
    a.sysexit()
}

/// Moves one doubleword to a page that the window has yet to show for writing, and one to where nothing may be written.
fn moves(a: &mut CodeAssembler, downwards: bool) -> Program {
    a.mov(esi, SOURCE)?;
    a.mov(edi, TARGET)?;
    a.mov(eax, dword_ptr(edi))?;
    match downwards {
        false => a.cld()?,
        true => a.std()?,
    }
    a.movsd()?;
    a.mov(edi, READ_ONLY + 0x120)?;
    a.mov(eax, dword_ptr(edi))?;
    a.movsd()?;
    a.hlt()
}
