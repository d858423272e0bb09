//! A machine whose programs are random bytes: they run at CPL 3, and whatever they raise brings them to another place.
//!
//! ```text
//!   linear 0           4 MiB, the program's: code, data, stack             physical 0
//!   linear 0xc0000000  4 MiB, the supervisor's: tables, TSS, handlers      physical 4 MiB
//! ```

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mmu::{GuestPhys, Memory, Mmu, MmuState};
use sbe::cpu::segment::Attributes;
use sbe::cpu::{Cpu, CpuState, DescriptorTable, SegmentState};
use sbe::{CpuModel, Engine, Vcpu, VcpuConfig, VcpuState};
use std::ops::Range;

/// Bytes of a program.
pub const PROGRAM_BYTES: usize = 2048;
const MEMORY: usize = 8 << 20;
/// Memory without the hole of the PC below 1 MiB.
const RAM: [Range<usize>; 2] = [0..0xa_0000, 0x10_0000..MEMORY];
const SUPERVISOR: u32 = 0xc000_0000;
/// Physical address of the memory at [`SUPERVISOR`].
const SUPERVISOR_FRAME: u32 = 4 << 20;
const GDT: u32 = SUPERVISOR;
const IDT: u32 = SUPERVISOR + 0x1000;
const TSS: u32 = SUPERVISOR + 0x2000;
const DIRECTORY: u32 = SUPERVISOR + 0x3000;
const INNER_STACK: u32 = SUPERVISOR + 0x5000;
const HANDLERS: u32 = SUPERVISOR + 0x6000;
const HANDLER_BYTES: u32 = 64;
const CODE: u32 = 0x0010_0000;
const STACK: u32 = 0x0020_0000;

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const USER_DATA: u16 = 0x23;
const TASK: u16 = 0x28;
/// Present, writable, 4 MiB; with the user's bit for the program.
const LARGE_PAGE: u32 = 0x83;
const USER_PAGE: u32 = LARGE_PAGE | 4;
/// PE, MP, ET, NE, WP, PG.
const CR0: u32 = 0x8001_0033;
/// TSD, PSE, OSFXSR, OSXMMEXCPT.
const CR4: u32 = 0x0000_0614;
/// A busy 32-bit task-state segment.
const BUSY_TSS: u16 = 0x8b;

/// The initial contents of memory.
pub fn image(program: &[u8], targets: &[u16]) -> Vec<u8> {
    let mut memory = vec![0; MEMORY];
    let mut put = |linear: u32, bytes: &[u8]| {
        let at = match linear.checked_sub(SUPERVISOR) {
            Some(offset) => SUPERVISOR_FRAME + offset,
            None => linear,
        } as usize;
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(CODE, program);
    let descriptors = [
        0_u64,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0xc000_8b00_2000_0067,
    ];
    put(GDT, &descriptors.map(u64::to_le_bytes).concat());
    put(TSS + 4, &INNER_STACK.to_le_bytes());
    put(TSS + 8, &u32::from(KERNEL_DATA).to_le_bytes());
    put(DIRECTORY, &USER_PAGE.to_le_bytes());
    let supervisor = SUPERVISOR_FRAME | LARGE_PAGE;
    put(
        DIRECTORY + (SUPERVISOR >> 22) * 4,
        &supervisor.to_le_bytes(),
    );
    for (vector, &target) in (0..256).zip(targets.iter().cycle()) {
        let handler = HANDLERS + vector * HANDLER_BYTES;
        put(handler, &handler_code(vector, target).expect("a handler"));
        // Interrupt gates that INT n may use.
        let gate = u64::from(handler & 0xffff)
            | u64::from(KERNEL_CODE) << 16
            | 0xee00 << 32
            | u64::from(handler >> 16) << 48;
        put(IDT + 8 * vector, &gate.to_le_bytes());
    }
    memory
}

/// A handler: some system instructions, then the program goes on somewhere else with a stack of its own.
fn handler_code(vector: u32, target: u16) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let place = CODE + u32::from(target) % PROGRAM_BYTES as u32;
    match target % 5 {
        0 => {
            a.clts()?;
            a.sti()?;
        }
        1 => {
            a.mov(eax, STACK as i32 - 64)?;
            a.mov(dr0, eax)?;
            // DR0 is enabled for accesses of 4 bytes.
            a.mov(eax, 0x000f_0403)?;
            a.mov(dr7, eax)?;
        }
        2 => {
            a.mov(eax, i32::from(KERNEL_DATA))?;
            a.mov(ss, eax)?;
        }
        3 => a.cli()?,
        _ => a.mov(eax, cr2)?,
    }
    let trap_flag = i32::from(target.is_multiple_of(7)) << 8;
    for item in [
        i32::from(USER_DATA),
        STACK as i32 - 4 * vector as i32,
        0x202 | trap_flag,
        i32::from(USER_CODE),
        place as i32,
    ] {
        a.push(item)?;
    }
    a.iretd()?;
    a.assemble(HANDLERS.into())
}

/// The processor at the start of the program.
pub fn start() -> CpuState {
    let mut state = Cpu::new(CpuModel::default()).save(0);
    let flat = |selector, attributes: Attributes| SegmentState {
        selector,
        base: 0,
        limit: u32::MAX,
        attributes: attributes.with_dpl(3).0,
    };
    state.segments = [flat(USER_DATA, Attributes::FLAT_DATA); 6];
    state.segments[1] = flat(USER_CODE, Attributes::FLAT_CODE);
    state.tr = SegmentState {
        selector: TASK,
        base: TSS.into(),
        limit: 0x67,
        attributes: BUSY_TSS,
    };
    state.gdtr = DescriptorTable {
        base: GDT.into(),
        limit: 0x2f,
    };
    state.idtr = DescriptorTable {
        base: IDT.into(),
        limit: 0x7ff,
    };
    state.cpl = 3;
    state.cr0 = CR0;
    state.cr3 = u64::from(SUPERVISOR_FRAME + (DIRECTORY - SUPERVISOR));
    state.cr4 = CR4;
    state.eip = CODE.into();
    state.general[4] = STACK.into();
    state
}

/// A processor of this engine with this memory, in the state after RESET.
pub fn machine(engine: Engine, memory: &[u8]) -> Vcpu {
    let phys = Memory::new(MEMORY as u64).expect("a valid size");
    for range in RAM {
        phys.write(GuestPhys::new(range.start as u64), &memory[range])
            .expect("RAM");
    }
    let mmu = Mmu::new(phys).expect("address space");
    Vcpu::new(
        &VcpuConfig {
            engine,
            ..VcpuConfig::default()
        },
        mmu,
    )
    .expect("executable memory")
}

/// All of RAM.
pub fn memory(vcpu: &Vcpu) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    for range in RAM {
        vcpu.mmu
            .memory()
            .read(GuestPhys::new(range.start as u64), &mut bytes[range])
            .expect("RAM");
    }
    bytes
}

/// The state of a processor that was never stopped for an event.
pub fn undisturbed(cpu: CpuState) -> VcpuState {
    VcpuState {
        cpu,
        mmu: MmuState::default(),
        held: None,
    }
}
