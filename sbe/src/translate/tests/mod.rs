//! Small programs on both engines: registers, flags and memory must agree.

mod crowded;
mod direct;
mod strings;
mod users;
mod windows;
mod x87;

use crate::{EmptyBus, Engine, Exit, Vcpu, VcpuConfig, Windows};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, Memory, Mmu};
use users::{HANDLER, LAST_SELECTOR, USER, set_up, write, write_task};

type Program = Result<(), IcedError>;

const ORIGIN: u32 = 0x0010_0000;
const STACK: u32 = 0x0020_0000;
const MEMORY: u64 = 4 << 20;

/// A processor about to execute `code`.
fn processor(config: &VcpuConfig, code: &[u8]) -> Vcpu {
    let phys = Memory::new(MEMORY).expect("memory");
    phys.write(GuestPhys::new(ORIGIN.into()), code)
        .expect("code fits");
    let mmu = Mmu::new(phys).expect("tables");
    let mut vcpu = Vcpu::new(config, mmu).expect("processor");
    vcpu.set_linux_entry(ORIGIN, 0);
    vcpu.cpu.regs.set(4, STACK);
    vcpu
}

/// Runs `code` to its HLT.
fn run(config: &VcpuConfig, code: &[u8]) -> Vcpu {
    let engine = config.engine;
    let mut vcpu = processor(config, code);
    for _ in 0..10_000 {
        match vcpu.run(&mut EmptyBus, 1000) {
            Exit::Budget => {}
            Exit::Halt => return vcpu,
            other => panic!("{engine:?}: {other:?} at {:#x}", vcpu.cpu.eip),
        }
    }
    panic!("{engine:?} does not halt: EIP {:#x}", vcpu.cpu.eip);
}

fn agree(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vcpu {
    agree_within(VcpuConfig::default().code_cache, program)
}

/// Runs a program on both engines, with and without windows, and with room for `code_cache` bytes of translated code.
fn agree_within(
    code_cache: usize,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vcpu {
    let code = &assemble(program);
    let config = |engine, windows| VcpuConfig {
        engine,
        windows,
        code_cache,
        ..VcpuConfig::default()
    };
    let reference = run(&config(Engine::Emulator, Windows::Never), code);
    let windowed = run(&config(Engine::Translator, Windows::Always), code);
    let translated = run(&config(Engine::Translator, Windows::Never), code);
    for other in [&windowed, &translated] {
        assert_eq!(reference.cpu.fpu, other.cpu.fpu);
        assert_eq!(reference.cpu.regs, other.cpu.regs);
        assert_eq!(reference.cpu.eip, other.cpu.eip);
        assert_eq!(reference.cpu.eflags, other.cpu.eflags);
        assert!(same_memory(&reference, other), "memory differs");
    }
    translated
}

fn assemble(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    program(&mut assembler).expect("a program");
    assembler.assemble(ORIGIN.into()).expect("assembles")
}

/// Whether two processors have the same in their memory above 1 MiB.
fn same_memory(one: &Vcpu, other: &Vcpu) -> bool {
    let frame = |vcpu: &Vcpu, at| {
        let mut bytes = [0; 4096];
        let memory = vcpu.mmu.memory();
        memory.read(GuestPhys::new(at), &mut bytes).expect("memory");
        bytes
    };
    let mut frames = (u64::from(ORIGIN)..MEMORY).step_by(4096);
    frames.all(|at| frame(one, at) == frame(other, at))
}

#[test]
fn straight_line_arithmetic() {
    agree(|a| {
        a.mov(eax, 5)?;
        a.add(eax, eax)?;
        a.lea(ecx, ptr(eax + eax * 4 + 7))?;
        a.sub(ecx, 1000)?;
        a.hlt()
    });
}

#[test]
fn a_loop_within_the_page() {
    let vcpu = agree(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 100)?;
        a.xor(eax, eax)?;
        a.set_label(&mut again)?;
        a.add(eax, ecx)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    assert_eq!(vcpu.cpu.regs.get(0), 5050);
}

#[test]
fn loads_and_stores() {
    agree(|a| {
        a.mov(ebx, STACK as i32)?;
        a.mov(dword_ptr(ebx + 4), 0x1234_5678)?;
        a.add(byte_ptr(ebx + 5), 0x77)?;
        a.mov(ecx, dword_ptr(ebx + 5))?;
        a.movzx(edx, word_ptr(ebx + 4))?;
        a.mov(esi, dword_ptr(ebx + 4))?;
        a.adc(dword_ptr(ebx + 8), esi)?;
        a.hlt()
    });
}

#[test]
fn calls_and_the_stack() {
    agree(|a| {
        let mut function = a.create_label();
        let mut over = a.create_label();
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.mov(eax, dword_ptr(ebp + 8))?;
        a.imul_3(eax, eax, 3)?;
        a.leave()?;
        a.ret_1(4u32)?;
        a.set_label(&mut over)?;
        a.push(14)?;
        a.call(function)?;
        a.push(eax)?;
        a.push(dword_ptr(esp))?;
        a.pop(edx)?;
        a.mov(edi, esp)?;
        a.hlt()
    });
}

#[test]
fn a_stack_frame_across_two_pages() {
    // The same code with the frame in one page and, further on, over a boundary: groups and their variants.
    agree(|a| {
        let mut function = a.create_label();
        let mut again = a.create_label();
        let mut over = a.create_label();
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.push(ebx)?;
        a.push(esi)?;
        a.sub(esp, 40)?;
        a.mov(dword_ptr(esp + 4), eax)?;
        a.add(dword_ptr(esp + 4), 7)?;
        a.mov(esi, dword_ptr(esp + 4))?;
        a.mov(word_ptr(esp + 33), si)?;
        a.movzx(ebx, byte_ptr(esp + 34))?;
        a.lea(eax, ptr(ebx + esi * 2))?;
        a.add(esp, 40)?;
        a.pop(esi)?;
        a.pop(ebx)?;
        a.ret()?;
        a.set_label(&mut over)?;
        a.mov(edi, 0)?;
        a.set_label(&mut again)?;
        a.lea(esp, ptr(edi + (STACK as i32 - 2048)))?;
        a.mov(eax, edi)?;
        a.call(function)?;
        a.add(ebp, eax)?;
        a.add(edi, 4)?;
        a.cmp(edi, 8192)?;
        a.jb(again)?;
        a.hlt()
    });
}

#[test]
fn an_instruction_across_two_pages() {
    let vcpu = agree(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 50)?;
        a.set_label(&mut again)?;
        for _ in 0..4087 {
            a.nop()?;
        }
        // Begins at offset 0xffe of the first page.
        a.mov(dword_ptr(STACK), 0x1234_5678)?;
        a.add(eax, dword_ptr(STACK))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
    let exits = vcpu.translation().expect("is translated").exits.emulate;
    assert!(exits < 10, "{exits} instructions were left to the emulator");
}

/// Two repeated string instructions of elements of `size` bytes, the first on `source` bytes ahead of the end of a page, both on
/// `target` bytes ahead of the end of another. The target holds other data `differs` bytes behind its beginning.
#[derive(Clone, Copy)]
struct Strings {
    size: u32,
    compare: bool,
    source: u32,
    target: u32,
    differs: u32,
}

impl Strings {
    /// Assembles the two with a count, and what keeps their results on the stack.
    fn assemble(self, a: &mut CodeAssembler, count: u32) -> Program {
        const SOURCE: u32 = STACK + 0x1000;
        const TARGET: u32 = STACK + 0x5000;
        let [source, target] = [SOURCE - self.source, TARGET - self.target];
        a.mov(eax, 0x0101_0101)?;
        if self.compare {
            a.mov(dword_ptr(target + self.differs), eax)?;
        } else {
            for at in (0..60).step_by(4) {
                a.mov(dword_ptr(source + at), 0x0203_0405 + at as i32)?;
            }
        }
        a.mov(esi, source)?;
        for repeated in [0, 1] {
            a.mov(edi, target)?;
            a.mov(ecx, count)?;
            match (self.compare, repeated, self.size) {
                (false, 0, 1) => a.rep().movsb()?,
                (false, 0, 2) => a.rep().movsw()?,
                (false, 0, _) => a.rep().movsd()?,
                (false, _, 1) => a.rep().stosb()?,
                (false, _, 2) => a.rep().stosw()?,
                (false, _, _) => a.rep().stosd()?,
                (true, 0, 1) => a.repe().cmpsb()?,
                (true, 0, 2) => a.repe().cmpsw()?,
                (true, 0, _) => a.repe().cmpsd()?,
                (true, _, 1) => a.repne().scasb()?,
                (true, _, 2) => a.repne().scasw()?,
                (true, _, _) => a.repne().scasd()?,
            }
            a.pushfd()?;
            a.pushad()?;
            if repeated == 0 && !self.compare {
                // What was moved, before it is overwritten.
                a.mov(edx, dword_ptr(target + self.differs))?;
                a.push(edx)?;
            }
        }
        Ok(())
    }
}

fn strings_across_pages(compare: bool) {
    let starts = [
        (0x800, 7),
        (9, 0x800),
        (8, 8),
        (4, 13),
        (13, 2),
        (0, 5),
        (3, 0),
    ];
    for (source, target) in starts {
        for size in [1, 2, 4] {
            for differs in [0, 4, 8, 12, 3000] {
                let strings = Strings {
                    size,
                    compare,
                    source,
                    target,
                    differs,
                };
                agree(|a| {
                    for count in [1, 3, 40, 1100, 2300] {
                        strings.assemble(a, count)?;
                    }
                    a.hlt()
                });
            }
        }
    }
}

#[test]
fn repeated_moves_and_stores_across_pages() {
    strings_across_pages(false);
}

#[test]
fn repeated_comparisons_across_pages() {
    strings_across_pages(true);
}

#[test]
fn repeated_strings() {
    agree(|a| {
        let mut again = a.create_label();
        a.mov(ebp, 20)?;
        a.set_label(&mut again)?;
        for (count, size) in [(0, 1), (1, 4), (7, 2), (100, 4), (3000, 1), (2000, 4)] {
            a.mov(ecx, count)?;
            a.lea(edi, ptr(ebp * 4 + STACK))?;
            match size {
                1 => a.rep().stosb()?,
                2 => a.rep().stosw()?,
                _ => a.rep().stosd()?,
            }
            a.mov(ecx, count)?;
            a.mov(esi, STACK)?;
            a.lea(edi, ptr(ebp + (STACK + 0x3001)))?;
            match size {
                1 => a.rep().movsb()?,
                2 => a.rep().movsw()?,
                _ => a.rep().movsd()?,
            }
            a.mov(byte_ptr(STACK + 5), 0x77)?;
            a.mov(ecx, count)?;
            a.mov(esi, STACK)?;
            a.mov(edi, STACK + 1)?;
            a.repe().cmpsb()?;
            a.pushfd()?;
            a.pop(edx)?;
            a.mov(al, 0x77)?;
            a.mov(ecx, count)?;
            a.mov(edi, STACK)?;
            a.repne().scasb()?;
            a.adc(eax, ecx)?;
            a.xor(eax, edx)?;
        }
        a.dec(ebp)?;
        a.jnz(again)?;
        a.hlt()
    });
}

/// Page-fault handlers read CR2 each time.
#[test]
fn control_registers_are_read_by_emitted_code() {
    const ROUNDS: u32 = 500;
    let vcpu = agree(|a| {
        let mut again = a.create_label();
        a.mov(eax, 0x8765_4321_u32)?;
        a.mov(cr2, eax)?;
        a.mov(edi, ROUNDS)?;
        a.set_label(&mut again)?;
        a.mov(ecx, cr0)?;
        a.mov(ebx, cr2)?;
        a.mov(edx, cr3)?;
        a.mov(esi, cr4)?;
        a.add(ebp, ebx)?;
        a.dec(edi)?;
        a.jnz(again)?;
        a.hlt()
    });
    let [read, sum] = [3, 5].map(|number| vcpu.cpu.regs.get(number));
    assert_eq!(
        (read, sum),
        (0x8765_4321, 0x8765_4321_u32.wrapping_mul(ROUNDS))
    );
    let exits = vcpu.translation().expect("a translator").exits.emulate;
    assert!(exits < 10, "{exits}");
}

/// The direction is not known where the code is translated.
#[test]
fn single_strings_in_either_direction() {
    const ROUNDS: u32 = 500;
    let vcpu = agree(|a| {
        let (mut again, mut either) = (a.create_label(), a.create_label());
        a.mov(ebp, ROUNDS as i32)?;
        a.mov(esi, STACK + 0x800)?;
        a.mov(edi, STACK + 0x1800)?;
        a.set_label(&mut again)?;
        a.cld()?;
        a.test(ebp, 0x24)?;
        a.jz(either)?;
        a.std()?;
        a.set_label(&mut either)?;
        a.lodsb()?;
        a.add(al, 3)?;
        a.stosb()?;
        a.movsw()?;
        a.stosd()?;
        a.scasb()?;
        a.adc(eax, ebp)?;
        a.movsb()?;
        a.lodsd()?;
        a.movsd()?;
        a.scasw()?;
        a.sbb(eax, edi)?;
        a.dec(ebp)?;
        a.jnz(again)?;
        a.cld()?;
        a.hlt()
    });
    assert!(vcpu.cpu.retired < u64::from(ROUNDS), "{}", vcpu.cpu.retired);
}

#[test]
fn a_descriptor_changes_between_two_loads() {
    const GDT: u32 = 0x0018_0000;
    agree(|a| {
        let mut again = a.create_label();
        a.mov(dword_ptr(GDT - 6), 0x2f | ((GDT & 0xffff) << 16) as i32)?;
        a.mov(word_ptr(GDT - 2), (GDT >> 16) as i32)?;
        // Data from 0 with an accessed bit, 4 GiB.
        a.mov(dword_ptr(GDT + 40), 0x0000_ffff)?;
        a.mov(dword_ptr(GDT + 44), 0x00cf_9300)?;
        a.lgdt(ptr(GDT - 6))?;
        a.mov(ecx, 40)?;
        a.set_label(&mut again)?;
        a.mov(eax, 40)?;
        a.mov(fs, ax)?;
        a.mov(fs, ax)?;
        a.mov(dword_ptr(STACK + 0x100), ecx)?;
        a.add(ebx, dword_ptr(STACK + 0x80).fs())?;
        a.push(fs)?;
        a.pop(fs)?;
        // The base grows.
        a.add(word_ptr(GDT + 42), 4)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn divisions() {
    agree(|a| {
        let mut again = a.create_label();
        a.mov(ecx, 200)?;
        a.mov(ebx, 0x1357_9bdfu32 as i32)?;
        a.set_label(&mut again)?;
        a.imul_3(ebx, ebx, 1_103_515_245)?;
        a.add(ebx, 12345)?;
        a.mov(eax, ebx)?;
        a.xor(edx, edx)?;
        a.div(ecx)?;
        a.add(esi, eax)?;
        a.mov(eax, ebx)?;
        a.cdq()?;
        a.idiv(ecx)?;
        a.xor(edi, edx)?;
        a.mov(eax, ebx)?;
        a.mov(edx, ecx)?;
        a.dec(edx)?;
        a.div(ecx)?;
        a.add(esi, eax)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.hlt()
    });
}

#[test]
fn high_bytes_beside_the_counter() {
    agree(|a| {
        a.mov(ecx, 0x1122_3344)?;
        a.mov(eax, 0x5566_7788)?;
        a.mov(ch, al)?;
        a.mov(cl, ah)?;
        a.add(ah, cl)?;
        a.xchg(ch, dh)?;
        a.mov(byte_ptr(STACK + 3), ch)?;
        a.mov(dh, byte_ptr(STACK + 3))?;
        a.cmp(byte_ptr(STACK + 3), ah)?;
        a.movzx(ebx, ch)?;
        a.shl(ecx, cl)?;
        a.rcr(dword_ptr(STACK), cl)?;
        a.shld(ecx, eax, cl)?;
        a.test(ch, 0x40)?;
        a.hlt()
    });
}

#[test]
fn user_code_behind_sysexit_does_not_see_what_the_kernel_sees() {
    const FRESH: u32 = 0x0027_0000;
    const SECRET: u32 = 0x0028_0000;
    let vcpu = agree(|a| {
        // All pages are the user's but one. The task segment is for the way back.
        let task = write_task(a)?;
        // pop esi; hlt
        write(a, HANDLER, 0xf45e)?;
        // add eax, [FRESH]; mov ebx, [SECRET]
        write(a, USER, FRESH << 16 | 0x0503)?;
        write(a, USER + 4, FRESH >> 16 | 0x1d8b << 16)?;
        write(a, USER + 8, SECRET)?;
        set_up(a, (SECRET, SECRET | 3), task)?;
        a.mov(eax, LAST_SELECTOR)?;
        a.ltr(ax)?;
        a.mov(ecx, 0x174)?;
        a.mov(eax, 8)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        write(a, SECRET, 0x5ec2e7)?;
        a.mov(ecx, STACK as i32 - 0x1000)?;
        a.mov(edx, USER as i32)?;
        a.sysexit()
    });
    // A read by the user of a page that is there.
    assert_eq!(vcpu.cpu.regs.get(6), 5);
    assert_ne!(vcpu.cpu.regs.get(3), 0x5e_c2e7);
}

#[test]
fn code_behind_a_failed_group_changes() {
    // Offset of the constant that is replaced: the assertion on the sum fails if it is another.
    const CONSTANT: u32 = ORIGIN + 105;
    let vcpu = agree(|a| {
        let (mut again, mut done) = (a.create_label(), a.create_label());
        a.mov(ebp, 2)?;
        // The group does not lie in one page, so its plain variant executes, and continues beyond the end of the fragment.
        a.mov(esp, STACK as i32 + 0xffc)?;
        a.jmp(again)?;
        a.set_label(&mut again)?;
        for _ in 0..60 {
            a.inc(eax)?;
        }
        a.mov(dword_ptr(esp), eax)?;
        a.mov(dword_ptr(esp + 4), eax)?;
        a.add(eax, dword_ptr(esp + 8))?;
        for _ in 0..20 {
            a.inc(eax)?;
        }
        a.add(ebx, 0x1111_1111)?;
        a.dec(ebp)?;
        a.jz(done)?;
        a.mov(dword_ptr(CONSTANT), 0x2222_2222)?;
        a.jmp(again)?;
        a.set_label(&mut done)?;
        a.hlt()
    });
    assert_eq!(vcpu.cpu.regs.get(3), 0x3333_3333);
}

#[test]
fn offsets_at_the_ends_of_the_address_space() {
    agree(|a| {
        let mut over = a.create_label();
        a.mov(ebx, STACK as i32 + 3)?;
        a.mov(ecx, dword_ptr(ebx + i32::MAX - 1))?;
        a.mov(esp, STACK as i32)?;
        a.sub(esp, i32::MIN)?;
        a.sub(esp, i32::MIN)?;
        a.push(ebx)?;
        a.push(ecx)?;
        a.push(ebx)?;
        a.cmp(ebx, ebx)?;
        a.jz(over)?;
        // A call of what lies 2 GiB behind: never executed, but scanned.
        a.db(&[0xe8])?;
        a.dd(&[0x8000_0000])?;
        a.set_label(&mut over)?;
        a.hlt()
    });
}

/// A bus on which INTR is high.
struct Interrupting;

impl crate::Bus for Interrupting {
    fn port_read(&mut self, _: u16, _: crate::Width) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: u16, _: crate::Width, _: u32) {}
    fn mmio_read(&mut self, _: GuestPhys, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: GuestPhys, _: u8, _: u64) {}
    fn intr(&self) -> bool {
        true
    }
    fn acknowledge(&mut self) -> u8 {
        0x20
    }
    fn stop_requested(&self) -> bool {
        false
    }
}

#[test]
fn the_shadow_of_sti_reaches_into_the_next_page() {
    const IDT: u32 = 0x0018_0000;
    const HANDLER: u32 = 0x0019_0000;
    const SHADOW: u32 = ORIGIN + 0x1000;
    let mut assembler = CodeAssembler::new(32).expect("32 bits");
    let a = &mut assembler;
    let (mut again, mut function, mut first) =
        (a.create_label(), a.create_label(), a.create_label());
    let mut program = |a: &mut CodeAssembler| -> Result<(), IcedError> {
        a.lidt(ptr(IDT - 6))?;
        a.jmp(first)?;
        a.set_label(&mut function)?;
        a.ret()?;
        a.set_label(&mut first)?;
        while a.instructions().len() < 3 + 0xfff - 10 {
            a.nop()?;
        }
        a.set_label(&mut again)?;
        a.sti()?;
        a.call(function)?;
        a.cli()?;
        a.jmp(again)
    };
    program(a).expect("a program");
    let code = assembler.assemble(ORIGIN.into()).expect("assembles");
    let sti = code.iter().position(|&byte| byte == 0xfb);
    assert_eq!(sti, Some(0xfff));
    for budget in 2..40 {
        let phys = Memory::new(MEMORY).expect("memory");
        let idt = [0x7ff | (IDT & 0xffff) << 16, IDT >> 16];
        let gate = [
            0x10 << 16 | HANDLER & 0xffff,
            HANDLER & 0xffff_0000 | 0x8e00,
        ];
        let bytes = |words: [u32; 2]| words.map(u32::to_le_bytes).concat();
        // mov eax, [esp]; hlt
        for (at, bytes) in [
            (ORIGIN, code.clone()),
            (IDT - 6, bytes(idt)),
            (IDT + 0x20 * 8, bytes(gate)),
            (HANDLER, vec![0x8b, 0x04, 0x24, 0xf4]),
            // Flat code.
            (0x0017_0010, 0x00cf_9b00_0000_ffffu64.to_le_bytes().to_vec()),
        ] {
            phys.write(GuestPhys::new(at.into()), &bytes).expect("fits");
        }
        let mmu = Mmu::new(phys).expect("tables");
        let mut vcpu = Vcpu::new(&VcpuConfig::default(), mmu).expect("processor");
        vcpu.set_linux_entry(ORIGIN, 0);
        vcpu.cpu.gdtr.base = 0x0017_0000;
        vcpu.cpu.gdtr.limit = 0xff;
        vcpu.cpu.regs.set(4, STACK);
        for _ in 0..3 {
            assert_eq!(vcpu.run(&mut EmptyBus, budget), Exit::Budget);
        }
        let before = vcpu.cpu.eip;
        for _ in 0..100 {
            if vcpu.run(&mut Interrupting, 100) == Exit::Halt {
                break;
            }
        }
        assert_ne!(vcpu.cpu.regs.get(0), SHADOW, "budget {budget}, {before:#x}");
    }
}
