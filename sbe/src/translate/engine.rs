//! [`Translator`]: the pages translated so far, and what connects them to the run loop.

use super::arena::Arena;
use super::context::{Context, JUMP_ENTRIES, Reason, jump_slot};
use super::emit::ENTRY_BYTES;
use super::fragment::{self, Fragment, Translated};
use super::page::{CodePage, Entry};
use super::runtime::Runtime;
use crate::cpu::control::{CR0_EM, CR0_TS, CR4_OSFXSR};
use crate::cpu::fpu::{FCW_INIT, MXCSR_INIT};
use crate::cpu::segment::{Bounds, SegReg, Segment};
use crate::cpu::{Cpu, eflags};
use crate::decode::decoder::MAX_LENGTH;
use crate::emulate::Exec;
use hashbrown::HashMap;
use mmu::{Access, Frame, LinearAddr, MemFault, PAGE_SIZE, View};
use std::io;

/// Key of a jump-cache entry that matches nothing.
const EMPTY_KEY: u64 = 0;

/// Circumstances whose jump-cache entries stay of use: kernel and program, before and after a few changes.
const KNOWN_SPACES: usize = 4;

/// The six exception masks of the x87 control word.
const EXCEPTION_MASKS: u16 = 0x3F;

/// What emitted code left to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The emulator has to execute the instruction at EIP.
    Emulate,
    /// The budget of polls is used up.
    Budget,
}

/// A branch that may be linked.
#[derive(Clone, Copy)]
struct Site {
    frame: Frame,
    target: u16,
    displacement: u32,
}

/// Translated code of one processor.
pub struct Translator {
    arena: Arena,
    runtime: Runtime,
    context: Box<Context>,
    pages: HashMap<Frame, CodePage>,
    sites: Vec<Site>,
    jump_keys: Box<[u64]>,
    jump_targets: Box<[u64]>,
    /// The circumstances of late and their numbers, the present one first.
    known_spaces: [(Space, u32); KNOWN_SPACES],
    /// The last number given.
    spaces: u32,
    /// The guest's FPU state was in the host's unit when emitted code last left.
    fpu_hot: bool,
}

/// Under which circumstances the jump cache was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Space {
    fetch_epoch: u64,
    code_epoch: u64,
    cpl: u8,
}

impl Space {
    /// No processor is in it.
    const NONE: Self = Self {
        fetch_epoch: u64::MAX,
        code_epoch: 0,
        cpl: 0,
    };
}

impl Translator {
    /// A translator with nothing translated.
    ///
    /// # Errors
    /// What the host says when it grants no memory for code; a processor without BMI2.
    pub fn new() -> io::Result<Self> {
        // SHRX and RORX address memory without touching flags.
        if !std::arch::is_x86_feature_detected!("bmi2") {
            let what = "the translator needs a processor with BMI2";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let mut arena = Arena::new()?;
        let runtime = Runtime::emit(&mut arena).map_err(io::Error::other)?;
        let jump_keys = vec![EMPTY_KEY; JUMP_ENTRIES].into_boxed_slice();
        let jump_targets = vec![0; JUMP_ENTRIES].into_boxed_slice();
        let mut context = Box::new(Context::default());
        context.host_mxcsr = MXCSR_INIT;
        context.jump_keys = jump_keys.as_ptr().expose_provenance() as u64;
        context.jump_targets = jump_targets.as_ptr().expose_provenance() as u64;
        Ok(Self {
            arena,
            runtime,
            context,
            pages: HashMap::new(),
            sites: Vec::new(),
            jump_keys,
            jump_targets,
            known_spaces: [(Space::NONE, 0); KNOWN_SPACES],
            spaces: 0,
            fpu_hot: false,
        })
    }

    /// Runs translated code from EIP on until something else has to be done. `polls` counts down with each jump and loop.
    pub fn run(&mut self, cx: &mut Exec<'_>, polls: &mut u32) -> Outcome {
        self.enter_space(cx);
        let Some(mut target) = self.target(cx, cx.cpu.eip) else {
            return Outcome::Emulate;
        };
        self.load(cx, *polls);
        let outcome = loop {
            self.runtime.run(&mut self.arena, &mut self.context, target);
            let next = match self.context.reason() {
                Reason::Emulate => break Outcome::Emulate,
                Reason::Budget => break Outcome::Budget,
                Reason::Lookup => self.lookup(cx, self.context.eip),
                Reason::Link => self.link(cx),
                Reason::LoadFpu => self.load_fpu(cx),
            };
            match next {
                Some(next) => {
                    // What was live stays so: the image in the context goes back in.
                    self.context.fpu_live |= std::mem::take(&mut self.context.fpu_saved);
                    target = next;
                }
                None => break Outcome::Emulate,
            }
        };
        self.context.fpu_live = 0;
        self.fpu_hot = self.context.fpu_saved != 0;
        self.store(cx, polls);
        outcome
    }

    /// Host address of the code for `eip`, from the jump cache if it is there.
    fn target(&mut self, cx: &mut Exec<'_>, eip: u32) -> Option<u64> {
        let slot = jump_slot(eip);
        if self.jump_keys[slot] == self.key(eip) {
            self.unless_emulated(self.jump_targets[slot])
        } else {
            self.lookup(cx, eip)
        }
    }

    fn key(&self, eip: u32) -> u64 {
        (self.context.space + u64::from(eip)).wrapping_neg()
    }

    fn unless_emulated(&self, target: u64) -> Option<u64> {
        (target != self.arena.address_of(self.runtime.emulate)).then_some(target)
    }

    /// Gives the processor the FPU state that emitted code left in the context.
    fn store_fpu(&mut self, cx: &mut Exec<'_>) {
        if self.context.fpu_saved != 0 {
            self.context.fpu_saved = 0;
            cx.cpu.fpu.take_registers(&self.context.fpu.0);
        }
    }

    /// Has the guest's FPU state loaded on the way in, if its instructions can run without an exception.
    fn load_fpu(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        self.store_fpu(cx);
        if !may_run_on_host(cx.cpu) {
            return None;
        }
        self.context.fpu.0.copy_from_slice(cx.cpu.fpu.as_bytes());
        self.context.fpu_live = 1;
        self.lookup(cx, self.context.eip)
    }

    /// Gives the present address space, privilege and code version a number, new if they are not those of the last run.
    fn enter_space(&mut self, cx: &Exec<'_>) {
        let space = Space {
            fetch_epoch: cx.mmu.fetch_epoch(cx.cpu.privilege()),
            code_epoch: cx.mmu.code_epoch(),
            cpl: cx.cpu.cpl,
        };
        if self.known_spaces[0].0 == space {
            return;
        }
        match self
            .known_spaces
            .iter()
            .position(|(known, _)| *known == space)
        {
            Some(index) => self.known_spaces[..=index].rotate_right(1),
            None => {
                self.known_spaces.rotate_right(1);
                self.known_spaces[0] = (space, self.new_space());
            }
        }
        self.context.space = u64::from(self.known_spaces[0].1) << 32;
    }

    /// A number that no entry of the jump cache has.
    fn new_space(&mut self) -> u32 {
        self.spaces = self.spaces.wrapping_add(1);
        if self.spaces == 0 {
            self.jump_keys.fill(EMPTY_KEY);
            self.known_spaces.fill((Space::NONE, 0));
            self.spaces = 1;
        }
        self.spaces
    }

    /// Takes over the processor's state.
    fn load(&mut self, cx: &Exec<'_>, polls: u32) {
        let cpu = &*cx.cpu;
        let context = &mut *self.context;
        for number in 0..8 {
            context.regs[usize::from(number)] = cpu.regs.get(number).into();
        }
        context.set_flags(cpu.eflags);
        context.eip = cpu.eip;
        context.polls = polls;
        let table = cx.mmu.tlb_table(View::of(Access::Read, cpu.privilege()));
        context.table = table.expose_provenance() as u64;
        (context.fs_base, context.fs_usable) = segment_base(cpu.seg(SegReg::Fs));
        (context.gs_base, context.gs_usable) = segment_base(cpu.seg(SegReg::Gs));
        // Where FPU instructions were executed lately, more will come.
        if self.fpu_hot && may_run_on_host(cpu) {
            context.fpu.0.copy_from_slice(cpu.fpu.as_bytes());
            context.fpu_live = 1;
        }
    }

    /// Gives the processor its state back.
    fn store(&mut self, cx: &mut Exec<'_>, polls: &mut u32) {
        let context = &*self.context;
        for number in 0..8 {
            cx.cpu
                .regs
                .set(number, context.regs[usize::from(number)] as u32);
        }
        cx.cpu.eflags = context.merge_flags(cx.cpu.eflags);
        cx.cpu.eip = context.eip;
        *polls = context.polls;
        self.store_fpu(cx);
    }

    /// Host address of the code for `eip`, translated now if it must be; enters it in the jump cache.
    fn lookup(&mut self, cx: &mut Exec<'_>, eip: u32) -> Option<u64> {
        let frame = match cx.mmu.fetch_page(LinearAddr::from(eip), cx.cpu.privilege()) {
            Ok(frame) => frame,
            Err(MemFault::Page(_) | MemFault::Device) => return None,
        };
        self.context.eip = eip;
        let entry = self.entry(cx, frame, eip % PAGE_SIZE as u32);
        let target = self.arena.address_of(entry.unwrap_or(self.runtime.emulate));
        let slot = jump_slot(eip);
        self.jump_keys[slot] = self.key(eip);
        self.jump_targets[slot] = target;
        self.unless_emulated(target)
    }

    /// Connects the branch that just asked for it to its target.
    fn link(&mut self, cx: &mut Exec<'_>) -> Option<u64> {
        let Site {
            frame,
            target,
            displacement,
        } = *self.sites.get(self.context.site as usize)?;
        let sites = self.sites.len();
        let entry = self.entry(cx, frame, target.into())?;
        // Translating may have emptied the arena, and the site with it.
        if self.sites.len() >= sites {
            let inside = entry + ENTRY_BYTES;
            let distance = i64::from(inside) - (i64::from(displacement) + size_of::<i32>() as i64);
            self.arena.patch(displacement, distance as i32);
        }
        Some(self.arena.address_of(entry))
    }

    /// Arena offset of the code at `offset` of `frame`; `None` when the emulator has to execute it.
    fn entry(&mut self, cx: &mut Exec<'_>, frame: Frame, offset: u32) -> Option<u32> {
        let known = self.page(cx, frame).entry(offset);
        match known.unwrap_or_else(|| self.translate(cx, frame, offset)) {
            Entry::Code(code) => Some(code),
            Entry::Emulate => None,
        }
    }

    /// The code page of `frame`, with translations of what is in it now only.
    fn page(&mut self, cx: &mut Exec<'_>, frame: Frame) -> &mut CodePage {
        let written = cx.mmu.written(frame);
        let page = self.pages.entry(frame).or_insert_with(|| {
            cx.mmu.mark_code(frame);
            CodePage::new(written, cx.mmu.code_bytes(frame))
        });
        if page.written != written {
            cx.mmu.mark_code(frame);
            let bytes = cx.mmu.code_bytes(frame);
            if !page.revalidate(written, &bytes) {
                *page = CodePage::new(written, bytes);
            }
        }
        page
    }

    fn translate(&mut self, cx: &mut Exec<'_>, frame: Frame, offset: u32) -> Entry {
        let first_site = self.sites.len() as u32;
        let Some(page) = self.pages.get_mut(&frame) else {
            return Entry::Emulate;
        };
        let translated = fragment::translate(
            &mut self.arena,
            &self.runtime,
            page.bytes(),
            offset,
            first_site,
        );
        let (entry, end) = match translated {
            Ok(Translated::Fragment(fragment)) => {
                let Fragment {
                    entry,
                    branches,
                    end,
                } = fragment;
                self.sites
                    .extend(branches.into_iter().map(|(target, displacement)| Site {
                        frame,
                        target,
                        displacement,
                    }));
                (Entry::Code(entry), end)
            }
            Ok(Translated::Emulate) => (Entry::Emulate, emulated_end(offset)),
            Ok(Translated::Full) => {
                self.clear();
                self.page(cx, frame);
                return self.translate(cx, frame, offset);
            }
            Err(error) => {
                log::error!("translation of {frame:?}+{offset:#x}: {error}");
                (Entry::Emulate, emulated_end(offset))
            }
        };
        page.add(offset, end, entry);
        entry
    }

    /// Forgets all translations.
    fn clear(&mut self) {
        self.pages.clear();
        self.sites.clear();
        self.arena.truncate(self.runtime.end);
        self.known_spaces.fill((Space::NONE, 0));
        self.jump_keys.fill(EMPTY_KEY);
    }
}

/// End of the bytes that decide whether the instruction at `offset` is the emulator's.
fn emulated_end(offset: u32) -> u32 {
    (offset + MAX_LENGTH as u32).min(PAGE_SIZE as u32)
}

/// Whether x87, MMX and SSE instructions execute without any exception: available, all exceptions masked.
fn may_run_on_host(cpu: &Cpu) -> bool {
    cpu.cr0 & (CR0_EM | CR0_TS) == 0
        && cpu.cr4 & CR4_OSFXSR != 0
        && !cpu.fpu.has_pending_x87_error()
        && cpu.fpu.fcw() & FCW_INIT & EXCEPTION_MASKS == EXCEPTION_MASKS
        && cpu.fpu.mxcsr() & MXCSR_INIT == MXCSR_INIT
}

/// Whether emitted code, which takes CS, DS, ES and SS for flat and 32 bits wide and DF for clear, may run.
pub fn is_flat(cpu: &Cpu) -> bool {
    let cs = cpu.seg(SegReg::Cs);
    cpu.is_protected()
        && cpu.eflags & eflags::DF == 0
        && cpu.eflags & eflags::VM == 0
        && cs.base == 0
        && cs.limit == u32::MAX
        && cs.attributes.is_big()
        && cs.read == Bounds::ALL
        && cpu.seg(SegReg::Ss).attributes.is_big()
        && [SegReg::Ds, SegReg::Es, SegReg::Ss].into_iter().all(|reg| {
            let segment = cpu.seg(reg);
            segment.base == 0 && spans_all(segment)
        })
}

fn spans_all(segment: &Segment) -> bool {
    segment.read == Bounds::ALL && segment.write == Bounds::ALL
}

/// Base of FS or GS, and 1 if any offset can be read and written.
fn segment_base(segment: &Segment) -> (u64, u64) {
    (segment.base.into(), spans_all(segment).into())
}
