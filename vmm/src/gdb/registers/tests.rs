use sbe::{
    CpuModel,
    cpu::{
        eflags,
        regs::ESP,
        segment::{Attributes, SegReg, Segment, Selector},
    },
};

use super::*;

const WIDTHS: [Width; 2] = [Width::Bits32, Width::Bits64];
/// IA32_EFER.LMA.
const LMA: u64 = 1 << 10;

fn number(table: &Table, name: &str) -> usize {
    let mut registers = table.registers();
    registers
        .position(|register| register.name == name)
        .unwrap()
}

#[test]
fn registers_have_the_numbers_that_gdb_gives_them() {
    // gdb/i386-tdep.h, enum i386_regnum; gdb/amd64-tdep.h, enum amd64_regnum.
    let i386 = [
        ("eax", 0),
        ("edi", 7),
        ("eip", 8),
        ("eflags", 9),
        ("cs", 10),
        ("gs", 15),
        ("st0", 16),
        ("fctrl", 24),
        ("fop", 31),
        ("xmm0", 32),
        ("mxcsr", 40),
    ];
    let amd64 = [
        ("rax", 0),
        ("rbx", 1),
        ("rcx", 2),
        ("rdx", 3),
        ("rsi", 4),
        ("rdi", 5),
        ("rbp", 6),
        ("rsp", 7),
        ("r8", 8),
        ("r15", 15),
        ("rip", 16),
        ("eflags", 17),
        ("cs", 18),
        ("gs", 23),
        ("st0", 24),
        ("fctrl", 32),
        ("fop", 39),
        ("xmm0", 40),
        ("xmm15", 55),
        ("mxcsr", 56),
    ];
    for (width, numbers) in [(Width::Bits32, &i386[..]), (Width::Bits64, &amd64)] {
        let table = Table::new(width);
        for &(name, expected) in numbers {
            assert_eq!(number(&table, name), expected, "{name}");
        }
    }
}

#[test]
fn names_are_unique() {
    for table in WIDTHS.map(Table::new) {
        for (index, register) in table.registers().enumerate() {
            assert_eq!(number(&table, register.name), index);
        }
    }
}

#[test]
fn every_writable_register_reads_back() {
    for table in WIDTHS.map(Table::new) {
        check_that_registers_read_back(&table);
    }
}

fn check_that_registers_read_back(table: &Table) {
    let reset = Cpu::new(CpuModel::default());
    for register in table.registers().filter(|register| register.set.is_some()) {
        let mut cpu = reset.clone();
        let mut value = register.read(&cpu);
        // A bit that can be changed in all of them: in EFLAGS it is PF, in FCW and MXCSR a mask or flag.
        value[0] ^= 1 << 2;
        if register.name == "ftag" {
            // Not empty, and zero.
            value = 0xfff7_u32.to_le_bytes().to_vec();
        }
        register.write(&mut cpu, &value).unwrap();
        assert_eq!(register.read(&cpu), value, "{}", register.name);
        let values = table.read(&cpu);
        assert_ne!(values, table.read(&reset), "{}", register.name);
        let mut other = reset.clone();
        table.write(&mut other, &values).unwrap();
        assert_eq!(table.read(&other), values, "{}", register.name);
        assert_eq!(table.write(&mut other, &values[1..]), Err(NotWritable));
    }
}

#[test]
fn read_only_registers_take_only_the_value_they_have() {
    let table = Table::new(Width::Bits32);
    let mut cpu = Cpu::new(CpuModel::default());
    for name in [
        "cs",
        "gs",
        "fs_base",
        "cr0",
        "cr3",
        "cr4",
        "tr",
        "idtr_base",
    ] {
        let register = table.get(number(&table, name)).unwrap();
        let mut value = register.read(&cpu);
        assert_eq!(register.write(&mut cpu, &value), Ok(()));
        value[0] ^= 1;
        assert_eq!(register.write(&mut cpu, &value), Err(NotWritable), "{name}");
        let before = table.read(&cpu);
        let mut values = before.clone();
        let at: usize = table
            .registers()
            .take_while(|register| register.name != name)
            .map(Register::bytes)
            .sum();
        values[0] ^= 1;
        values[at] ^= 1;
        assert_eq!(table.write(&mut cpu, &values), Err(NotWritable), "{name}");
        assert_eq!(table.read(&cpu), before, "{name}");
    }
    assert!(table.get(table.registers().count()).is_none());
}

#[test]
fn virtual_8086_mode_is_not_entered_by_a_debugger() {
    let table = Table::new(Width::Bits32);
    let mut cpu = Cpu::new(CpuModel::default());
    let register = table.get(number(&table, "eflags")).unwrap();
    register.write(&mut cpu, &u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(cpu.eflags & eflags::VM, 0);
    assert_eq!(cpu.eflags & eflags::DEFINED, eflags::DEFINED & !eflags::VM);
}

/// A processor in real-address mode with CS = 0xffff, IP = 0x20, SS = 0x900 and ESP = 0x10ffe.
fn real() -> Cpu {
    let mut cpu = Cpu::new(CpuModel::default());
    cpu.segs[SegReg::Cs as usize] = Segment::real(Selector(0xffff));
    cpu.segs[SegReg::Ss as usize] = Segment::real(Selector(0x900));
    cpu.eip = 0x20;
    cpu.regs.set(ESP, 0x1_0ffe);
    cpu
}

fn value(table: &Table, cpu: &Cpu, name: &str) -> u32 {
    let register = table.get(number(table, name)).unwrap();
    u32::from_le_bytes(register.read(cpu).try_into().unwrap())
}

#[test]
fn eip_is_linear_and_its_offset_a_register_of_its_own() {
    let table = Table::new(Width::Bits32);
    let mut cpu = real();
    for (name, expected) in [
        ("eip", 0x10_0010),
        ("eip_offset", 0x20),
        ("cs_base", 0xf_fff0),
        ("cs_bits", 16),
        ("esp", 0x1_0ffe),
        ("esp_linear", 0x9ffe),
    ] {
        assert_eq!(value(&table, &cpu, name), expected, "{name}");
    }
    assert_eq!(table.ip(&cpu), 0x10_0010);
    let eip = table.get(number(&table, "eip")).unwrap();
    for (linear, offset) in [(0x10_0000_u32, 0x10), (0xf_fff0, 0), (0x10_ffef, 0xffff)] {
        assert_eq!(eip.write(&mut cpu, &linear.to_le_bytes()), Ok(()));
        assert_eq!(cpu.eip, offset);
    }
    // Out of the segment, on both sides.
    for linear in [0xf_ffef_u32, 0x10_fff0, 0, u32::MAX] {
        let refused = eip.write(&mut cpu, &linear.to_le_bytes());
        assert_eq!(refused, Err(NotWritable), "{linear:x}");
        assert_eq!(cpu.eip, 0xffff);
    }
}

#[test]
fn of_two_registers_for_eip_the_changed_one_counts() {
    let table = Table::new(Width::Bits32);
    let cpu = real();
    for (name, written) in [("eip", 0x10_0014_u32), ("eip_offset", 0x24)] {
        let mut changed = cpu.clone();
        let mut values = table.read(&cpu);
        let registers = table.registers();
        let before = registers.take_while(|register| register.name != name);
        let at: usize = before.map(Register::bytes).sum();
        values[at..at + 4].copy_from_slice(&written.to_le_bytes());
        assert_eq!(table.write(&mut changed, &values), Ok(()));
        assert_eq!(changed.eip, 0x24, "{name}");
    }
}

#[test]
fn the_description_has_the_architecture_of_the_code() {
    let table = Table::new(Width::Bits32);
    let mut cpu = real();
    assert!(
        table
            .description(&cpu)
            .contains("<architecture>i8086</architecture>")
    );
    cpu.segs[SegReg::Cs as usize] = Segment::new(Selector(8), 0, u32::MAX, Attributes::FLAT_CODE);
    assert!(
        table
            .description(&cpu)
            .contains("<architecture>i386</architecture>")
    );
}

#[test]
fn the_description_names_all_registers() {
    let table = Table::new(Width::Bits32);
    let xml = table.description(&real());
    for register in table.registers() {
        assert!(xml.contains(&format!("name=\"{}\"", register.name)));
    }
}

#[test]
fn a_processor_in_long_mode_has_registers_of_64_bits() {
    let mut cpu = Cpu::new(CpuModel::default());
    assert_eq!(Width::of(&cpu), Width::Bits32);
    cpu.efer = LMA;
    assert_eq!(Width::of(&cpu), Width::Bits64);
    let table = Table::new(Width::of(&cpu));
    let xml = table.description(&cpu);
    for expected in [
        "<architecture>i386:x86-64</architecture>",
        "<feature name=\"org.gnu.gdb.i386.core\">",
        "<feature name=\"org.gnu.gdb.i386.segments\">",
        "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\" regnum=\"16\"/>",
        "<reg name=\"gs_base\" bitsize=\"64\" type=\"int64\" regnum=\"58\"/>",
    ] {
        assert!(xml.contains(expected), "{expected}");
    }
    for (name, bits) in [("cs_bits", 64), ("rsp_linear", 0x1234_5678)] {
        cpu.segs[SegReg::Cs as usize] =
            Segment::new(Selector(0x10), 0, u32::MAX, Attributes(0xa09b));
        cpu.regs.set(ESP, 0x1234_5678);
        let register = table.get(number(&table, name)).unwrap();
        let mut value = register.read(&cpu);
        value.resize(8, 0);
        assert_eq!(value, u64::to_le_bytes(bits), "{name}");
    }
}
