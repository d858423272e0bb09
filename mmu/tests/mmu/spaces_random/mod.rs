//! Random guests with several address spaces against the naive model, with only the flushes that a guest has to make: after a
//! change of a page table it flushes before it relies on translations that come from there.
//!
//! ```text
//!   frame 0      1..=4         5          8..=13        16..=31   0xb0     0xc8   0x400
//!         data   directories   pointers   page tables   data      device   ROM    nothing
//!                or PML4s      6, 7 page-directory-pointer tables, 14, 15 directories of 4-level paging
//! ```

mod strategies;

use mmu::{Access, Attribute, Frame, GuestPhys, LinearAddr, LinearPage, Privilege, View};
use proptest::prelude::*;

use crate::guest::{ACCESSES, PRIVILEGES};
use crate::mappings::Mapping;
use crate::model::{AccessStep, Model, PAGE, Pair};
use crate::oracle::{Registers, Request, predict};
use strategies::{edit, registers, step};

const POINTER_TABLES: [u64; 2] = [6, 7];
const DIRECTORIES_64: [u64; 2] = [14, 15];

const SPACES: usize = 4;
const POINTERS: usize = 5 * PAGE;
/// Pointers of a space whose own have changed, where no entry that is used lies if the frame is a page table.
const SPARE_POINTERS: usize = POINTERS + 0x800;
const ROM_TABLE: u64 = 0xc8;

/// The paging mode of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    TwoLevel,
    Pae,
    FourLevel,
}

/// A step of the guest.
#[derive(Clone, Debug)]
enum Step {
    Access(AccessStep),
    /// A store to an entry, by the guest or by the host, by guest-physical address.
    Edit(Edit),
    /// Many stores to a paging structure.
    Fill(Edit),
    /// MOV to CR3.
    Enter(usize),
    /// A pointer of PAE paging changes, and MOV to CR3.
    Repoint(usize, usize, u64),
    Invlpg(u64),
    MarkCode(u64),
    SetCode(u64, Privilege),
    ClearCode,
    ToggleWp,
    FlushAll,
    /// A window on the present space opens.
    OpenWindow,
    CloseWindow,
    /// Code is about to use the window.
    SettleWindow,
    /// A page-fault handler returns to a program.
    FillAfterFault,
}

#[derive(Clone, Debug)]
struct Edit {
    frame: u64,
    /// Index of the entry in [`entries`].
    index: usize,
    value: u64,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Guest,
    Host,
    Told,
}

impl Mode {
    fn of(regs: &Registers) -> Self {
        match (regs.pae, regs.lma) {
            (false, _) => Self::TwoLevel,
            (true, false) => Self::Pae,
            (true, true) => Self::FourLevel,
        }
    }

    /// Bytes of an entry.
    fn width(self) -> usize {
        if self == Self::TwoLevel { 4 } else { 8 }
    }

    /// Indices of the entries that translate [`Self::pages`], in structures of all levels.
    fn entries(self) -> &'static [usize] {
        match self {
            Self::TwoLevel => &[0, 1, 2, 0x2ff, 0x300, 0x3ff],
            Self::Pae => &[0, 1, 2, 0x1ff],
            // Slots are shared by the first two and by the next two.
            Self::FourLevel => &[0, 2, 0x100, 0x102, 1, 0x1ff],
        }
    }

    /// The linear pages that are used.
    fn pages(self) -> Vec<u64> {
        let (tops, bits): (Vec<u64>, _) = match self {
            Self::TwoLevel => (vec![0, 1, 2, 0x2ff, 0x300, 0x3ff], 10),
            Self::Pae => (vec![0, 1, 0x1ff, 0x401, 0x5ff, 0x600, 0x601, 0x7ff], 9),
            Self::FourLevel => {
                let below = [0, 1, 0x201, 0x3_ffff];
                let tops = [0, 2, 0x100, 0x102, 0x1ff].into_iter();
                (
                    tops.flat_map(|top| below.map(|low| top << 18 | low))
                        .collect(),
                    9,
                )
            }
        };
        let last: u64 = (1 << bits) - 1;
        let lows = match self {
            Self::TwoLevel | Self::Pae => vec![0, 1, 2, last],
            Self::FourLevel => vec![0, 1, last],
        };
        let pages = tops
            .iter()
            .flat_map(|top| lows.iter().map(move |low| top << bits | low));
        match self {
            Self::TwoLevel | Self::Pae => pages.collect(),
            Self::FourLevel => pages.map(sign_extended).collect(),
        }
    }
}

/// The number of the page whose address has these bits 47:12.
fn sign_extended(page: u64) -> u64 {
    (((page << 28) as i64 >> 16) as u64) >> 12
}

/// Whether the slots of a page are its space's own.
fn is_own(regs: &Registers, page: u64) -> bool {
    match regs.linear_48 {
        true => page >> 35 & 1 == 0,
        false => page < 0xc0000,
    }
}

fn page_of(linear: u64) -> LinearPage {
    LinearAddr::new(linear).page()
}

/// The guest, and the linear pages that may have a translation that the page tables no longer have.
struct Guest {
    pair: Pair,
    space: usize,
    /// Pages of the shared part that may have such a translation.
    stale: Vec<u64>,
    /// Pages of the spaces' own parts that may have such a translation.
    stale_own: [Vec<u64>; SPACES],
}

impl Guest {
    fn new(regs: Registers, edits: &[Edit]) -> Self {
        let pg = true;
        let mut pair = Pair::new(Registers { pg, ..regs });
        for (space, first) in (0..SPACES).zip([1u64, 2, 3, 4]) {
            let directories = [first, first % 4 + 1, 1, (first + 1) % 4 + 1];
            let pointers: Vec<u8> = directories
                .iter()
                .flat_map(|frame| (frame << 12 | 1).to_le_bytes())
                .collect();
            pair.poke(POINTERS + space * 32, &pointers);
        }
        let mut guest = Self {
            pair,
            space: 0,
            stale: vec![],
            stale_own: Default::default(),
        };
        for edit in edits {
            guest.edit(edit);
        }
        guest.load_space(0);
        guest
    }

    fn mode(&self) -> Mode {
        Mode::of(&self.pair.model.regs)
    }

    /// Enters a space as MOV to CR3 does, without the flush. Returns whether that is possible: pointers with reserved bits, which a
    /// space has whose pointers were used as a page table, are not loaded, and the registers keep their values.
    fn load_space(&mut self, space: usize) -> bool {
        let root = match self.mode() {
            Mode::Pae => POINTERS + space * 32,
            Mode::TwoLevel | Mode::FourLevel => (space + 1) * PAGE,
        };
        self.pair.model.regs.cr3 = root as u64;
        self.pair.enable_paging() || self.mode() != Mode::Pae
    }

    /// Enters a space again that was left with these pointers, whatever its table has now.
    fn return_to(&mut self, space: usize, pointers: [u64; 4]) {
        if self.load_space(space) {
            return;
        }
        let bytes: Vec<u8> = pointers.into_iter().flat_map(u64::to_le_bytes).collect();
        self.pair.poke(SPARE_POINTERS, &bytes);
        self.pair.model.regs.cr3 = SPARE_POINTERS as u64;
        assert!(self.pair.enable_paging(), "they were loaded before");
    }

    fn enter(&mut self, space: usize) {
        if !self.load_space(space) {
            // MOV to CR3 raises #GP.
            return;
        }
        self.space = space;
        self.pair.mmu.flush_non_global();
        self.stale_own[space].clear();
        // Global translations stay, and the other space may have others.
        if self.pair.model.regs.pge {
            self.shared_changed();
        } else {
            self.stale.clear();
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let width = self.mode().width();
        let indices = self.mode().entries();
        let index = indices[edit.index % indices.len()];
        let at = edit.frame as usize * PAGE + index * width;
        let bytes = &edit.value.to_le_bytes()[..width];
        let addr = GuestPhys::new(at as u64);
        match edit.how {
            How::Guest => {
                self.pair.mmu.store_phys(addr, bytes).unwrap();
                if edit.frame != ROM_TABLE {
                    self.pair.model.bytes[at..at + width].copy_from_slice(bytes);
                }
            }
            How::Host => self.pair.poke(at, bytes),
            How::Told => {
                use vm_memory::{Bytes, GuestAddress};
                let ram = self.pair.mmu.memory().guest_ram();
                match ram.write_slice(bytes, GuestAddress(at as u64)) {
                    Ok(()) => self.pair.mmu.snoop(),
                    // ROM is not RAM of devices.
                    Err(_) => self.pair.poke(at, bytes),
                }
                self.pair.model.bytes[at..at + width].copy_from_slice(bytes);
            }
        }
        self.tables_changed();
    }

    fn tables_changed(&mut self) {
        self.shared_changed();
        let regs = self.pair.model.regs;
        let pages = self.mode().pages().into_iter();
        let own: Vec<u64> = pages.filter(|page| is_own(&regs, *page)).collect();
        self.stale_own.fill(own);
    }

    fn shared_changed(&mut self) {
        let regs = self.pair.model.regs;
        let pages = self.mode().pages().into_iter();
        self.stale = pages.filter(|page| !is_own(&regs, *page)).collect();
    }

    fn nothing_is_stale(&mut self) {
        self.stale.clear();
        self.stale_own = Default::default();
    }

    /// Whether the page may have such a translation in `space`.
    fn is_stale(&self, space: usize, page: u64) -> bool {
        self.stale.contains(&page) || self.stale_own[space].contains(&page)
    }

    fn invlpg(&mut self, linear: u64) {
        self.pair.mmu.invlpg(LinearAddr::new(linear));
        for stale in [&mut self.stale, &mut self.stale_own[self.space]] {
            stale.retain(|page| *page != linear >> 12);
        }
    }

    fn access(&mut self, step: &AccessStep) -> Result<(), TestCaseError> {
        let last = self
            .pair
            .model
            .regs
            .add(step.linear, u64::from(step.len()) - 1);
        for linear in [step.linear, last] {
            if self.is_stale(self.space, linear >> 12) {
                self.invlpg(linear);
            }
        }
        self.pair.step(step)?;
        self.show(step);
        // The model does not say where it stored, so any store may have changed a page table.
        if step.access == Access::Write {
            self.tables_changed();
        }
        Ok(())
    }

    /// Maps the page in the window, as code does after an access there has faulted and was made by other means.
    fn show(&mut self, step: &AccessStep) {
        let addr = LinearAddr::new(step.linear);
        if step.access == Access::Fetch || step.privilege == Privilege::Supervisor {
            return;
        }
        let cached = self
            .pair
            .mmu
            .tlb()
            .slot(View::of(step.access, Privilege::User), addr.page())
            != 0;
        let shown = self
            .pair
            .mmu
            .tlb_mut()
            .map_in_window(addr.page(), step.access);
        assert!(!shown || cached, "shows what is not cached");
    }

    /// Checks the present window, once it is settled: its mapped pages must be cached.
    fn check_window(&self) -> Result<(), TestCaseError> {
        if !self.pair.mmu.tlb().is_window_settled() {
            return Ok(());
        }
        if self.pair.mmu.tlb().window().is_none() {
            return Ok(());
        }
        let mappings = Mapping::of_this_process();
        for page in self.mode().pages() {
            let linear = page_of(page << 12).base();
            let Some(address) = self.pair.mmu.tlb().in_window(linear) else {
                // Only some of 48-bit addresses are in the window.
                prop_assert!(self.pair.model.regs.linear_48);
                continue;
            };
            let Some(mapping) = mappings
                .iter()
                .find(|mapping| mapping.range.contains(&address))
            else {
                return Err(TestCaseError::fail("a hole in the window"));
            };
            let shown = mapping.offset + (address - mapping.range.start);
            for (access, possible) in [
                (Access::Read, mapping.readable),
                (Access::Write, mapping.writable),
            ] {
                let view = View::of(access, Privilege::User);
                let frame = self.pair.mmu.tlb().frame(view, page_of(page << 12));
                prop_assert!(
                    !possible || frame == Some(Frame::new(shown >> 12)),
                    "window: page {:#x} shows {:#x} for {:?}, cached is {:?}",
                    page,
                    shown,
                    access,
                    frame
                );
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Access(step) => self.access(step)?,
            Step::Edit(edit) => self.edit(edit),
            Step::Fill(edit) => (0..12).for_each(|index| {
                self.edit(&Edit {
                    index,
                    ..edit.clone()
                })
            }),
            Step::Enter(space) => self.enter(*space),
            Step::Repoint(space, index, pointer) => {
                let at = POINTERS + space * 32 + index * 8;
                self.pair.poke(at, &pointer.to_le_bytes());
                self.enter(*space);
            }
            Step::Invlpg(linear) => self.invlpg(*linear),
            Step::MarkCode(frame) => self.pair.mmu.mark_code(Frame::new(*frame)),
            Step::SetCode(linear, privilege) => {
                let addr = LinearAddr::new(*linear);
                let view = View::of(Access::Fetch, *privilege);
                let slot = self.pair.mmu.tlb().slot(view, addr.page());
                let set = self
                    .pair
                    .mmu
                    .tlb_mut()
                    .set_code(addr.page(), *privilege, slot | 1 << 63);
                prop_assert_eq!(set, slot != 0);
            }
            Step::ClearCode => self.pair.mmu.tlb_mut().clear_code(),
            Step::ToggleWp => {
                self.pair.model.regs.wp ^= true;
                self.load_space(self.space);
                self.nothing_is_stale();
            }
            Step::OpenWindow => {
                if self.pair.mmu.tlb().window().is_none() {
                    let opened = self.pair.mmu.tlb_mut().open_window();
                    prop_assert!(opened.is_ok());
                }
            }
            Step::CloseWindow => self.pair.mmu.tlb_mut().close_window(),
            Step::FillAfterFault => self.pair.mmu.fill_after_fault(),
            Step::SettleWindow => {
                self.pair.mmu.tlb_mut().settle_window();
                prop_assert!(self.pair.mmu.tlb().is_window_settled());
            }
            Step::FlushAll => {
                self.pair.mmu.flush_all();
                self.nothing_is_stale();
            }
        }
        Ok(())
    }

    /// The root of translation: spaces with the same root are one.
    fn tables(&self) -> (u64, [u64; 4]) {
        let regs = &self.pair.model.regs;
        match self.mode() {
            Mode::Pae => (0, regs.pdpte),
            Mode::TwoLevel | Mode::FourLevel => (regs.cr3, [0; 4]),
        }
    }

    /// The slots of the current space that instruction fetches use, and their epochs.
    fn fetches(&self) -> Vec<(Privilege, u64, Vec<u64>)> {
        PRIVILEGES
            .map(|privilege| {
                let view = View::of(Access::Fetch, privilege);
                let slots = self
                    .mode()
                    .pages()
                    .into_iter()
                    .map(|page| self.slot(view, page));
                (
                    privilege,
                    self.pair.mmu.tlb().fetch_epoch(privilege),
                    slots.collect(),
                )
            })
            .to_vec()
    }

    fn slot(&self, view: View, page: u64) -> u64 {
        self.pair.mmu.tlb().slot(view, page_of(page << 12))
    }

    /// Checks the slots of all spaces.
    fn check_slots(&mut self) -> Result<(), TestCaseError> {
        let (current, pointers) = (self.space, self.pair.model.regs.pdpte);
        for space in (0..SPACES).filter(|space| *space != current) {
            if self.load_space(space) {
                self.check_space(space)?;
                self.check_window()?;
            }
        }
        self.return_to(current, pointers);
        self.check_space(current)?;
        self.check_window()
    }

    fn check_space(&self, space: usize) -> Result<(), TestCaseError> {
        for page in self.mode().pages() {
            for privilege in PRIVILEGES {
                for access in ACCESSES {
                    self.check_slot(space, page, access, privilege)
                        .map_err(|what| TestCaseError::fail(format!("space {space}: {what}")))?;
                }
                let fetch = self.slot(View::of(Access::Fetch, privilege), page);
                let code = self.slot(View::code(privilege), page);
                prop_assert!(code == 0 || code == fetch | 1 << 63, "stray code slot");
            }
        }
        Ok(())
    }

    fn check_slot(
        &self,
        space: usize,
        page: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<(), String> {
        let Pair { mmu, model } = &self.pair;
        let linear = page << 12;
        let view = View::of(access, privilege);
        let Some(frame) = mmu.tlb().frame(view, page_of(linear)) else {
            return Ok(());
        };
        let what = format!("{linear:#x} {access:?} {privilege:?} {frame:?}");
        let closed = [Attribute::Code, Attribute::PageTable]
            .into_iter()
            .any(|attribute| mmu.memory().has(frame, attribute));
        if access == Access::Write && (closed || frame.get() >= 0xa0) {
            return Err(format!("{what}: stores would go unseen"));
        }
        if !is_own(&model.regs, page) || self.is_stale(space, page) {
            return Ok(());
        }
        let request = Request {
            linear,
            write: access == Access::Write,
            fetch: access == Access::Fetch,
            user: privilege == Privilege::User,
        };
        let load = |addr, len| model.load(addr, len);
        let walk = predict(&model.regs, load, request)
            .map_err(|code| format!("{what}: faults with {code:#x}"))?;
        if walk.phys >> 12 != frame.get() {
            return Err(format!("{what}: maps {:#x}", walk.phys));
        }
        let bytes = model.regs.width() as u32;
        for (addr, value) in walk.entries {
            if model.load(addr, bytes) != value {
                return Err(format!("{what}: A or D is clear at {addr:#x}"));
            }
            if !Model::is_memory(addr) || addr >= 0xa_0000 {
                return Err(format!("{what}: from an entry at {addr:#x}"));
            }
        }
        Ok(())
    }
}

fn run(regs: Registers, edits: &[Edit], steps: &[Step]) -> Result<(), TestCaseError> {
    let mut guest = Guest::new(regs, edits);
    for step in steps {
        let (code_epoch, code) = (guest.pair.mmu.code_epoch(), guest.pair.code());
        let (tables, fetches) = (guest.tables(), guest.fetches());
        guest.step(step)?;
        let changed = |(frame, old): &&(usize, Vec<u8>)| guest.pair.frame(*frame) != old;
        let hit = code.iter().filter(changed).count() as u64;
        prop_assert!(
            guest.pair.mmu.code_epoch() >= code_epoch + hit,
            "a store to a code page went unseen"
        );
        for ((privilege, epoch, old), (_, now, new)) in fetches.iter().zip(guest.fetches()) {
            let lost = old
                .iter()
                .zip(&new)
                .any(|(old, new)| *old != 0 && new != old);
            prop_assert!(
                now > *epoch || !lost && tables == guest.tables(),
                "{:?} lost a fetch slot",
                privilege
            );
        }
        guest.check_slots()?;
    }
    guest.pair.compare_memory()
}

#[test]
fn a_space_whose_pointers_have_reserved_bits_is_not_entered() {
    let edit = |frame, index, value| Edit {
        frame,
        index,
        value,
        how: How::Guest,
    };
    let access = |linear, access| {
        Step::Access(AccessStep {
            linear,
            access,
            privilege: Privilege::Supervisor,
            size: 1,
            value: 0x55,
        })
    };
    let regs = Registers {
        pae: true,
        ..Registers::default()
    };
    // The pointers of all spaces are a page table, in which a read of the last gigabyte of space 3 sets a reserved bit for space 0.
    let edits = [edit(2, 0, 0x5007), edit(4, 1, 0x8007), edit(8, 3, 0x1_3007)];
    let steps = [
        Step::Enter(3),
        access(0xc000_10f8, Access::Read),
        access(0x3f_f010, Access::Write),
        Step::Enter(2),
        Step::Fill(edit(8, 0, 0x1_e003)),
        Step::Enter(0),
    ];
    run(regs, &edits, &steps).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spaces_of_two_level_paging_do_what_the_model_does(
        regs in registers(Mode::TwoLevel),
        edits in prop::collection::vec(edit(Mode::TwoLevel), 100),
        steps in prop::collection::vec(step(Mode::TwoLevel), 1..200),
    ) {
        run(regs, &edits, &steps)?;
    }

    #[test]
    fn spaces_of_pae_paging_do_what_the_model_does(
        regs in registers(Mode::Pae),
        edits in prop::collection::vec(edit(Mode::Pae), 100),
        steps in prop::collection::vec(step(Mode::Pae), 1..200),
    ) {
        run(regs, &edits, &steps)?;
    }

    #[test]
    fn spaces_of_four_level_paging_do_what_the_model_does(
        regs in registers(Mode::FourLevel),
        edits in prop::collection::vec(edit(Mode::FourLevel), 200),
        steps in prop::collection::vec(step(Mode::FourLevel), 1..200),
    ) {
        run(regs, &edits, &steps)?;
    }
}
