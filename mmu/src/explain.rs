//! [`Explanation`]: everything known about the page of a linear address, for people to read.

use std::fmt;

use crate::addr::{GuestPhys, LinearAddr};
use crate::memory::{Attribute, RegionKind, Timestamp};
use crate::mmu::Mmu;
use crate::paging::{
    self, Access, NoTranslation, Paging, PagingMode, Privilege, Trail, Translation,
};
use crate::tlb::View;

/// The translation of a linear address, the slots that cache it, and a report on its frame.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The linear address.
    pub address: LinearAddr,
    /// The paging registers.
    pub paging: Paging,
    /// The paging-structure entries of the walk, top level first: address and value.
    pub entries: Vec<(GuestPhys, u64)>,
    /// The result of the walk.
    pub translation: Result<Translation, NoTranslation>,
    /// The views in which the page has a slot.
    pub slots: Vec<(&'static str, u64)>,
    /// Whether all address spaces share the slots.
    pub shared: bool,
    /// Host address of the address in the space's window, if it has one.
    pub window: Option<u64>,
    /// The report on the frame, if there is a translation.
    pub frame: Option<FrameReport>,
}

/// Region, attributes and timestamps of a frame.
#[derive(Clone, Debug)]
pub struct FrameReport {
    /// The kind of its region.
    pub region: RegionKind,
    /// The attributes it has.
    pub attributes: Vec<Attribute>,
    /// The times at which it was last seen written, scanned for code, and executed.
    pub stamps: [Timestamp; 3],
}

/// The views and their names.
const VIEWS: [(&str, View); 8] = [
    (
        "supervisor read",
        View::of(Access::Read, Privilege::Supervisor),
    ),
    (
        "supervisor write",
        View::of(Access::Write, Privilege::Supervisor),
    ),
    (
        "supervisor fetch",
        View::of(Access::Fetch, Privilege::Supervisor),
    ),
    ("supervisor code", View::code(Privilege::Supervisor)),
    ("user read", View::of(Access::Read, Privilege::User)),
    ("user write", View::of(Access::Write, Privilege::User)),
    ("user fetch", View::of(Access::Fetch, Privilege::User)),
    ("user code", View::code(Privilege::User)),
];

impl Mmu {
    /// Explains the translation of `address`, without any effect.
    pub fn explain(&self, address: LinearAddr) -> Explanation {
        let address = self.paging().mode.cut(address);
        let mut trail = Trail::new();
        let translation = paging::walk_along(self.memory(), self.registers(), address, &mut trail);
        let slots = VIEWS
            .into_iter()
            .map(|(name, view)| (name, self.tlb().slot(view, address.page())))
            .filter(|&(_, slot)| slot != 0);
        Explanation {
            address,
            paging: *self.paging(),
            entries: trail.iter().map(|step| (step.entry, step.value)).collect(),
            translation,
            slots: slots.collect(),
            shared: self.tlb().is_shared(address.page()),
            window: self.tlb().in_window(address),
            frame: translation.ok().map(|found| self.report(found.phys)),
        }
    }

    fn report(&self, addr: GuestPhys) -> FrameReport {
        let frame = addr.frame();
        let all = [
            Attribute::Code,
            Attribute::PageTable,
            Attribute::Unsync,
            Attribute::Dirty,
        ];
        FrameReport {
            region: self.memory().region(addr),
            attributes: all
                .into_iter()
                .filter(|&attribute| self.memory().has(frame, attribute))
                .collect(),
            stamps: [
                self.memory().written(frame),
                self.memory().scanned(frame),
                self.memory().executed(frame),
            ],
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.paging.mode {
            PagingMode::Off => "off",
            PagingMode::TwoLevel => "32-bit",
            PagingMode::Pae => "PAE",
            PagingMode::FourLevel => "4-level",
        };
        let digits = match self.paging.mode {
            PagingMode::FourLevel => 16,
            PagingMode::Off | PagingMode::TwoLevel | PagingMode::Pae => 8,
        };
        writeln!(
            f,
            "linear {:0digits$x}, paging {mode}, CR3 {:08x}",
            self.address.get(),
            self.paging.cr3
        )?;
        for (at, value) in &self.entries {
            writeln!(f, "entry at {:08x}: {value:08x}", at.get())?;
        }
        match &self.translation {
            Ok(found) => write_translation(f, found)?,
            Err(NoTranslation::NotPresent) => writeln!(f, "not present")?,
            Err(NoTranslation::Reserved) => writeln!(f, "reserved bits set")?,
            Err(NoTranslation::NonCanonical) => writeln!(f, "not canonical")?,
        }
        if let Some(frame) = &self.frame {
            write!(f, "{frame}")?;
        }
        let kind = if self.shared {
            "shared by all spaces"
        } else {
            "this space's own"
        };
        let names: Vec<&str> = self.slots.iter().map(|&(name, _)| name).collect();
        match names.as_slice() {
            [] => writeln!(f, "no slots, {kind}")?,
            names => writeln!(f, "slots {kind}: {}", names.join(", "))?,
        }
        match self.window {
            Some(host) => writeln!(f, "in the space's window at host address {host:x}"),
            None => writeln!(f, "the space has no window"),
        }
    }
}

fn write_translation(f: &mut fmt::Formatter<'_>, found: &Translation) -> fmt::Result {
    let permissions = found.permissions;
    let flags = [
        (permissions.user, "user", "supervisor"),
        (permissions.writable, "writable", "read-only"),
        (permissions.executable, "executable", "not executable"),
        (found.dirty, "dirty", "clean"),
        (found.global, "global", "not global"),
    ];
    let flags = flags.map(|(set, yes, no)| if set { yes } else { no });
    writeln!(
        f,
        "physical {:08x}, page of {} KiB: {}",
        found.phys.get(),
        found.page_size.bytes() >> 10,
        flags.join(", ")
    )
}

impl fmt::Display for FrameReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.attributes.iter().map(|attribute| match attribute {
            Attribute::Code => "code",
            Attribute::PageTable => "page table",
            Attribute::Unsync => "unsync page table",
            Attribute::Dirty => "dirty",
        });
        let names: Vec<&str> = names.collect();
        let names = match names.as_slice() {
            [] => "no attributes".into(),
            names => names.join(", "),
        };
        let [written, scanned, executed] = self.stamps.map(Timestamp::get);
        writeln!(
            f,
            "frame of {:?}: {names}; written at {written}, scanned at {scanned}, executed at {executed}",
            self.region
        )
    }
}
