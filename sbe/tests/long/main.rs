//! IA-32e mode on a whole processor: entered step by step by 32-bit code, and as the 64-bit boot protocol has it, with 4-level
//! paging.

mod users;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, LinearAddr, Memory, Mmu, Scalar};
use sbe::cpu::regs::{EAX, EBX, ECX, EDX, ESI, ESP};
use sbe::cpu::segment::SegReg;
use sbe::cpu::{CpuState, DescriptorTable};
use sbe::{CpuModel, EmptyBus, Engine, Exit, Vcpu, VcpuConfig, VcpuError, VcpuState};

const RAM: u64 = 16 << 20;
const GDT: u32 = 0x1000;
const IDT: u32 = 0x2000;
const CODE32: u32 = 0x5000;
const CODE64: u32 = 0x6000;
const HANDLER: u32 = 0x7000;
const STACK: u64 = 0x9000;
/// Page map, pointer table and directory; the directory maps the first 16 MiB.
const TABLES: u32 = 0x1_0000;
const DATA: u64 = 0x20_0000;
/// The linear address at which memory appears once more.
const HIGH: u64 = 0xffff_8000_0000_0000;
const KERNEL_CODE: u16 = 0x08;
const KERNEL_CODE64: u16 = 0x18;
const PATTERN: u64 = 0x1122_3344_5566_7788;

const ENGINES: [Engine; 2] = [Engine::Emulator, Engine::Translator];

fn config(model: CpuModel, engine: Engine) -> VcpuConfig {
    VcpuConfig {
        model,
        engine,
        ..VcpuConfig::default()
    }
}

fn memory_unit() -> Mmu {
    let model = CpuModel::X86_64.paging_model();
    let memory = Memory::for_width(RAM, model.linear_width).expect("RAM");
    Mmu::with_model(memory, model).expect("tables")
}

fn poke<T: Scalar>(vcpu: &Vcpu, address: u32, value: T) {
    let at = GuestPhys::new(address.into());
    vcpu.mmu.memory().store(at, value).expect("RAM");
}

fn place(
    vcpu: &Vcpu,
    address: u32,
    bits: u32,
    program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    let mut a = CodeAssembler::new(bits).expect("a bitness");
    program(&mut a).expect("valid operands");
    let bytes = a.assemble(address.into()).expect("code");
    let at = GuestPhys::new(address.into());
    vcpu.mmu.memory().write(at, &bytes).expect("RAM");
}

/// A processor of the model `x86-64`: see [`processor_of`].
fn processor(engine: Engine) -> Vcpu {
    processor_of(CpuModel::X86_64, engine)
}

/// A processor after RESET with tables in memory: 2 MiB pages, mapped at 0 and at [`HIGH`], a GDT, and an IDT whose #PF handler
/// halts.
fn processor_of(model: CpuModel, engine: Engine) -> Vcpu {
    processor_with(&config(model, engine))
}

/// The processor with this configuration: see [`processor_of`].
fn processor_with(config: &VcpuConfig) -> Vcpu {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 0x80;
    let vcpu = Vcpu::new(config, memory_unit()).expect("a processor");
    let tables = u64::from(TABLES);
    for entry in [0, 256] {
        poke(
            &vcpu,
            TABLES + 8 * entry,
            (tables + 0x1000) | PRESENT_WRITABLE,
        );
    }
    poke(&vcpu, TABLES + 0x1000, (tables + 0x2000) | PRESENT_WRITABLE);
    for page in 0..8 {
        let entry = u64::from(page) << 21 | LARGE | PRESENT_WRITABLE;
        poke(&vcpu, TABLES + 0x2000 + 8 * page, entry);
    }
    for (selector, descriptor) in [
        (0x08, 0x00cf_9b00_0000_ffff_u64),
        (0x10, 0x00cf_9300_0000_ffff),
        (0x18, 0x00af_9b00_0000_ffff),
    ] {
        poke(&vcpu, GDT + selector, descriptor);
    }
    let gate = u64::from(HANDLER) | u64::from(KERNEL_CODE64) << 16 | 0x8e << 40;
    poke(&vcpu, IDT + 14 * 16, gate);
    place(&vcpu, HANDLER, 64, |a| a.hlt());
    poke(&vcpu, DATA as u32, PATTERN);
    vcpu
}

fn run(vcpu: &mut Vcpu) {
    let exit = vcpu.run(&mut EmptyBus, 1000);
    assert_eq!(exit, Exit::Halt, "at {:x}", vcpu.cpu.eip);
}

#[test]
fn long_mode_is_entered_and_left_step_by_step() {
    for engine in ENGINES {
        let mut vcpu = processor(engine);
        vcpu.set_flat_entry(CODE32);
        vcpu.cpu.gdtr = DescriptorTable {
            base: GDT.into(),
            limit: 0x1f,
        };
        place(&vcpu, CODE32, 32, |a| {
            // CR4.PAE, CR3, EFER.LME, CR0.PG.
            a.mov(eax, 0x20)?;
            a.mov(cr4, eax)?;
            a.mov(eax, TABLES)?;
            a.mov(cr3, eax)?;
            a.mov(ecx, 0xc000_0080_u32)?;
            a.mov(eax, 0x100)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000_u32 as i32)?;
            a.mov(cr0, eax)?;
            // Compatibility mode: EFER.LMA is set.
            a.rdmsr()?;
            a.mov(esi, eax)?;
            // jmp far 0x18:CODE64
            a.db(&[0xea])?;
            a.db(&CODE64.to_le_bytes())?;
            a.db(&KERNEL_CODE64.to_le_bytes())
        });
        place(&vcpu, CODE64, 64, |a| {
            a.mov(rbx, HIGH | DATA)?;
            a.mov(rdx, qword_ptr(rbx))?;
            a.mov(rsp, STACK)?;
            a.hlt()?;
            // Back: far return to 32-bit code, which switches paging off.
            a.push(KERNEL_CODE as i32)?;
            a.push((CODE32 + 0x100) as i32)?;
            a.db(&[0x48, 0xcb])
        });
        place(&vcpu, CODE32 + 0x100, 32, |a| {
            a.mov(eax, cr0)?;
            a.and(eax, 0x7fff_ffff)?;
            a.mov(cr0, eax)?;
            a.rdmsr()?;
            a.hlt()
        });
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.regs.get(ESI), 0x500);
        assert!(vcpu.cpu.is_code64());
        assert_eq!(vcpu.cpu.regs.get64(EDX), PATTERN);
        run_on(&mut vcpu);
        assert!(!vcpu.cpu.is_long());
        assert_eq!(vcpu.cpu.regs.get(EAX), 0x100, "LMA is gone, LME stays");
        assert_eq!(vcpu.cpu.regs.get(ECX), 0xc000_0080);
    }
}

/// Goes on behind HLT.
fn run_on(vcpu: &mut Vcpu) {
    let mut state = vcpu.save(0);
    state.cpu.halted = false;
    vcpu.restore(&state, 0).expect("a state of its own");
    run(vcpu);
}

/// The processor of the model `x86-64` at 64-bit code: see [`booted_on`].
fn booted(engine: Engine, program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vcpu {
    booted_on(CpuModel::X86_64, engine, program)
}

/// The processor at 64-bit code, as the boot protocol has it.
fn booted_on(
    model: CpuModel,
    engine: Engine,
    program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vcpu {
    booted_with(&config(model, engine), program)
}

/// The processor with this configuration at 64-bit code, as the boot protocol has it.
fn booted_with(
    config: &VcpuConfig,
    program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vcpu {
    let mut vcpu = processor_with(config);
    place(&vcpu, CODE64, 64, program);
    vcpu.set_linux_entry64(CODE64.into(), 0x1234, TABLES.into());
    vcpu.cpu.gdtr = DescriptorTable {
        base: HIGH | u64::from(GDT),
        limit: 0x3f,
    };
    vcpu.cpu.idtr = DescriptorTable {
        base: HIGH | u64::from(IDT),
        limit: 0xfff,
    };
    vcpu.cpu.regs.set64(ESP, HIGH | STACK);
    vcpu
}

#[test]
fn the_boot_protocol_enters_64_bit_code() {
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            a.mov(rax, qword_ptr(DATA as i32))?;
            a.push(rax)?;
            a.pop(rbx)?;
            a.hlt()
        });
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.regs.get64(ESI), 0x1234);
        assert_eq!(vcpu.cpu.regs.get64(EBX), PATTERN);
    }
}

#[test]
fn a_page_fault_has_64_bits_of_cr2() {
    for engine in ENGINES {
        const ABSENT: u64 = 0x7fff_1234_5678;
        let mut vcpu = booted(engine, |a| {
            a.mov(rax, ABSENT)?;
            a.mov(rbx, qword_ptr(rax))?;
            a.hlt()
        });
        run(&mut vcpu);
        assert_eq!(
            (vcpu.cpu.cr2, vcpu.cpu.eip),
            (ABSENT, u64::from(HANDLER) + 1)
        );
        // The error code, below RIP, CS, RFLAGS, RSP and SS.
        let top = LinearAddr::new(vcpu.cpu.regs.get64(ESP));
        assert_eq!(top.get(), (HIGH | STACK) - 48);
        let frame = (
            vcpu.mmu.read::<u64>(top, mmu::Privilege::Supervisor),
            u64::from(CODE64) + 10,
        );
        assert_eq!(frame.0, Ok(0));
        let back = vcpu
            .mmu
            .read::<u64>(top.wrapping_add(8), mmu::Privilege::Supervisor);
        assert_eq!(back, Ok(frame.1));
    }
}

/// Maps the 2 MiB below and above 4 GiB at 4 MiB and 6 MiB.
fn map_around_4_gib(vcpu: &Vcpu) {
    for (pointer, directory, entry, physical) in
        [(3, 0x3000, 511, 0x40_0000), (4, 0x4000, 0, 0x60_0000)]
    {
        let table = TABLES + directory;
        poke(vcpu, TABLES + 0x1000 + 8 * pointer, u64::from(table) | 3);
        poke(vcpu, table + 8 * entry, physical | 0x83_u64);
    }
}

/// Each part of an operand has an address of its own, which the prefix cuts to 32 bits. A part may cross 4 GiB. The values are
/// those of the real CPU.
#[test]
fn the_parts_of_an_operand_wrap_at_4_gib_on_their_own() {
    for engine in ENGINES {
        let store = |start: u64, store: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
            let mut vcpu = booted(engine, |a| {
                a.mov(rbx, PATTERN << 32 | start)?;
                a.mov(rdi, rbx)?;
                a.mov(rax, 0x8877_6655_4433_2211_u64)?;
                a.mov(rcx, 0x8000_0080_u64)?;
                store(a)?;
                a.hlt()
            });
            map_around_4_gib(&vcpu);
            vcpu.cpu.cr4 |= 1 << 9;
            run(&mut vcpu);
            let bytes = |at| {
                let mut bytes = [0_u8; 8];
                let at = GuestPhys::new(at);
                vcpu.mmu.memory().read(at, &mut bytes).expect("RAM");
                bytes
            };
            [bytes(0x5f_fff8), bytes(0x60_0000), bytes(0)]
        };
        let fstp = store(0xffff_fffa, &|a| {
            a.fldpi()?;
            a.fstp(tbyte_ptr(ebx))
        });
        assert_eq!(fstp[0][2..], [0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda]);
        assert_eq!(fstp[1], [0x0f, 0xc9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fstp[2], [0, 0, 0x00, 0x40, 0, 0, 0, 0]);
        // FIP crosses 4 GiB; FCS follows at 2.
        let fnstenv = store(0xffff_fff2, &|a| a.fnstenv(ptr(ebx)));
        assert_eq!(fnstenv[2][6..], [0, 0], "FDP");
        assert_eq!((fnstenv[0][2], fnstenv[1][2]), (0xff, 0), "FTW");
        // The x87 registers come at 32, XMM registers at 160.
        let fxsave = store(0xffff_ffe0, &|a| {
            a.movq(mm0, rax)?;
            a.fxsave(ptr(ebx))
        });
        assert_eq!(fxsave[2], 0x8877_6655_4433_2211_u64.to_le_bytes());
        let maskmovq = store(0xffff_fffe, &|a| {
            a.movq(mm1, rax)?;
            a.movq(mm2, rcx)?;
            a.db(&[0x67, 0x0f, 0xf7, 0xca])
        });
        assert_eq!(maskmovq[0][6..], [0x11, 0]);
        assert_eq!(maskmovq[1], [0; 8]);
        assert_eq!(maskmovq[2], [0, 0x44, 0, 0, 0, 0, 0, 0]);
    }
}

/// Prefixes of ES, CS, SS and DS have no effect in 64-bit code, on the selector of an x87 operand neither.
#[test]
fn an_ignored_prefix_does_not_choose_the_selector_of_an_operand() {
    for engine in ENGINES {
        for (prefix, stack) in [(0x2e, false), (0x36, false), (0x3e, true)] {
            let mut vcpu = booted(engine, |a| {
                a.xor(eax, eax)?;
                a.mov(es, eax)?;
                a.mov(ss, eax)?;
                a.mov(rbx, DATA)?;
                a.mov(rbp, DATA)?;
                a.db(&[prefix, 0xdd, if stack { 0x45 } else { 0x43 }, 0])?;
                a.hlt()
            });
            vcpu.cpu.cr4 |= 1 << 9;
            run(&mut vcpu);
            let fds = vcpu.save(0).cpu.fpu.fds;
            assert_eq!(fds, if stack { 0 } else { 0x18 }, "{engine:?} {prefix:#x}");
        }
    }
}

/// CMPS looks up the page of its destination first: that of the source is not accessed if there is none.
#[test]
fn the_source_of_a_comparison_is_not_accessed_if_the_destination_faults() {
    for engine in ENGINES {
        for repeated in [false, true] {
            let mut vcpu = booted(engine, |a| {
                a.mov(rsi, DATA)?;
                a.mov(rdi, 0x7fff_1234_5678_u64)?;
                a.mov(ecx, 4)?;
                match repeated {
                    false => a.cmpsd()?,
                    true => a.repe().cmpsd()?,
                }
                a.hlt()
            });
            run(&mut vcpu);
            assert_eq!(vcpu.cpu.cr2, 0x7fff_1234_5678);
            let mut entry = [0_u8; 8];
            let at = GuestPhys::new(u64::from(TABLES) + 0x2008);
            vcpu.mmu.memory().read(at, &mut entry).expect("RAM");
            assert_eq!(entry[0] & 0x20, 0, "{engine:?}, repeated: {repeated}");
        }
    }
}

/// The page of the first eight bytes is looked up before the last two bytes are found not to be canonical, as on the real CPU.
#[test]
fn an_80_bit_operand_is_two_accesses() {
    for engine in ENGINES {
        const LAST: u64 = 0x7fff_ffff_fff7;
        let mut vcpu = booted(engine, |a| {
            a.mov(rbx, LAST)?;
            a.fld(tbyte_ptr(rbx))?;
            a.hlt()
        });
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.cr2, LAST);
    }
}

#[test]
fn code_runs_at_high_addresses_and_across_pages() {
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            a.mov(rax, HIGH | 0x3ffe)?;
            a.jmp(rax)
        });
        // mov eax, 42 across a page boundary, and HLT.
        let at = GuestPhys::new(0x3ffe);
        vcpu.mmu
            .memory()
            .write(at, &[0xb8, 42, 0, 0, 0, 0xf4])
            .expect("RAM");
        run(&mut vcpu);
        assert_eq!(
            (vcpu.cpu.regs.get64(EAX), vcpu.cpu.eip),
            (42, HIGH | 0x4004)
        );
    }
}

/// In the handler of the page fault, too.
#[test]
fn control_registers_are_read_by_emitted_code() {
    const ABSENT: u64 = 0x7fff_1234_5678;
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            a.mov(r9, cr2)?;
            a.mov(rbx, cr0)?;
            a.mov(r14, cr3)?;
            a.mov(rdx, cr4)?;
            a.mov(rax, ABSENT)?;
            a.mov(rax, qword_ptr(rax))
        });
        place(&vcpu, HANDLER, 64, |a| {
            a.mov(r10, cr2)?;
            a.mov(rsi, cr2)?;
            a.hlt()
        });
        run(&mut vcpu);
        let cpu = &vcpu.cpu;
        let read = [9, EBX, 14, EDX, 10, ESI].map(|number| cpu.regs.get64(number));
        let held = [0, cpu.cr0.into(), cpu.cr3, cpu.cr4.into(), ABSENT, ABSENT];
        assert_eq!(read, held, "{engine:?}");
        if let Some(stats) = vcpu.translation() {
            let exits = [stats.exits.emulate, stats.exits.miss];
            assert!(exits[0] <= 1 && exits[1] == 1, "{exits:?}");
        }
    }
}

/// Kernels do these at each context switch. Only RDMSR and HLT are left to the emulator.
#[test]
fn a_context_switch_runs_as_emitted_code() {
    const BASES: [(u32, u64); 3] = [
        (0xc000_0100, 0x7fff_0020_0000),
        (0xc000_0101, HIGH | 0x20_0000),
        (0xc000_0102, HIGH | DATA),
    ];
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            for (msr, base) in BASES {
                a.mov(ecx, msr)?;
                a.mov(eax, base as u32)?;
                a.mov(edx, (base >> 32) as u32)?;
                a.wrmsr()?;
            }
            a.mov(r9, qword_ptr(16).gs())?;
            a.mov(rbx, PATTERN)?;
            a.mov(r14, PATTERN)?;
            // MOV BX, CS and MOV R14W, CS.
            a.db(&[0x66, 0x8c, 0xcb, 0x66, 0x41, 0x8c, 0xce])?;
            a.mov(r13, 0x103_u64)?;
            a.mov(rsi, DATA)?;
            a.bts(qword_ptr(rsi), r13)?;
            a.mov(r15, -63_i64)?;
            a.bts(qword_ptr(rsi + 16), r15)?;
            a.rdmsr()?;
            a.hlt()
        });
        poke(&vcpu, DATA as u32 + 16, PATTERN);
        run(&mut vcpu);
        let cpu = &vcpu.cpu;
        let bases = [cpu.seg(SegReg::Fs).base, cpu.seg(SegReg::Gs).base];
        assert_eq!(bases, [BASES[0].1, BASES[1].1], "{engine:?}");
        let read = cpu.regs.get64(EDX) << 32 | cpu.regs.get64(EAX);
        assert_eq!(read, BASES[2].1, "{engine:?}");
        assert_eq!(cpu.regs.get64(9), PATTERN);
        // CS of the boot protocol.
        let selectors = PATTERN & !0xffff | 0x10;
        assert_eq!(
            [EBX, 14].map(|number| cpu.regs.get64(number)),
            [selectors; 2]
        );
        let words = [8, 32].map(|at| vcpu.mmu.memory().load::<u64>(GuestPhys::new(DATA + at)));
        assert_eq!(words, [Ok(2), Ok(8)], "{engine:?}");
        if let Some(stats) = vcpu.translation() {
            assert!(stats.exits.emulate <= 2, "{}", stats.exits.emulate);
        }
    }
}

/// A base that is not canonical raises #GP in both halves of the addresses between.
#[test]
fn bases_that_are_not_canonical_are_refused() {
    for engine in ENGINES {
        for base in [1_u64 << 47, 0xffff_7fff_ffff_ffff] {
            let mut vcpu = booted(engine, |a| {
                a.mov(ecx, 0xc000_0100_u32)?;
                a.mov(eax, base as u32)?;
                a.mov(edx, (base >> 32) as u32)?;
                a.wrmsr()?;
                a.hlt()
            });
            // #GP halts as #PF does.
            let handler = |vector: u32| {
                [0, 8].map(|half| {
                    let at = GuestPhys::new((IDT + 16 * vector + half).into());
                    vcpu.mmu.memory().load::<u64>(at).expect("RAM")
                })
            };
            for (half, value) in [0, 8].into_iter().zip(handler(14)) {
                poke(&vcpu, IDT + 16 * 13 + half, value);
            }
            run(&mut vcpu);
            assert_eq!(vcpu.cpu.eip, u64::from(HANDLER) + 1, "{engine:?}");
            assert_eq!(vcpu.cpu.seg(SegReg::Fs).base, 0);
        }
    }
}

#[test]
fn a_state_of_64_bit_mode_is_restored() {
    let mut vcpu = booted(Engine::Emulator, |a| {
        a.mov(r15, PATTERN)?;
        a.movq(xmm12, r15)?;
        a.hlt()
    });
    vcpu.cpu.cr4 |= 1 << 9;
    run(&mut vcpu);
    let state = vcpu.save(0);
    let mut other =
        Vcpu::new(&config(CpuModel::X86_64, Engine::Emulator), memory_unit()).expect("a processor");
    other.restore(&state, 0).expect("a valid state");
    assert_eq!(other.save(0), state);
    assert!(other.cpu.is_code64());
    assert_eq!(state.cpu.general[15], PATTERN);
    assert_eq!(state.cpu.fpu.xmm[12], PATTERN.into());
    let refused = |change: fn(&mut CpuState)| {
        let mut state: VcpuState = state.clone();
        change(&mut state.cpu);
        vcpu_refuses(&state)
    };
    assert_eq!(refused(|cpu| cpu.efer &= !0x400), "IA32_EFER");
    assert_eq!(refused(|cpu| cpu.cr4 = 0), "CR4");
    let in_virtual_8086_mode = |cpu: &mut CpuState| {
        cpu.eflags |= 1 << 17;
        cpu.cpl = 3;
    };
    assert_eq!(refused(in_virtual_8086_mode), "EFLAGS");
    assert_eq!(refused(|cpu| cpu.gdtr.base = 1 << 47), "GDTR");
    assert_eq!(refused(|cpu| cpu.segments[4].base = 1 << 47), "FS");
    assert_eq!(refused(|cpu| cpu.cr3 = 1 << 40), "CR3");
    assert_eq!(refused(|cpu| cpu.cr8 = 16), "CR8");
    assert_eq!(refused(|cpu| cpu.version = 1), "version");
}

/// The field for which a processor of the model refuses `state`.
fn vcpu_refuses(state: &VcpuState) -> &'static str {
    let mut vcpu =
        Vcpu::new(&config(CpuModel::X86_64, Engine::Emulator), memory_unit()).expect("a processor");
    vcpu.restore(state, 0).expect_err("an invalid state").field
}

#[test]
fn another_mmu_is_refused() {
    let other = Mmu::new(Memory::new(RAM).expect("RAM")).expect("tables");
    let mismatched = Vcpu::new(&config(CpuModel::X86_64, Engine::Emulator), other);
    assert!(matches!(mismatched, Err(VcpuError::OtherMmu)));
}

/// The general registers that random programs use: all but RSP, which is the stack's, and RSI, which points at data.
const WORDS: [AsmRegister64; 14] = [
    rax, rcx, rdx, rbx, rbp, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
];
/// The lower halves of [`WORDS`].
const HALVES: [AsmRegister32; 14] = [
    eax, ecx, edx, ebx, ebp, edi, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d,
];

/// OF and AF, which some of the instructions leave undefined.
const UNDEFINED: u32 = 1 << 11 | 1 << 4;

/// The next of a sequence of pseudo-random numbers below `bound`.
fn draw(seed: &mut u64, bound: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 11) as usize % bound
}

/// Assembles an instruction on two registers, or on one and memory at RSI.
fn instruction(a: &mut CodeAssembler, seed: &mut u64) -> Result<(), IcedError> {
    let (to, from) = (draw(seed, WORDS.len()), draw(seed, WORDS.len()));
    let (x, y, half, other) = (WORDS[to], WORDS[from], HALVES[to], HALVES[from]);
    let place = 8 * draw(seed, 32) as i32;
    match draw(seed, 26) {
        0 => a.mov(x, y),
        1 => a.mov(half, other),
        2 => a.add(x, y),
        3 => a.add(half, other),
        4 => a.xor(half, other),
        5 => a.sub(x, y),
        6 => a.cmp(x, y),
        7 => a.cmp(half, 77),
        8 => a.test(x, y),
        9 => a.adc(half, other),
        10 => a.and(x, y),
        11 => a.rol(half, 7u32),
        12 => a.shr(x, 3u32),
        13 => a.lea(x, ptr(y + x * 2 + 5)),
        14 => a.lea(half, ptr(y + 9)),
        15 => a.cmovb(x, y),
        16 => a.cmove(half, other),
        17 => a.movsxd(x, other),
        18 => a.mov(x, qword_ptr(rsi + place)),
        19 => a.mov(qword_ptr(rsi + place), x),
        20 => a.add(half, dword_ptr(rsi + place)),
        21 => a.xchg(x, y),
        22 => a.push(x),
        23 => a.pop(x),
        24 => a.not(half),
        _ => a.xadd(x, y),
    }
}

/// Instructions that follow each other share scratch registers, and the checks of their accesses islands.
#[test]
fn engines_agree_on_sequences() {
    for number in 1..=300 {
        let [emulated, translated] = ENGINES.map(|engine| {
            let mut vcpu = booted(engine, |a| {
                let seed = &mut 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number);
                for (place, register) in (0..).zip(WORDS) {
                    a.mov(register, PATTERN.rotate_left(5 * place))?;
                }
                a.mov(rsi, DATA)?;
                a.sub(rsp, 0x800)?;
                for _ in 0..60 {
                    instruction(a, seed)?;
                }
                a.hlt()
            });
            run(&mut vcpu);
            let registers: [u64; 16] = std::array::from_fn(|at| vcpu.cpu.regs.get64(at as u8));
            let mut data = [0; 256];
            let at = GuestPhys::new(DATA);
            vcpu.mmu.memory().read(at, &mut data).expect("RAM");
            let flags = vcpu.cpu.eflags & !UNDEFINED;
            (registers, flags, vcpu.cpu.eip, data)
        });
        assert_eq!(emulated, translated, "{number}");
    }
}

/// One instruction of each extension of x86-64-v2, on registers, and MONITOR and MWAIT, which no model has.
const EXTENSIONS: [(&[u8], bool); 10] = [
    (&[0xf2, 0x0f, 0x12, 0xc8], true),       // movddup xmm1, xmm0: SSE3
    (&[0xdf, 0x08], true),                   // fisttp word [rax]: SSE3
    (&[0x0f, 0x38, 0x1c, 0xc8], true),       // pabsb mm1, mm0: SSSE3
    (&[0x66, 0x0f, 0x38, 0x17, 0xc8], true), // ptest xmm1, xmm0: SSE4.1
    (&[0x66, 0x0f, 0x3a, 0x63, 0xc8, 0], true), // pcmpistri xmm1, xmm0, 0: SSE4.2
    (&[0xf2, 0x0f, 0x38, 0xf0, 0xca], true), // crc32 ecx, dl: SSE4.2
    (&[0xf3, 0x0f, 0xb8, 0xca], true),       // popcnt ecx, edx
    (&[0x0f, 0x01, 0xc8], false),            // monitor
    (&[0x0f, 0x01, 0xc9], false),            // mwait
    (&[0x66, 0x0f, 0x38, 0xdc, 0xc8], false), // aesenc xmm1, xmm0
];

#[test]
fn the_instructions_of_x86_64_v2_are_undefined_on_the_other_models() {
    const UNDEFINED: u32 = HANDLER + 0x100;
    let models = [(CpuModel::X86_64, false), (CpuModel::X86_64V2, true)];
    for (engine, (model, has_v2)) in ENGINES
        .into_iter()
        .flat_map(|engine| models.map(|model| (engine, model)))
    {
        for (bytes, is_of_v2) in EXTENSIONS {
            let mut vcpu = booted_on(model, engine, |a| {
                a.mov(rax, cr4)?;
                a.or(eax, 0x200)?;
                a.mov(cr4, rax)?;
                a.mov(eax, DATA as u32)?;
                a.db(bytes)?;
                a.hlt()
            });
            let gate = u64::from(UNDEFINED) | u64::from(KERNEL_CODE64) << 16 | 0x8e << 40;
            poke(&vcpu, IDT + 6 * 16, gate);
            place(&vcpu, UNDEFINED, 64, |a| a.hlt());
            run(&mut vcpu);
            let is_undefined = vcpu.cpu.eip == u64::from(UNDEFINED) + 1;
            let what = format!("{bytes:02x?} on {}, {engine:?}", model.name());
            assert_eq!(is_undefined, !(has_v2 && is_of_v2), "{what}");
        }
    }
}

#[test]
fn string_comparisons_take_and_return_general_registers() {
    for engine in ENGINES {
        let mut vcpu = booted_on(CpuModel::X86_64V2, engine, |a| {
            a.mov(rax, cr4)?;
            a.or(eax, 0x200)?;
            a.mov(cr4, rax)?;
            a.mov(ebx, DATA as u32 + 0x101)?;
            a.movdqu(xmm1, xmmword_ptr(rbx))?;
            // Lengths with an upper half, and an index that has one before.
            a.mov(rax, 0x5_0000_0001_u64)?;
            a.mov(rdx, 0x7_0000_0006_u64)?;
            a.mov(rcx, u64::MAX)?;
            // Where is the one byte equal: not aligned, and no #GP.
            a.pcmpestri(xmm1, xmmword_ptr(rbx + 2), 0)?;
            a.hlt()
        });
        let text = GuestPhys::new(DATA + 0x101);
        vcpu.mmu.memory().write(text, b"x.....x...").expect("RAM");
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.eip >> 12, u64::from(CODE64) >> 12, "{engine:?}");
        assert_eq!(vcpu.cpu.regs.get64(ECX), 4, "{engine:?}");
    }
}

#[test]
fn a_state_of_a_model_with_other_instructions_is_refused() {
    let state = processor_of(CpuModel::X86_64V2, Engine::Emulator).save(0);
    assert_eq!(vcpu_refuses(&state), "model's instructions");
}

/// An instruction of 32-bit code that continues behind 4 GiB leaves its segment, whatever lies at 0 (SDM Vol. 3A, 5.3 "Limit
/// Checking", leaves it open). The engines agree.
#[test]
fn no_instruction_continues_behind_4_gib() {
    const BEGIN: u32 = 0x100;
    const LAST: u32 = 0xffff_fffe;
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            a.mov(esp, STACK as u32)?;
            a.push(i32::from(KERNEL_CODE))?;
            a.push(BEGIN as i32)?;
            a.db(&[0x48, 0xcb])
        });
        map_around_4_gib(&vcpu);
        let gate = u64::from(HANDLER) | u64::from(KERNEL_CODE64) << 16 | 0x8e << 40;
        poke(&vcpu, IDT + 13 * 16, gate);
        place(&vcpu, BEGIN, 32, |a| {
            a.xor(eax, eax)?;
            a.mov(ebx, LAST)?;
            a.jmp(ebx)
        });
        // MOV EAX, and HLT behind it.
        poke(&vcpu, 0x5f_fffe, 0x11b8_u16);
        poke(&vcpu, 0, 0xf444_3322_u32);
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.eip, u64::from(HANDLER) + 1, "{engine:?}");
        assert_eq!(vcpu.cpu.regs.get64(EAX), 0, "{engine:?}");
        let top = LinearAddr::new(vcpu.cpu.regs.get64(ESP));
        let back = vcpu
            .mmu
            .read::<u64>(top.wrapping_add(8), mmu::Privilege::Supervisor);
        assert_eq!(back, Ok(LAST.into()), "{engine:?}");
    }
}

/// The walk for an access changes the instruction that makes it: the entry that it marks as accessed and dirty is code. The
/// instruction was fetched before.
#[test]
fn a_walk_does_not_change_the_instruction_that_it_is_for() {
    // The second 2 MiB, where `DATA` is.
    const ENTRY: u32 = TABLES + 0x2008;
    for engine in ENGINES {
        let mut vcpu = booted(engine, |a| {
            a.mov(eax, DATA as u32)?;
            a.mov(ecx, ENTRY)?;
            a.jmp(rcx)
        });
        // add dword [rax], 0x20; add [rax], al, twice; jnz to the byte behind the start of the third entry from here.
        poke(&vcpu, ENTRY, 0x7500_0000_0020_0083_u64);
        poke(&vcpu, ENTRY + 8, 0x10_u64);
        // hlt
        poke(&vcpu, ENTRY + 0x18, 0xf400_u64);
        run(&mut vcpu);
        assert_eq!(vcpu.cpu.eip, u64::from(ENTRY) + 0x1a, "{engine:?}");
        let mut data = [0; 8];
        let at = GuestPhys::new(DATA);
        vcpu.mmu.memory().read(at, &mut data).expect("RAM");
        assert_eq!(u64::from_le_bytes(data), PATTERN + 0x20, "{engine:?}");
    }
}
