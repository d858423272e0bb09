//! [`KnownSegments`]: the effect of loading some selectors, so that emitted code can load segment registers by itself.
//!
//! Loading a data segment register at CPL 0 depends on the selector and its descriptor in the GDT only. Each load by the emulator
//! is learnt, with the descriptor; emitted code repeats it if the descriptor is still the same.

use super::context::{Context, KNOWN_SEGMENTS};
use crate::cpu::segment::{Bounds, SegReg, Segment};
use crate::cpu::{DescriptorTable, SegmentLoad};
use crate::emulate::Exec;
use mmu::{LinearAddr, Privilege};

/// The size of a descriptor in bytes.
const DESCRIPTOR: u32 = 8;

/// The segment registers that emitted code loads.
const LOADABLE: [SegReg; 4] = [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs];

/// The descriptors of the GDT whose segments are known.
#[derive(Debug, Default)]
pub struct KnownSegments {
    table: DescriptorTable,
    /// The known segments, and those that emitted code may have loaded while they were known, by index of the descriptor.
    segments: [Option<Segment>; KNOWN_SEGMENTS],
}

impl KnownSegments {
    /// Learns the load of the instruction before, if that loaded a segment register.
    pub fn learn(&mut self, cx: &mut Exec<'_>, context: &mut Context) {
        if self.table != cx.cpu.gdtr {
            self.table = cx.cpu.gdtr;
            context.gdt_base = self.table.base as u32;
            context.known_keys = [0; KNOWN_SEGMENTS];
        }
        if let Some(load) = latest(cx) {
            self.add(load, cx, context);
        }
    }

    /// Stores the segment registers that emitted code has loaded into the processor's state.
    pub fn store(&self, cx: &mut Exec<'_>, context: &Context) {
        for register in LOADABLE {
            let number = register as usize;
            let index = context.selectors[number] as usize / 8 % KNOWN_SEGMENTS;
            if let (true, Some(segment)) = (context.loaded[number] != 0, self.segments[index]) {
                cx.cpu.segs[number] = segment;
            }
        }
    }

    fn add(&mut self, load: SegmentLoad, cx: &mut Exec<'_>, context: &mut Context) {
        let segment = load.segment;
        let offset = load.selector.offset();
        let linear = LinearAddr::from((self.table.base as u32).wrapping_add(offset));
        // The load has read it, and set its accessed bit; a descriptor across two pages is none for emitted code.
        let Ok(descriptor) = cx.mmu.read::<u64>(linear, Privilege::Supervisor) else {
            return;
        };
        if !self.table.base.is_multiple_of(DESCRIPTOR.into()) {
            return;
        }
        let index = (offset / DESCRIPTOR) as usize;
        self.segments[index] = Some(segment);
        let (base, usable) = segment_base(&segment);
        context.known_keys[index] = (u64::from(load.selector.0) + 1).wrapping_neg();
        context.known_descriptors[index] = descriptor.wrapping_neg();
        context.known_bases[index] = base;
        context.known_usable[index] = usable;
        context.known_flat[index] = (base == 0 && usable != 0).into();
    }
}

/// The segment load of the instruction just emulated, if it is one that can be learnt.
fn latest(cx: &Exec<'_>) -> Option<SegmentLoad> {
    cx.cpu.last_load.filter(|load| {
        load.retired + 1 == cx.cpu.retired
            && load.cpl == 0
            && !load.selector.is_local()
            && ((load.selector.offset() / DESCRIPTOR) as usize) < KNOWN_SEGMENTS
    })
}

/// The base of a segment, and 1 if all its offsets can be read and written.
pub fn segment_base(segment: &Segment) -> (u64, u64) {
    // Emitted code relies on 32 bits.
    (u64::from(segment.base as u32), spans_all(segment).into())
}

/// Whether all offsets of a segment can be read and written.
pub fn spans_all(segment: &Segment) -> bool {
    segment.read == Bounds::ALL && segment.write == Bounds::ALL
}
