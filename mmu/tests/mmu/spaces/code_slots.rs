//! Code slots, and the tables as translated code probes them.

use super::*;

#[test]
fn a_code_slot_lasts_as_long_as_its_fetch_slot() {
    for page in [PAGE, SHARED] {
        for privilege in PRIVILEGES {
            let mut mmu = sharing_a_table(2);
            map(&mut mmu, page, OLD, P | W | U);
            let at = linear(page);
            let code = |mmu: &Mmu, privilege| mmu.tlb().slot(View::code(privilege), at.page());
            let set = |mmu: &mut Mmu| {
                mmu.fetch_page(at, privilege).unwrap();
                assert!(mmu.tlb_mut().set_code(at.page(), privilege, 5));
                assert_eq!(code(mmu, privilege), 5);
            };
            mmu.read::<u32>(at, privilege).unwrap();
            assert!(!mmu.tlb_mut().set_code(at.page(), privilege, 5));
            assert_eq!(code(&mmu, privilege), 0);
            set(&mut mmu);
            let others = [Supervisor, User].into_iter().filter(|p| *p != privilege);
            others.for_each(|other| assert_eq!(code(&mmu, other), 0));
            mmu.tlb_mut().clear_code();
            assert_eq!(code(&mmu, privilege), 0);
            assert!(
                mmu.tlb()
                    .frame(View::of(Access::Fetch, privilege), at.page())
                    .is_some()
            );
            let drops: [fn(&mut Mmu, u32); 3] = [
                |mmu, page| {
                    map(mmu, page, NEW, P | W | U);
                    mmu.invlpg(linear(page));
                },
                |mmu, _| mmu.flush_all(),
                |mmu, _| {
                    mmu.set_paging(Paging {
                        wp: false,
                        ..*mmu.paging()
                    })
                },
            ];
            for drop in drops {
                set(&mut mmu);
                let epoch = mmu.tlb().fetch_epoch(privilege);
                drop(&mut mmu, page);
                assert_eq!(code(&mmu, privilege), 0);
                assert!(mmu.tlb().fetch_epoch(privilege) > epoch);
            }
        }
    }
}

#[test]
fn code_slots_of_all_spaces_are_cleared() {
    let mut mmu = sharing_a_table(2);
    let code = |mmu: &Mmu| mmu.tlb().slot(View::code(User), linear(PAGE).page());
    for number in [0, 1] {
        enter(&mut mmu, directory(number));
        mmu.fetch_page(linear(PAGE), User).unwrap();
        assert!(mmu.tlb_mut().set_code(linear(PAGE).page(), User, 7));
    }
    enter(&mut mmu, directory(0));
    assert_eq!(code(&mmu), 7);
    mmu.tlb_mut().clear_code();
    for number in [0, 1] {
        enter(&mut mmu, directory(number));
        assert_eq!(code(&mmu), 0);
    }
}

#[test]
fn the_tables_of_one_privilege_lie_at_even_distances() {
    let mmu = unpaged();
    for privilege in PRIVILEGES {
        let base = |view| mmu.tlb().base(view).addr();
        let read = base(View::of(Access::Read, privilege));
        let distance = |view: View| base(view) - read;
        assert_eq!(
            distance(View::of(Access::Write, privilege)),
            2 * View::STRIDE
        );
        assert_eq!(
            distance(View::of(Access::Fetch, privilege)),
            4 * View::STRIDE
        );
        assert_eq!(distance(View::code(privilege)), 6 * View::STRIDE);
    }
    let first = |privilege: Privilege| mmu.tlb().base(View::of(Access::Read, privilege)).addr();
    assert_eq!(first(User) - first(Supervisor), View::STRIDE);
}

#[test]
fn indices_beyond_the_linear_pages_find_nothing_in_any_space() {
    let mut mmu = sharing_a_table(2);
    for number in [0, 1] {
        enter(&mut mmu, directory(number));
        mmu.write(linear(PAGE), User, OLD as u32).unwrap();
        for view in View::ALL {
            let table = mmu.tlb().base(view);
            let slots = View::STRIDE / size_of::<u64>();
            for index in (1 << 20..slots)
                .step_by(0x1_0101)
                .chain([1 << 20, slots - 1])
            {
                // SAFETY: the table of a view has STRIDE readable bytes.
                assert_eq!(unsafe { table.add(index).read() }, 0);
            }
        }
    }
}
