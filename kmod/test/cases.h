/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The list of all cases. */
#ifndef CASES_H
#define CASES_H

#define CASES \
	CASE(versions)			/* refusals.c */ \
	CASE(ram_refused)		\
	CASE(tables_refused)		\
	CASE(areas_refused)		\
	CASE(zaps_refused)		\
	CASE(late_seals)		\
	CASE(other_processes_refused)	\
	CASE(slots_show_pages)		/* slots.c */ \
	CASE(stores_upgrade)		\
	CASE(pages_around)		\
	CASE(hostile_slots)		\
	CASE(hostile_tables)		\
	CASE(tables_in_windows)		\
	CASE(hole_punched)		\
	CASE(limits)			\
	CASE(fork_shows_nothing)	/* areas.c */ \
	CASE(mremap_moves)		\
	CASE(mprotect_holds)		\
	CASE(parts_of_areas)		\
	CASE(other_calls)		\
	CASE(memory_is_given_back)	\
	CASE(concurrent_hits)		/* races.c */ \
	CASE(zap_is_final)		\
	CASE(hole_punched_meanwhile)	\
	CASE(release_meanwhile)		\
	CASE(munmap_meanwhile)		\
	CASE(mremap_meanwhile)		\
	CASE(mprotect_meanwhile)	\
	CASE(fork_meanwhile)		\
	CASE(exit_meanwhile)		\
	CASE(killed_meanwhile)		\
	CASE(memory_pressure)		/* pressure.c */ \
	CASE(stores_are_kept)

#define CASE(name)	void name(void);
CASES
#undef CASE

#endif /* CASES_H */
