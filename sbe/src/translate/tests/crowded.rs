//! Windows whose units are all in use, of 64-bit programs.

use super::super::windows::{WindowPolicy, Windows};
use mmu::{Access, GuestPhys, LinearAddr, Memory, Mmu, Paging, PagingMode, PagingModel, Privilege};

/// The units of 4 GiB that a window has at most, and the bytes of one.
const MOST_UNITS: u64 = 16;
const UNIT: u64 = 1 << 32;
/// Physical addresses of the page map, the pointer table, a directory and a table.
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
/// The offset of the accessible page in each unit.
const PAGE: u64 = 0x5000;
/// P, R/W and U/S.
const ENTRY: u64 = 0b111;
/// The slices by which each window comes, the first too.
const MANY_SLICES: u32 = 1 << 12;

/// A space in which each of the first units has one page.
struct Guest {
    mmu: Mmu,
    policy: WindowPolicy,
}

impl Guest {
    fn new(windows: Windows) -> Self {
        let model = PagingModel::X86_64;
        let memory = Memory::for_width(1 << 20, model.linear_width).expect("RAM");
        let store = |table: usize, number: u64, address: u64| {
            let at = GuestPhys::new(TABLES[table] + 8 * number);
            memory.store(at, address | ENTRY).expect("RAM");
        };
        store(0, 0, TABLES[1]);
        for unit in 0..2 * MOST_UNITS {
            store(1, 4 * unit, TABLES[2]);
        }
        store(2, 0, TABLES[3]);
        store(3, PAGE >> 12, PAGE);
        let mut mmu = Mmu::with_model(memory, model).expect("tables");
        mmu.set_paging(Paging {
            mode: PagingMode::FourLevel,
            cr3: TABLES[0],
            ..Paging::default()
        });
        Self {
            mmu,
            policy: WindowPolicy::new(windows),
        }
    }

    /// Ends slices until a window is opened; returns how many that takes.
    fn slices(&mut self) -> u32 {
        let opens = |_: &u32| self.policy.after_slice(&mut self.mmu);
        (1..=MANY_SLICES).find(opens).expect("a window")
    }

    /// Accesses the page of a unit. Returns whether the window shows it by then.
    fn access(&mut self, unit: u64) -> bool {
        let address = LinearAddr::new(unit * UNIT + PAGE);
        let (read, user) = (Access::Read, Privilege::User);
        self.mmu.prepare(address, 1, read, user).expect("a page");
        self.mmu.tlb_mut().map_in_window(address.page(), read)
    }

    /// Has all units of the window show a page, and the next one refused.
    fn fill(&mut self) {
        for unit in 0..MOST_UNITS {
            assert!(self.access(unit), "unit {unit}");
        }
        assert!(!self.access(MOST_UNITS));
    }

    /// Has the slots of a unit's page emptied, so that the window shows it no longer.
    fn forget(&mut self, unit: u64) {
        self.mmu.invlpg(LinearAddr::new(unit * UNIT + PAGE));
        self.mmu.tlb_mut().settle_window();
    }
}

#[test]
fn a_crowded_window_is_opened_anew() {
    let mut guest = Guest::new(Windows::Always);
    assert!(guest.policy.before_program(&mut guest.mmu));
    guest.fill();
    assert!(!guest.policy.before_program(&mut guest.mmu));
    assert!(!guest.access(MOST_UNITS));
    guest.forget(3);
    assert!(guest.policy.before_program(&mut guest.mmu));
    assert!(guest.access(MOST_UNITS));
}

#[test]
fn a_window_with_room_stays_where_units_show_nothing() {
    let mut guest = Guest::new(Windows::Always);
    assert!(guest.policy.before_program(&mut guest.mmu));
    for unit in 0..MOST_UNITS {
        assert!(guest.access(unit));
        guest.forget(unit);
    }
    assert!(!guest.policy.before_program(&mut guest.mmu));
}

#[test]
fn a_window_that_was_crowded_takes_twice_as_long_to_come() {
    let mut guest = Guest::new(Windows::Auto);
    let first = guest.slices();
    guest.fill();
    guest.forget(3);
    assert!(!guest.policy.before_program(&mut guest.mmu));
    assert!(guest.mmu.tlb().window().is_none(), "it is closed");
    assert_eq!(guest.slices(), 2 * first);
    assert!(guest.access(MOST_UNITS));
}
