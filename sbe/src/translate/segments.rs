//! [`KnownSegments`]: what loading some selectors does, so that emitted code can load segment registers by itself.
//!
//! Loading a data segment register with CPL 0 depends on the selector and the GDT only. The emulator's loads are learnt. The
//! GDT's frame is marked like one of code, so that a store to it is noticed and everything is forgotten; so it is when the
//! GDT lies elsewhere, in a new linear or physical place.

use super::context::{Context, KNOWN_SEGMENTS};
use crate::cpu::segment::{Bounds, SegReg, Segment};
use crate::cpu::{DescriptorTable, SegmentLoad};
use crate::emulate::Exec;
use mmu::{Access, Frame, LinearAddr, PAGE_SIZE, Privilege, View};

/// Bytes of the descriptors that can be known.
const KNOWN_BYTES: u32 = 8 * KNOWN_SEGMENTS as u32;

/// Segment registers that emitted code loads.
const LOADABLE: [SegReg; 4] = [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs];

/// Where the GDT is, as accesses to it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: DescriptorTable,
    frame: Frame,
}

/// Descriptors of the GDT whose meaning is known.
#[derive(Debug, Default)]
pub struct KnownSegments {
    place: Option<Place>,
    /// Of known descriptors, and of those that emitted code may have loaded when they were.
    segments: [Option<Segment>; KNOWN_SEGMENTS],
}

impl KnownSegments {
    /// Learns what the instruction before has loaded, if that was a segment register, and forgets what no longer holds.
    pub fn learn(&mut self, cx: &mut Exec<'_>, context: &mut Context) {
        let Some(load) = latest(cx) else {
            if self.place.is_some() && self.place != place(cx) {
                self.forget(context);
            }
            return;
        };
        let Some(place) = place(cx) else {
            return self.forget(context);
        };
        if self.place != Some(place) {
            self.forget(context);
            self.place = Some(place);
        }
        cx.mmu.mark_code(place.frame);
        self.add(load, context);
    }

    /// Forgets everything if the GDT lies in `frame`, which was written.
    pub fn forget_table_in(&mut self, frame: Frame, context: &mut Context) {
        if self.place.is_some_and(|place| place.frame == frame) {
            self.forget(context);
        }
    }

    /// Gives the processor the segment registers that emitted code has loaded.
    pub fn store(&self, cx: &mut Exec<'_>, context: &Context) {
        for register in LOADABLE {
            let number = register as usize;
            let index = context.selectors[number] as usize / 8 % KNOWN_SEGMENTS;
            if let (true, Some(segment)) = (context.loaded[number] != 0, self.segments[index]) {
                cx.cpu.segs[number] = segment;
            }
        }
    }

    fn forget(&mut self, context: &mut Context) {
        self.place = None;
        context.known_keys = [0; KNOWN_SEGMENTS];
    }

    fn add(&mut self, load: SegmentLoad, context: &mut Context) {
        let segment = load.segment;
        let index = load.selector.0 as usize / 8;
        self.segments[index] = Some(segment);
        let (base, usable) = segment_base(&segment);
        context.known_keys[index] = (u64::from(load.selector.0) + 1).wrapping_neg();
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
            && (load.selector.0 as usize / 8) < KNOWN_SEGMENTS
    })
}

/// Where the GDT is, if its first descriptors lie in one page that the TLB holds.
fn place(cx: &Exec<'_>) -> Option<Place> {
    let table = cx.cpu.gdtr;
    let linear = LinearAddr::from(table.base);
    let view = View::of(Access::Read, Privilege::Supervisor);
    let frame = cx.mmu.cached_frame(view, linear)?;
    (linear.offset() <= PAGE_SIZE as u32 - KNOWN_BYTES).then_some(Place { table, frame })
}

/// Base, and 1 if any offset can be read and written.
pub fn segment_base(segment: &Segment) -> (u64, u64) {
    (segment.base.into(), spans_all(segment).into())
}

/// Whether any offset of the segment can be read and written.
pub fn spans_all(segment: &Segment) -> bool {
    segment.read == Bounds::ALL && segment.write == Bounds::ALL
}
