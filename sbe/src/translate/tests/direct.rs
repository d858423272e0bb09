//! Direct links between pages of programs in two address spaces, which lose fetch slots.

use super::users::{set_up, set_up_sysenter, write};
use super::windows::place;
use super::{Program, STACK, agree, assemble, run};
use crate::{Vcpu, VcpuConfig, Windows};
use iced_x86::code_asm::*;

/// Page directories of the two spaces, which map the first 4 MiB alike.
const DIRECTORIES: [u32; 2] = [0x0030_0000, 0x002c_0000];
/// Their page tables of linear addresses from [`CALLER`] on.
const TABLES: [u32; 2] = [0x0027_0000, 0x0026_0000];
/// The page table of the first 4 MiB.
const LOW_TABLE: u32 = 0x0030_1000;

/// A page of code that calls the next one.
const CALLER: u32 = 0x0040_0000;
/// A page of code that calls none.
const LONER: u32 = CALLER + 0x2000;

/// Frames of the pages, two of them for the one that is called.
const CALLER_FRAME: u32 = 0x0028_0000;
const LONER_FRAME: u32 = 0x0029_0000;
const CALLED_FRAMES: [u32; 2] = [0x002a_0000, 0x002b_0000];
/// A frame that no test uses.
const SPARE: u32 = 0x002d_0000;

/// Numbers of the pages in the tables.
const CALLED_ENTRY: u32 = 1;
const LONER_ENTRY: u32 = 2;

/// Emits a kernel that makes the spaces and executes `steps`, each of which may [`go`] to programs.
fn kernel(
    a: &mut CodeAssembler,
    steps: impl FnOnce(&mut CodeAssembler, CodeLabel) -> Program,
) -> Program {
    // CPUID, which is the emulator's, so that the space gets its window; CALL of the next page; SYSENTER.
    for (offset, code) in (0..).step_by(4).zip([0xf9e8_a20f, 0x0f00_000f, 0x34]) {
        write(a, CALLER_FRAME + offset, code)?;
    }
    for (value, frame) in (1..).zip(CALLED_FRAMES) {
        // MOV EAX, value; RET.
        write(a, frame, value << 8 | 0xb8)?;
        write(a, frame + 4, 0xc300)?;
    }
    // CPUID; SYSENTER.
    write(a, LONER_FRAME, 0x340f_a20f)?;
    for (directory, table) in DIRECTORIES.into_iter().zip(TABLES) {
        write(a, directory, LOW_TABLE | 7)?;
        write(a, directory + 4, table | 7)?;
        write(a, table, CALLER_FRAME | 7)?;
        write(a, table + 4 * CALLED_ENTRY, CALLED_FRAMES[0] | 7)?;
        write(a, table + 4 * LONER_ENTRY, LONER_FRAME | 7)?;
    }
    set_up(a, (SPARE, SPARE | 7), 0)?;
    place(a, |a| a.jmp(ebp))?;
    set_up_sysenter(a)?;
    let (mut leave, mut begin) = (a.create_label(), a.create_label());
    a.xor(edi, edi)?;
    a.jmp(begin)?;
    a.set_label(&mut leave)?;
    a.pop(ebp)?;
    a.mov(ecx, STACK as i32 - 0x1000)?;
    a.sysexit()?;
    a.set_label(&mut begin)?;
    steps(a, leave)?;
    a.hlt()
}

/// Emits the execution of the program at `start` in a space; EDI gets its result as another digit.
fn go(a: &mut CodeAssembler, leave: CodeLabel, space: usize, start: u32) -> Program {
    a.mov(eax, DIRECTORIES[space] as i32)?;
    a.mov(cr3, eax)?;
    a.xor(eax, eax)?;
    a.mov(edx, start as i32)?;
    a.call(leave)?;
    a.shl(edi, 4)?;
    a.or(edi, eax)
}

/// Emits a change of the frame of a page in a space.
fn remap(a: &mut CodeAssembler, space: usize, entry: u32, frame: u32) -> Program {
    write(a, TABLES[space] + 4 * entry, frame | 7)
}

#[test]
fn a_page_mapped_anew_is_called_where_it_is_and_the_old_one_elsewhere() {
    for changed in 0..2 {
        let vcpu = agree(|a| {
            kernel(a, |a, leave| {
                for space in [0, 0, 1, 1, 0] {
                    go(a, leave, space, CALLER)?;
                }
                remap(a, changed, CALLED_ENTRY, CALLED_FRAMES[1])?;
                for space in [1, 0, 1] {
                    go(a, leave, space, CALLER)?;
                }
                Ok(())
            })
        });
        let after = [0x121, 0x212][changed];
        assert_eq!(vcpu.cpu.regs.get(7), 0x1111_1000 | after);
    }
}

/// Calls in one space, while the other one loses the page it executes each time.
fn calls_beside_losses(times: usize) -> Vcpu {
    let code = assemble(|a| {
        kernel(a, |a, leave| {
            for _ in 0..times {
                go(a, leave, 1, LONER)?;
                remap(a, 1, LONER_ENTRY, SPARE)?;
                a.mov(eax, DIRECTORIES[1] as i32)?;
                a.mov(cr3, eax)?;
                remap(a, 1, LONER_ENTRY, LONER_FRAME)?;
                go(a, leave, 0, CALLER)?;
            }
            Ok(())
        })
    });
    let config = VcpuConfig {
        windows: Windows::Always,
        ..VcpuConfig::default()
    };
    run(&config, &code)
}

#[test]
fn a_link_stays_when_another_space_loses_fetch_slots() {
    let counts = [2, 12].map(|times| {
        let vcpu = calls_beside_losses(times);
        let stats = vcpu.translation().expect("translates");
        (stats.windows, stats.direct)
    });
    assert_eq!(counts[0], counts[1]);
    assert_eq!(counts[0].0 > 0, counts[0].1 > 0);
}
