//! Results of 64-bit mode that the real CPU decides: what instructions leave of a register, and the order of checks.

use super::host_alu;
use super::tests64::processor;
use crate::cpu::eflags::{CF, ZF};
use crate::cpu::regs::{EAX, ECX, EDX, ESI};
use crate::cpu::segment::SegReg;
use crate::fault::Fault;

const DATA: u32 = 0x1_0000;
const HIGH: u64 = 0x1234_5678_0000_0000;

/// RDX after `bytes`, with RAX, RCX and RDX holding `rax`, `rcx` and `rdx` below [`HIGH`], and these status flags.
fn rdx_after(bytes: &[u8], [rax, rcx, rdx]: [u64; 3], flags: u32) -> u64 {
    let mut bench = processor(&[(EAX, HIGH | rax), (ECX, HIGH | rcx), (EDX, HIGH | rdx)]);
    bench.cpu.eflags |= flags;
    assert_eq!(bench.step(bytes), Ok(()), "{bytes:x?}");
    bench.cpu.regs.get64(EDX)
}

#[test]
fn what_does_not_change_a_register_may_clear_its_upper_half() {
    let operands = [1, 0, 3];
    let cases: [(&[u8], u32, u64); 9] = [
        (&[0x0f, 0x44, 0xd1], 0, 3),              // cmove edx, ecx
        (&[0x0f, 0x44, 0xd1], ZF, 0),             // the same, moved
        (&[0x66, 0x0f, 0x44, 0xd1], 0, HIGH | 3), // cmove dx, cx
        (&[0x0f, 0xa3, 0xca], 0, HIGH | 3),       // bt edx, ecx
        (&[0x0f, 0xba, 0xe2, 1], 0, HIGH | 3),    // bt edx, 1
        (&[0x0f, 0xab, 0xca], 0, 3),              // bts edx, ecx
        (&[0x0f, 0xb1, 0xca], 0, HIGH | 3),       // cmpxchg edx, ecx: differs
        (&[0xc1, 0xe2, 32], CF, 3),               // shl edx, 32
        (&[0x0f, 0xa4, 0xca, 32], CF, 3),         // shld edx, ecx, 32
    ];
    for (bytes, flags, expected) in cases {
        assert_eq!(rdx_after(bytes, operands, flags), expected, "{bytes:x?}");
    }
    // cmpxchg edx, ecx: equal
    assert_eq!(rdx_after(&[0x0f, 0xb1, 0xca], [3, 7, 3], 0), 7);
}

#[test]
fn the_accumulator_of_cmpxchg_keeps_its_upper_half_unless_it_is_loaded() {
    for (found, expected) in [(5, HIGH | 5), (6, 6)] {
        let mut bench = processor(&[(EAX, HIGH | 5), (ESI, DATA.into())]);
        bench.poke::<u32>(DATA, found);
        // cmpxchg [rsi], ecx
        assert_eq!(bench.step(&[0x0f, 0xb1, 0x0e]), Ok(()));
        assert_eq!(bench.cpu.regs.get64(EAX), expected);
    }
}

/// The manual leaves the result undefined: it is the host's, in all 64 bits.
#[test]
fn scans_of_zero_leave_what_the_host_leaves() {
    // bsf edx, ecx; bsr edx, ecx
    let scans = [
        ([0x0f, 0xbc, 0xd1], host_alu::bsf::<u32>(HIGH | 3, 0, 0)),
        ([0x0f, 0xbd, 0xd1], host_alu::bsr::<u32>(HIGH | 3, 0, 0)),
    ];
    for (bytes, (expected, _)) in scans {
        assert_eq!(rdx_after(&bytes, [0, 0, 3], 0), expected, "{bytes:x?}");
    }
}

#[test]
fn iretq_checks_the_address_before_the_stack_segment() {
    const HOLE: u64 = 1 << 47;
    let mut bench = processor(&[]);
    let code = u64::from(bench.selector(SegReg::Cs));
    // A code segment for SS would raise #GP with its selector.
    bench.place64(&[HOLE, code, 2, 0x1234, code]);
    assert_eq!(bench.step(&[0x48, 0xcf]), Err(Fault::gp(0)));
}
