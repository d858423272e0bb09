//! Instructions of 64-bit mode: operands, addresses and what the mode removes. The values are the manual's.

use super::bench::{Bench, CODE, KDATA, STACK, STACK0, TASK, TSS, UCODE64};
use crate::cpu::control::{CR0_PG, CR4_PAE, EFER_LMA};
use crate::cpu::eflags::{CF, FIXED, OF, STATUS, ZF};
use crate::cpu::regs::{EAX, EBP, EBX, ECX, EDI, EDX, ESI, ESP, R8};
use crate::cpu::segment::{SegReg, Segment, Selector};
use crate::cpu::{AddressSize, Pending};
use crate::fault::Fault;

const DATA: u32 = 0x1_0000;
const PATTERN: u64 = 0x1122_3344_5566_7788;
/// An address that is not canonical.
const HOLE: u64 = 1 << 47;
const R9: u8 = R8 + 1;
const R12: u8 = R8 + 4;
const R13: u8 = R8 + 5;
const R15: u8 = R8 + 7;

/// A processor in 64-bit mode with these registers.
pub fn processor(registers: &[(u8, u64)]) -> Bench {
    let mut bench = Bench::long();
    // A repeated instruction looks up after each iteration while anything is pending.
    bench.cpu.pending = Pending::default();
    for &(register, value) in registers {
        bench.cpu.regs.set64(register, value);
    }
    bench
}

/// The processor after one instruction.
fn after(registers: &[(u8, u64)], bytes: &[u8]) -> Bench {
    let mut bench = processor(registers);
    bench.poke(DATA, PATTERN);
    bench.poke(DATA + 8, !PATTERN);
    assert_eq!(bench.step(bytes), Ok(()), "{bytes:x?}");
    bench
}

#[test]
fn results_have_the_width_that_rex_says() {
    let cases: [(&[u8], u64); 14] = [
        (&[0x48, 0xff, 0xc0], 0xffff_ffff_0000_0000), // inc rax
        (&[0xff, 0xc0], 0),                           // inc eax
        (&[0x66, 0xff, 0xc0], 0xffff_fffe_ffff_0000), // inc ax
        (&[0xfe, 0xc0], 0xffff_fffe_ffff_ff00),       // inc al
        (&[0x48, 0xf7, 0xd0], 1 << 32),               // not rax
        (&[0x48, 0x83, 0xc0, 0xff], 0xffff_fffe_ffff_fffe), // add rax, -1
        (&[0x48, 0x25, 0, 0, 0, 0x80], 0xffff_fffe_8000_0000), // and rax, -0x80000000
        (&[0x48, 0xc7, 0xc0, 0, 0, 0, 0x80], 0xffff_ffff_8000_0000), // mov rax, -0x80000000
        (&[0xb8, 0, 0, 0, 0x80], 0x8000_0000),        // mov eax, 0x80000000
        (
            &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0x88],
            0x8807_0605_0403_0201,
        ), // mov rax, imm64
        (&[0x48, 0xc1, 0xe0, 33], 0xffff_fffe_0000_0000), // shl rax, 33
        (&[0xc1, 0xe0, 33], 0xffff_fffe),             // shl eax, 1
        (&[0x48, 0x0f, 0xc8], 0xffff_ffff_feff_ffff), // bswap rax
        (&[0x48, 0x98], u64::MAX),                    // cdqe
    ];
    for (bytes, expected) in cases {
        let bench = after(&[(EAX, 0xffff_fffe_ffff_ffff)], bytes);
        assert_eq!(bench.cpu.regs.get64(EAX), expected, "{bytes:x?}");
    }
}

#[test]
fn flags_come_from_all_64_bits() {
    // add rax, rcx
    let add = [0x48, 0x01, 0xc8];
    for (a, b, flags) in [
        (u64::MAX, 1, CF | ZF),
        (i64::MAX as u64, 1, OF),
        (0xffff_ffff, 1, 0),
        (1 << 63, 1 << 63, CF | OF | ZF),
    ] {
        let bench = after(&[(EAX, a), (ECX, b)], &add);
        assert_eq!(bench.cpu.regs.get64(EAX), a.wrapping_add(b));
        assert_eq!(bench.cpu.eflags & (CF | OF | ZF), flags, "{a:x} + {b:x}");
    }
}

#[test]
fn byte_registers_depend_on_a_rex_prefix() {
    let registers = [(EAX, 0x1234), (ESP, 0x8765), (R12, 0xabcd)];
    // mov cl, ah; mov cl, spl; mov cl, r12b
    for (bytes, expected) in [
        (&[0x88, 0xe1][..], 0x12),
        (&[0x40, 0x88, 0xe1], 0x65),
        (&[0x44, 0x88, 0xe1], 0xcd),
    ] {
        let bench = after(&registers, bytes);
        assert_eq!(bench.cpu.regs.get8(ECX), expected, "{bytes:x?}");
    }
    // mov dil, 0x99; mov r9b, 0x99
    let bench = after(&[(EDI, PATTERN)], &[0x40, 0xb7, 0x99]);
    assert_eq!(bench.cpu.regs.get64(EDI), 0x1122_3344_5566_7799);
    let bench = after(&[(R9, PATTERN)], &[0x41, 0xb1, 0x99]);
    assert_eq!(bench.cpu.regs.get64(R9), 0x1122_3344_5566_7799);
}

#[test]
fn extensions_reach_64_bits() {
    let cases: [(&[u8], u64); 7] = [
        (&[0x48, 0x63, 0xc1], 0xffff_ffff_8899_aabb), // movsxd rax, ecx
        (&[0x63, 0xc1], 0x8899_aabb),                 // movsxd eax, ecx
        (&[0x48, 0x0f, 0xbe, 0xc1], 0xffff_ffff_ffff_ffbb), // movsx rax, cl
        (&[0x48, 0x0f, 0xbf, 0xc1], 0xffff_ffff_ffff_aabb), // movsx rax, cx
        (&[0x48, 0x0f, 0xb6, 0xc1], 0xbb),            // movzx rax, cl
        (&[0x48, 0x0f, 0xb7, 0xc1], 0xaabb),          // movzx rax, cx
        (&[0x89, 0xc8], 0x8899_aabb),                 // mov eax, ecx
    ];
    for (bytes, expected) in cases {
        let bench = after(&[(EAX, PATTERN), (ECX, 0x7766_5544_8899_aabb)], bytes);
        assert_eq!(bench.cpu.regs.get64(EAX), expected, "{bytes:x?}");
    }
    // cqo
    let bench = after(&[(EAX, 1 << 63)], &[0x48, 0x99]);
    assert_eq!(bench.cpu.regs.get64(EDX), u64::MAX);
}

#[test]
fn products_and_quotients_have_128_bits() {
    // mul rcx; imul rcx
    let factors = [(EAX, u64::MAX), (ECX, u64::MAX)];
    let bench = after(&factors, &[0x48, 0xf7, 0xe1]);
    assert_eq!(
        (bench.cpu.regs.get64(EDX), bench.cpu.regs.get64(EAX)),
        (u64::MAX - 1, 1)
    );
    let bench = after(&factors, &[0x48, 0xf7, 0xe9]);
    assert_eq!(
        (bench.cpu.regs.get64(EDX), bench.cpu.regs.get64(EAX)),
        (0, 1)
    );
    // imul rax, rcx, -2
    let bench = after(&[(ECX, 1 << 62)], &[0x48, 0x6b, 0xc1, 0xfe]);
    assert_eq!(bench.cpu.regs.get64(EAX), 1 << 63);
    // div rcx; idiv rcx
    let dividend = [(EDX, 1), (EAX, 5), (ECX, 1 << 32)];
    let bench = after(&dividend, &[0x48, 0xf7, 0xf1]);
    assert_eq!(
        (bench.cpu.regs.get64(EAX), bench.cpu.regs.get64(EDX)),
        (1 << 32, 5)
    );
    let bench = after(
        &[(EDX, u64::MAX), (EAX, -7_i64 as u64), (ECX, 2)],
        &[0x48, 0xf7, 0xf9],
    );
    let expected = (-3_i64 as u64, u64::MAX);
    assert_eq!(
        (bench.cpu.regs.get64(EAX), bench.cpu.regs.get64(EDX)),
        expected
    );
    for (high, divisor) in [(1, 1), (0, 0), (2, 2)] {
        let mut bench = bench_with(high, divisor);
        assert!(bench.step(&[0x48, 0xf7, 0xf1]).is_err(), "{high} {divisor}");
    }
    let overflow = [(EDX, u64::MAX), (EAX, 1 << 63), (ECX, u64::MAX)];
    assert!(processor(&overflow).step(&[0x48, 0xf7, 0xf9]).is_err());
}

fn bench_with(high: u64, divisor: u64) -> Bench {
    processor(&[(EDX, high), (EAX, 0), (ECX, divisor)])
}

#[test]
fn addresses_have_64_bits_or_32_by_prefix() {
    let registers = [
        (EBX, u64::from(DATA) - 0x10),
        (R9, 8),
        (R13, u64::from(DATA)),
        (EBP, 0xffff_ffff_0000_0000 | u64::from(DATA)),
    ];
    let rip = DATA - CODE;
    let relative = |prefix: &[u8], length: u32| {
        [
            prefix,
            &[0x48, 0x8b, 0x05],
            &(rip - length).to_le_bytes()[..],
        ]
        .concat()
    };
    let absolute = [0x48, 0xa1, 0, 0, 1, 0, 0, 0, 0, 0];
    for bytes in [
        &[0x4a, 0x8b, 0x44, 0x4b, 0x00][..],   // mov rax, [rbx+r9*2]
        &[0x49, 0x8b, 0x45, 0x00],             // mov rax, [r13]
        &[0x67, 0x48, 0x8b, 0x45, 0x00],       // mov rax, [ebp]
        &[0x48, 0x8b, 0x04, 0x25, 0, 0, 1, 0], // mov rax, [0x10000]
        &relative(&[], 7),                     // mov rax, [rip+...]
        &relative(&[0x67], 8),                 // mov rax, [eip+...]
        &absolute,                             // mov rax, [abs 0x10000]
    ] {
        let bench = after(&registers, bytes);
        assert_eq!(bench.cpu.regs.get64(EAX), PATTERN, "{bytes:x?}");
    }
    // lea eax, [rbp]; lea rax, [rbp-1]; lea rax, [ebp]
    for (bytes, expected) in [
        (&[0x8d, 0x45, 0x00][..], u64::from(DATA)),
        (&[0x48, 0x8d, 0x45, 0xff], 0xffff_ffff_0000_ffff),
        (&[0x67, 0x48, 0x8d, 0x45, 0x00], u64::from(DATA)),
    ] {
        let bench = after(&registers, bytes);
        assert_eq!(bench.cpu.regs.get64(EAX), expected, "{bytes:x?}");
    }
}

#[test]
fn only_fs_and_gs_have_a_base_and_no_segment_a_limit() {
    let mut bench = processor(&[]);
    for register in SegReg::ALL {
        if register != SegReg::Cs {
            let mut segment = Segment::null(Selector(0));
            segment.base = 0x100;
            bench.cpu.segs[register as usize] = segment;
        }
    }
    bench.poke(DATA, 1_u32);
    bench.poke(DATA + 0x100, 2_u32);
    for (prefix, expected) in [
        (0x26, 1),
        (0x2e, 1),
        (0x36, 1),
        (0x3e, 1),
        (0x64, 2),
        (0x65, 2),
    ] {
        // mov eax, prefix:[0x10000]
        let bytes = [prefix, 0x8b, 0x04, 0x25, 0, 0, 1, 0];
        bench.step(&bytes).expect("no fault");
        assert_eq!(bench.cpu.regs.get(EAX), expected, "{prefix:x}");
    }
}

#[test]
fn addresses_that_are_not_canonical_fault_by_their_base() {
    let registers = [
        (EBX, HOLE),
        (EBP, HOLE),
        (ESP, HOLE),
        (R12, HOLE),
        (R13, HOLE),
    ];
    let (gp, ss) = (Fault::gp(0), Fault::ss(0));
    let cases: [(&[u8], Fault); 13] = [
        (&[0x8b, 0x03], gp),             // mov eax, [rbx]
        (&[0x89, 0x03], gp),             // mov [rbx], eax
        (&[0x8b, 0x45, 0x00], ss),       // mov eax, [rbp]
        (&[0x3e, 0x8b, 0x45, 0x00], ss), // mov eax, ds:[rbp]
        (&[0x64, 0x8b, 0x45, 0x00], gp), // mov eax, fs:[rbp]
        (&[0x8b, 0x04, 0x24], ss),       // mov eax, [rsp]
        (&[0x41, 0x8b, 0x04, 0x24], gp), // mov eax, [r12]
        (&[0x41, 0x8b, 0x45, 0x00], gp), // mov eax, [r13]
        (&[0x36, 0x8b, 0x03], gp),       // mov eax, ss:[rbx]
        (&[0x58], ss),                   // pop rax
        (&[0xc3], ss),                   // ret
        (&[0xc9], ss),                   // leave
        (&[0xff, 0x33], gp),             // push [rbx]
    ];
    for (bytes, fault) in cases {
        assert_eq!(processor(&registers).step(bytes), Err(fault), "{bytes:x?}");
    }
    // An access across the end of the lower half; the last that fits.
    let mut bench = processor(&[(EBX, HOLE - 7)]);
    assert_eq!(bench.step(&[0x48, 0x8b, 0x03]), Err(gp));
    // push rax just above the hole's end: the slot lies in the hole.
    let mut bench = processor(&[(ESP, 0xffff_8000_0000_0000)]);
    assert_eq!(bench.step(&[0x50]), Err(ss));
    assert_eq!(bench.cpu.regs.get64(ESP), 0xffff_8000_0000_0000);
}

#[test]
fn branches_to_no_canonical_address_fault_before_they_do_anything() {
    // jmp rax; call rax
    for bytes in [[0xff, 0xe0], [0xff, 0xd0]] {
        let mut bench = processor(&[(EAX, HOLE)]);
        assert_eq!(bench.step(&bytes), Err(Fault::gp(0)));
        assert_eq!(bench.cpu.regs.get(ESP), STACK);
    }
    // ret
    let mut bench = processor(&[]);
    bench.place64(&[HOLE]);
    assert_eq!(bench.step(&[0xc3]), Err(Fault::gp(0)));
    assert_eq!(bench.cpu.regs.get(ESP), STACK - 8);
}

#[test]
fn stack_and_near_branches_take_quadwords() {
    // push rax; push -2; push word 0x1234
    for (bytes, slot, top) in [
        (&[0x50][..], 8, PATTERN),
        (&[0x6a, 0xfe], 8, -2_i64 as u64),
        (&[0x66, 0x68, 0x34, 0x12], 2, 0x1234),
    ] {
        let bench = after(&[(EAX, PATTERN)], bytes);
        assert_eq!(
            bench.cpu.regs.get64(ESP),
            u64::from(STACK - slot),
            "{bytes:x?}"
        );
        match slot {
            8 => assert_eq!(bench.top64(), [top]),
            _ => assert_eq!(u64::from(bench.peek::<u16>(STACK - 2)), top),
        }
    }
    // call +0x10, also with an operand-size prefix, which Intel's processors ignore
    for (bytes, length) in [
        (&[0xe8, 0x10, 0, 0, 0][..], 5),
        (&[0x66, 0xe8, 0x10, 0, 0, 0], 6),
    ] {
        let mut bench = after(&[], bytes);
        let back = u64::from(CODE) + length;
        assert_eq!(bench.cpu.eip, back + 0x10);
        assert_eq!(bench.top64(), [back]);
        bench.step(&[0xc2, 8, 0]).expect("ret 8");
        assert_eq!((bench.cpu.eip, bench.cpu.regs.get(ESP)), (back, STACK + 8));
    }
    // pushfq and popfq
    let mut bench = after(&[], &[0x9c]);
    assert_eq!(bench.top64(), [u64::from(FIXED)]);
    bench.poke(STACK - 8, u64::from(STATUS));
    bench.step(&[0x9d]).expect("popfq");
    assert_eq!(bench.cpu.eflags, FIXED | STATUS);
    assert_eq!(bench.cpu.stack_size(), AddressSize::Bits64);
    // jrcxz and jecxz
    let registers = [(ECX, 1 << 32)];
    assert_eq!(
        after(&registers, &[0xe3, 0x10]).cpu.eip,
        u64::from(CODE) + 2
    );
    assert_eq!(
        after(&registers, &[0x67, 0xe3, 0x10]).cpu.eip,
        u64::from(CODE) + 0x13
    );
    // enter 0x20, 0 and leave
    let mut bench = after(&[(EBP, PATTERN)], &[0xc8, 0x20, 0, 0]);
    assert_eq!(bench.cpu.regs.get64(EBP), u64::from(STACK) - 8);
    assert_eq!(bench.cpu.regs.get64(ESP), u64::from(STACK) - 0x28);
    bench.step(&[0xc9]).expect("leave");
    assert_eq!(
        (bench.cpu.regs.get64(EBP), bench.cpu.regs.get(ESP)),
        (PATTERN, STACK)
    );
}

#[test]
fn string_instructions_use_64_bit_registers() {
    let registers = [
        (ESI, u64::from(DATA)),
        (EDI, u64::from(DATA) + 0x100),
        (ECX, 2),
        (EAX, PATTERN),
    ];
    // rep movsq
    let bench = after(&registers, &[0xf3, 0x48, 0xa5]);
    assert_eq!(bench.peek::<u64>(DATA + 0x108), !PATTERN);
    assert_eq!(bench.cpu.regs.get64(ESI), u64::from(DATA) + 16);
    assert_eq!(bench.cpu.regs.get64(ECX), 0);
    // rep stosq, long enough to be done in bulk
    let mut many = registers;
    many[2].1 = 0x200;
    let mut bench = after(&many, &[0xf3, 0x48, 0xab]);
    assert_eq!(bench.cpu.regs.get64(EDI), u64::from(DATA) + 0x1100);
    assert_eq!(bench.peek::<u64>(DATA + 0x10f8), PATTERN);
    // repne scasq
    bench.cpu.regs.set64(EDI, DATA.into());
    bench.cpu.regs.set64(ECX, 10);
    bench.cpu.regs.set64(EAX, !PATTERN);
    bench.step(&[0xf2, 0x48, 0xaf]).expect("no fault");
    assert_eq!(
        (bench.cpu.regs.get64(EDI), bench.cpu.regs.get64(ECX)),
        (u64::from(DATA) + 16, 8)
    );
    // addr32 lodsq clears the upper half of RSI
    let bench = after(
        &[(ESI, 0xff_0000_0000 | u64::from(DATA))],
        &[0x67, 0x48, 0xad],
    );
    assert_eq!(bench.cpu.regs.get64(ESI), u64::from(DATA) + 8);
    assert_eq!(bench.cpu.regs.get64(EAX), PATTERN);
}

#[test]
fn cmpxchg16b_compares_128_bits_and_wants_alignment() {
    let registers = [
        (EDX, !PATTERN),
        (EAX, PATTERN),
        (ECX, 1),
        (EBX, 2),
        (ESI, u64::from(DATA)),
    ];
    // cmpxchg16b [rsi]
    let cmpxchg16b = [0x48, 0x0f, 0xc7, 0x0e];
    let bench = after(&registers, &cmpxchg16b);
    assert_eq!(bench.peek::<u128>(DATA), 1 << 64 | 2);
    assert_ne!(bench.cpu.eflags & ZF, 0);
    let mut different = registers;
    different[0].1 = 0;
    let bench = after(&different, &cmpxchg16b);
    assert_eq!(bench.cpu.regs.get64(EDX), !PATTERN);
    assert_eq!(bench.cpu.eflags & ZF, 0);
    let mut bench = processor(&[(ESI, u64::from(DATA) + 8)]);
    assert_eq!(bench.step(&cmpxchg16b), Err(Fault::gp(0)));
}

#[test]
fn bit_offsets_reach_over_64_bits() {
    // bts [rsi], rax
    let bench = after(
        &[(ESI, u64::from(DATA) + 0x100), (EAX, -64_i64 as u64)],
        &[0x48, 0x0f, 0xab, 0x06],
    );
    assert_eq!(bench.peek::<u64>(DATA + 0xf8), 1);
    // bt rax, rcx by 63
    let bench = after(&[(EAX, 1 << 63), (ECX, 63)], &[0x48, 0x0f, 0xa3, 0xc8]);
    assert_ne!(bench.cpu.eflags & CF, 0);
    // bsr rax, rcx
    let bench = after(&[(ECX, 1 << 40)], &[0x48, 0x0f, 0xbd, 0xc1]);
    assert_eq!(bench.cpu.regs.get64(EAX), 40);
}

#[test]
fn what_64_bit_mode_removes_is_undefined() {
    let removed: [&[u8]; 21] = [
        &[0x06],                         // push es
        &[0x0e],                         // push cs
        &[0x1f],                         // pop ds
        &[0x27],                         // daa
        &[0x37],                         // aaa
        &[0xd4, 10],                     // aam
        &[0xd5, 10],                     // aad
        &[0x60],                         // pusha
        &[0x61],                         // popa
        &[0x62, 0x00],                   // bound
        &[0x82, 0xc0, 1],                // add al, 1 by its alias
        &[0x9a, 0, 0, 0, 0, 8, 0],       // call far
        &[0xea, 0, 0, 0, 0, 8, 0],       // jmp far
        &[0xc4, 0x00],                   // les
        &[0xc5, 0x00],                   // lds
        &[0xce],                         // into
        &[0xd6],                         // salc
        &[0x0f, 0x04],                   // undefined in any mode
        &[0xf0, 0x48, 0x89, 0x03],       // lock mov
        &[0x0f, 0x0b],                   // ud2
        &[0xc4, 0xe2, 0x7b, 0xf0, 0xc0], // a VEX encoding
    ];
    for bytes in removed {
        let padded = [bytes, &[0; 8]].concat();
        assert_eq!(processor(&[]).step(&padded), Err(Fault::ud()), "{bytes:x?}");
    }
}

#[test]
fn only_the_64_bit_model_executes_its_instructions_elsewhere() {
    let mut bench = Bench::protected();
    // cmpxchg16b needs REX; 48 is DEC EAX here.
    bench.cpu.regs.set(EAX, 1);
    bench.step(&[0x48]).expect("dec eax");
    assert_eq!(bench.cpu.regs.get(EAX), 0);
}

#[test]
fn compatibility_mode_is_32_bit_code() {
    let mut bench = Bench::compatibility();
    bench
        .cpu
        .regs
        .set64(EBX, 0xdead_0000_0000_0000 | u64::from(DATA));
    bench.poke(DATA, PATTERN);
    // mov eax, [ebx]
    bench
        .step(&[0x8b, 0x03])
        .expect("the upper half is ignored");
    assert_eq!(bench.cpu.regs.get64(EAX), 0x5566_7788);
    // inc eax; 40 is no REX prefix.
    bench.step(&[0x40]).expect("inc eax");
    assert_eq!(bench.cpu.regs.get64(EAX), 0x5566_7789);
    // A segment still has its limit.
    let limited = Segment::new(
        Selector(0x23),
        0,
        0xff,
        bench.cpu.seg(SegReg::Ds).attributes,
    );
    bench.cpu.segs[SegReg::Ds as usize] = limited;
    assert_eq!(bench.step(&[0x8b, 0x03]), Err(Fault::gp(0)));
}

#[test]
fn control_registers_have_reserved_upper_halves() {
    // mov cr0, rax; mov cr4, rax; mov cr8, rax
    let cr0 = [0x0f, 0x22, 0xc0];
    let cr4 = [0x0f, 0x22, 0xe0];
    let cr8 = [0x44, 0x0f, 0x22, 0xc0];
    for bytes in [&cr0[..], &cr4, &cr8] {
        let mut bench = processor(&[(EAX, 1 << 32)]);
        assert_eq!(bench.step(bytes), Err(Fault::gp(0)), "{bytes:x?}");
    }
    let bench = after(&[(EAX, 9)], &cr8);
    assert_eq!(bench.cpu.cr8, 9);
    assert_eq!(processor(&[(EAX, 16)]).step(&cr8), Err(Fault::gp(0)));
    // mov rax, cr0
    let bench = after(&[(EAX, u64::MAX)], &[0x0f, 0x20, 0xc0]);
    assert_eq!(bench.cpu.regs.get64(EAX), u64::from(bench.cpu.cr0));
    // mov dr0, rax; mov dr7, rax
    let bench = after(&[(EAX, PATTERN)], &[0x0f, 0x23, 0xc0]);
    assert_eq!(bench.cpu.dr[0], PATTERN);
    assert_eq!(
        processor(&[(EAX, PATTERN)]).step(&[0x0f, 0x23, 0xf8]),
        Err(Fault::gp(0))
    );
}

#[test]
fn long_mode_is_not_left_from_64_bit_code() {
    let mut bench = Bench::long();
    let without_paging = bench.cpu.cr0 & !CR0_PG;
    bench.cpu.regs.set(EAX, without_paging);
    assert_eq!(bench.step(&[0x0f, 0x22, 0xc0]), Err(Fault::gp(0)));
    bench.cpu.regs.set(EAX, bench.cpu.cr4 & !CR4_PAE);
    assert_eq!(bench.step(&[0x0f, 0x22, 0xe0]), Err(Fault::gp(0)));
    assert_ne!(bench.cpu.efer & EFER_LMA, 0);
}

/// WRMSR of `value` to `msr`.
fn wrmsr(bench: &mut Bench, msr: u32, value: u64) -> Result<(), Fault> {
    bench.cpu.regs.set(ECX, msr);
    bench.cpu.regs.set(EAX, value as u32);
    bench.cpu.regs.set(EDX, (value >> 32) as u32);
    bench.step(&[0x0f, 0x30])
}

#[test]
fn msrs_hold_canonical_addresses() {
    const ADDRESS: u64 = 0xffff_8000_1234_5678;
    for msr in [
        0x175,
        0x176,
        0xc000_0082,
        0xc000_0083,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
    ] {
        let mut bench = Bench::long();
        assert_eq!(wrmsr(&mut bench, msr, ADDRESS), Ok(()), "{msr:x}");
        assert_eq!(wrmsr(&mut bench, msr, HOLE), Err(Fault::gp(0)), "{msr:x}");
        bench.cpu.regs.set64(EAX, u64::MAX);
        bench.cpu.regs.set64(EDX, u64::MAX);
        bench.step(&[0x0f, 0x32]).expect("rdmsr");
        let read = (bench.cpu.regs.get64(EDX), bench.cpu.regs.get64(EAX));
        assert_eq!(read, (ADDRESS >> 32, ADDRESS & 0xffff_ffff), "{msr:x}");
    }
    let mut bench = Bench::long();
    assert_eq!(
        wrmsr(&mut bench, 0xc000_0084, 1 << 32),
        Err(Fault::gp(0)),
        "FMASK"
    );
    assert_eq!(
        wrmsr(&mut bench, 0xc000_0080, 0xd01),
        Ok(()),
        "LMA as it is"
    );
    assert_eq!(
        wrmsr(&mut bench, 0xc000_0080, 0xc01),
        Err(Fault::gp(0)),
        "LME under paging"
    );
    let mut old = Bench::protected();
    assert_eq!(
        wrmsr(&mut old, 0xc000_0081, 0),
        Err(Fault::gp(0)),
        "no long mode"
    );
    assert_eq!(
        wrmsr(&mut old, 0xc000_0080, 0x100),
        Err(Fault::gp(0)),
        "no LME"
    );
}

#[test]
fn tables_have_ten_bytes() {
    // lgdt [rsi]; sgdt [rsi]
    let (lgdt, sgdt) = ([0x0f, 0x01, 0x16], [0x0f, 0x01, 0x06]);
    let mut bench = processor(&[(ESI, DATA.into())]);
    bench.poke(DATA, 0x7f_u16);
    bench.poke(DATA + 2, 0xffff_8000_0000_1000_u64);
    bench.step(&lgdt).expect("canonical");
    assert_eq!(
        (bench.cpu.gdtr.limit, bench.cpu.gdtr.base),
        (0x7f, 0xffff_8000_0000_1000)
    );
    bench.cpu.regs.set64(ESI, u64::from(DATA) + 0x20);
    bench.step(&sgdt).expect("no fault");
    assert_eq!(bench.peek::<u64>(DATA + 0x22), 0xffff_8000_0000_1000);
    bench.poke(DATA + 0x22, HOLE);
    assert_eq!(bench.step(&lgdt), Err(Fault::gp(0)));
}

#[test]
fn task_register_and_ldtr_take_sixteen_bytes() {
    // ltr ax
    let ltr = [0x0f, 0x00, 0xd8];
    let mut bench = processor(&[(EAX, TASK.into())]);
    bench.define(TASK, super::bench::segment(TSS, 0x67, super::bench::TSS32));
    bench.define(TASK + 8, crate::cpu::segment::Descriptor(0xffff_8000));
    bench.step(&ltr).expect("a valid TSS");
    assert_eq!(bench.cpu.tr.base, 0xffff_8000_0000_0000 | u64::from(TSS));
    for upper in [0x8000, 0xffff_8000 | 1 << 40] {
        let mut bench = processor(&[(EAX, TASK.into())]);
        bench.define(TASK, super::bench::segment(TSS, 0x67, super::bench::TSS32));
        bench.define(TASK + 8, crate::cpu::segment::Descriptor(upper));
        assert_eq!(bench.step(&ltr), Err(Fault::gp(TASK.into())), "{upper:x}");
    }
    // A 16-bit TSS.
    let mut bench = processor(&[(EAX, TASK.into())]);
    bench.define(TASK, super::bench::segment(TSS, 0x67, super::bench::TSS16));
    assert_eq!(bench.step(&ltr), Err(Fault::gp(TASK.into())));
}

#[test]
fn sysenter_and_sysexit_have_64_bits() {
    let mut bench = Bench::long_user();
    bench.cpu.sysenter_cs = 0x40;
    bench.cpu.sysenter_esp = 0xffff_8000_0000_0000 | u64::from(STACK0);
    bench.cpu.sysenter_eip = 0xffff_8000_0000_9000;
    bench.step(&[0x0f, 0x34]).expect("sysenter");
    assert!(bench.cpu.is_code64());
    assert_eq!(bench.place_of_execution64(), (0x40, 0xffff_8000_0000_9000));
    assert_eq!(bench.cpu.regs.get64(ESP), bench.cpu.sysenter_esp);
    bench.cpu.regs.set64(ECX, 0x7fff_0000_1000);
    bench.cpu.regs.set64(EDX, 0x7fff_0000_2000);
    // sysexitq
    bench.step(&[0x48, 0x0f, 0x35]).expect("no fault");
    assert_eq!(bench.place_of_execution64(), (0x63, 0x7fff_0000_2000));
    assert_eq!(
        (bench.cpu.regs.get64(ESP), bench.selector(SegReg::Ss)),
        (0x7fff_0000_1000, 0x6b)
    );
    assert!(bench.cpu.is_code64());
}

#[test]
fn null_ss_is_valid_inside_in_64_bit_mode() {
    // mov ss, ax
    let bytes = [0x8e, 0xd0];
    let bench = after(&[(EAX, 0)], &bytes);
    assert_eq!(bench.selector(SegReg::Ss), 0);
    let mut bench = Bench::long_user();
    bench.cpu.regs.set(EAX, 3);
    assert_eq!(bench.step(&bytes), Err(Fault::gp(0)));
    assert_eq!(bench.selector(SegReg::Cs), UCODE64);
    // mov fs, ax: a null selector clears the base.
    let mut bench = processor(&[(EAX, 0)]);
    bench.cpu.segs[SegReg::Fs as usize].base = PATTERN;
    bench.step(&[0x8e, 0xe0]).expect("no fault");
    assert_eq!(bench.cpu.seg(SegReg::Fs).base, 0);
    // And one of a segment its 32 bits.
    bench.cpu.regs.set(EAX, KDATA.into());
    bench.step(&[0x8e, 0xe0]).expect("no fault");
    assert_eq!(bench.selector(SegReg::Fs), KDATA);
}

#[test]
fn simd_instructions_have_sixteen_registers_and_rex_operands() {
    let mut bench = processor(&[(R15, PATTERN)]);
    bench.cpu.cr4 |= 1 << 9;
    // movq xmm12, r15; movq rax, xmm12
    bench
        .step(&[0x66, 0x4d, 0x0f, 0x6e, 0xe7])
        .expect("no fault");
    assert_eq!(bench.cpu.fpu.xmm(12), PATTERN.into());
    bench
        .step(&[0x66, 0x4c, 0x0f, 0x7e, 0xe0])
        .expect("no fault");
    assert_eq!(bench.cpu.regs.get64(EAX), PATTERN);
    // movd eax, xmm12
    bench
        .step(&[0x66, 0x44, 0x0f, 0x7e, 0xe0])
        .expect("no fault");
    assert_eq!(bench.cpu.regs.get64(EAX), 0x5566_7788);
    // paddq xmm12, xmm12
    bench
        .step(&[0x66, 0x45, 0x0f, 0xd4, 0xe4])
        .expect("no fault");
    assert_eq!(bench.cpu.fpu.xmm(12), (PATTERN << 1).into());
    // cvtsi2sd xmm1, rax of 2^40
    bench.cpu.regs.set64(EAX, 1 << 40);
    bench
        .step(&[0xf2, 0x48, 0x0f, 0x2a, 0xc8])
        .expect("no fault");
    assert_eq!(
        bench.cpu.fpu.xmm(1),
        u128::from(1_099_511_627_776_f64.to_bits())
    );
}

#[test]
fn fxsave_of_64_bit_mode_saves_all_registers() {
    // fxsave [rsi]; fxsave64 [rsi]
    let (fxsave, fxsave64) = ([0x0f, 0xae, 0x06], [0x48, 0x0f, 0xae, 0x06]);
    let mut bench = processor(&[(ESI, DATA.into())]);
    bench.cpu.fpu.set_xmm(15, PATTERN.into());
    bench.poke(DATA + 416, 0x99_u8);
    // fld1
    bench.step(&[0xd9, 0xe8]).expect("no fault");
    bench.step(&fxsave).expect("no fault");
    assert_eq!(bench.peek::<u64>(DATA + 400), PATTERN);
    assert_eq!(bench.peek::<u8>(DATA + 416), 0x99);
    let selector = u32::from(bench.selector(SegReg::Cs));
    assert_eq!(
        (bench.peek(DATA + 8), bench.peek(DATA + 12)),
        (CODE, selector)
    );
    bench.step(&fxsave64).expect("no fault");
    assert_eq!(bench.peek::<u64>(DATA + 8), u64::from(CODE));
    // fxrstor64 [rsi]
    bench.cpu.fpu.set_xmm(15, 0);
    bench.step(&[0x48, 0x0f, 0xae, 0x0e]).expect("no fault");
    assert_eq!(bench.cpu.fpu.xmm(15), PATTERN.into());
    assert_eq!(bench.cpu.fpu.pointers().fcs, 0);
}
