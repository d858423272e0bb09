//! [`Case`]: a guest, as the contents of memory and the registers with which it begins.

use fastrand::Rng;
use sbe::{
    CpuModel, VcpuState,
    cpu::{Cpu, CpuState, DescriptorTable, SegmentState, segment::Attributes},
};
use tests::differential::{values, values::percent};

use crate::{
    code,
    layout::{
        CODE, CODE32, CODE64, DATA, DATA_BYTES, DATA0, GDT, GDT_BYTES, HANDLERS, HIGH, HOPS, IDT,
        KERNEL, LDT, PAGE_MAPS, PLACES, RAM, TASK, TSS, USER_CODE16, USER_CODE32, USER_CODE64,
        USER_DATA,
    },
    structures,
};

/// PE, MP, ET, NE, PG.
const CR0: u32 = 0x8000_0033;
const CR0_WP: u32 = 1 << 16;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u32 = 0x620;
/// Bits of CR4 that may be set: TSD, DE, PSE, MCE, PGE, PCE.
const CR4_CHOICE: u32 = 0x1dc;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
/// CF, PF, AF, ZF, SF, TF, IF, DF, OF, NT, AC, ID, and the bit that is always set.
const FLAGS: u32 = 0x0024_4fd7;
const TF: u32 = 1 << 8;
const DF: u32 = 1 << 10;
const NT: u32 = 1 << 14;
const FIXED: u32 = 2;

/// The selectors of CS and SS with which a guest begins, with the bits of the code.
const BEGINNINGS: [(u16, u16, u32); 5] = [
    (CODE64, DATA0, 64),
    (USER_CODE64, USER_DATA, 64),
    (CODE32, DATA0, 32),
    (USER_CODE32, USER_DATA, 32),
    (USER_CODE16, USER_DATA, 16),
];

/// A guest.
pub struct Case {
    /// RAM.
    pub memory: Vec<u8>,
    /// The registers.
    pub state: VcpuState,
    /// The budget of a run of the translator, of which there are as many as it takes.
    pub slice: u64,
}

impl Case {
    /// A random guest.
    pub fn random(rng: &mut Rng) -> Self {
        let mut memory = vec![0; RAM];
        structures::fill(&mut memory, rng);
        let chance = rng.u32(..100);
        let beginning = BEGINNINGS[match chance {
            0..40 => 0,
            40..75 => 1,
            75..82 => 2,
            82..97 => 3,
            _ => 4,
        }];
        for at in (DATA..DATA + DATA_BYTES).step_by(8) {
            let value = match rng.u32(..4) {
                0 => 0,
                1 => values::register(64, rng),
                2 => structures::address(rng),
                _ => rng.u64(..),
            };
            structures::put(&mut memory, at, value);
        }
        let entries = code::fill(&mut memory, beginning.2, rng);
        let hops = rng.u64(1..40);
        structures::put(&mut memory, HOPS, hops);
        let cpu = registers(beginning, entries[0], rng);
        Self {
            memory,
            state: VcpuState {
                cpu,
                mmu: mmu::MmuState::default(),
                held: None,
            },
            slice: [1_000_000, 1000, 40][rng.usize(..3)],
        }
    }
}

/// The register with the descriptor that the GDT has at first.
fn segment(selector: u16) -> SegmentState {
    let (limit, attributes) = match selector {
        CODE32 => (u32::MAX, Attributes::FLAT_CODE),
        CODE64 => (u32::MAX, Attributes::FLAT_CODE64),
        USER_CODE32 => (u32::MAX, Attributes::FLAT_CODE.with_dpl(3)),
        USER_CODE64 => (u32::MAX, Attributes::FLAT_CODE64.with_dpl(3)),
        USER_CODE16 => (0xf_ffff, Attributes(0x00fb)),
        _ => (
            u32::MAX,
            Attributes::FLAT_DATA.with_dpl((selector & 3) as u8),
        ),
    };
    SegmentState {
        selector,
        base: 0,
        limit,
        attributes: attributes.0,
    }
}

fn registers((code, stack, bits): (u16, u16, u32), entry: u64, rng: &mut Rng) -> CpuState {
    let mut state = Cpu::new(CpuModel::X86_64).save(0);
    state.segments = [segment(stack); 6];
    state.segments[1] = segment(code);
    state.cpl = (code & 3) as u8;
    let canonical = |rng: &mut Rng| loop {
        let address = structures::address(rng);
        if mmu::LinearAddr::new(address).is_canonical() {
            return address;
        }
    };
    for number in [4, 5] {
        if bits == 64 && percent(rng, 50) {
            state.segments[number].base = canonical(rng);
        }
    }
    state.ldtr = SegmentState {
        selector: LDT,
        base: HIGH | (GDT + 0x80),
        limit: 0x7f,
        attributes: 0x82,
    };
    state.tr = SegmentState {
        selector: TASK,
        base: HIGH | TSS,
        limit: 0x67,
        attributes: 0x8b,
    };
    let table = |base, limit| DescriptorTable { base, limit };
    state.gdtr = table(HIGH | GDT, GDT_BYTES - 1);
    state.idtr = table(HIGH | IDT, 0xfff);
    if percent(rng, 4) {
        state.idtr = table(canonical(rng), rng.u16(..));
    }
    if percent(rng, 4) {
        state.gdtr = table(canonical(rng), rng.u16(..));
    }
    state.cr0 = CR0 | if percent(rng, 70) { CR0_WP } else { 0 };
    state.cr3 = PAGE_MAPS[0];
    state.cr4 = CR4 | rng.u32(..) & CR4_CHOICE;
    state.efer = EFER & !(u64::from(percent(rng, 20)) << 11);
    state.syscall.star = u64::from(USER_CODE32) << 48 | u64::from(CODE64) << 32;
    if percent(rng, 15) {
        state.syscall.star = rng.u64(..);
    }
    state.syscall.lstar = match rng.u32(..3) {
        0 => canonical(rng),
        _ => KERNEL | (HANDLERS + 0x80 * rng.u64(..0x40)),
    };
    state.syscall.fmask = match rng.u32(..3) {
        0 => rng.u32(..) & 0x0024_7fd5,
        _ => 0x0004_7700,
    };
    state.kernel_gs_base = canonical(rng);
    state.sysenter_cs = u32::from(CODE64);
    state.sysenter_eip = HIGH | HANDLERS;
    state.sysenter_esp = canonical(rng);
    state.eflags = rng.u32(..) & FLAGS | FIXED;
    for (flag, chance) in [(TF, 3), (DF, 20), (NT, 3)] {
        if !percent(rng, chance) {
            state.eflags &= !flag;
        }
    }
    state.general = std::array::from_fn(|_| match rng.u32(..3) {
        0 => values::register(64, rng),
        _ => structures::address(rng),
    });
    state.general[4] = PLACES[rng.usize(..PLACES.len())] | (DATA + rng.u64(..0x1000) * 8);
    let place = if bits == 64 {
        PLACES[rng.usize(..3)]
    } else {
        0
    };
    state.eip = place | entry;
    if bits < 64 {
        let cut = if bits == 16 {
            u64::from(u16::MAX)
        } else {
            u64::from(u32::MAX)
        };
        state.general = state.general.map(|value| value & u64::from(u32::MAX));
        state.general[4] = DATA & cut | (rng.u64(..0x1000) * 8);
        state.segments[1].base = if bits == 16 { CODE } else { 0 };
        state.eip = if bits == 16 { entry - CODE } else { entry };
    }
    state
}
