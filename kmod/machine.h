/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A machine: what belongs to one open file of /dev/replex. */
#ifndef REPLEX_MACHINE_H
#define REPLEX_MACHINE_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/xarray.h>

#include "replex.h"

struct account;

/**
 * struct tables - the tables of a window
 * @read:	read slot of linear page 0, or NULL
 * @write:	write slot of linear page 0
 * @around:	pages that a fault looks at
 */
struct tables {
	const u64 __user *read;
	const u64 __user *write;
	u32 around;
};

/**
 * struct machine - what belongs to one open file
 * @mm:		the address space of the process that has opened the file, the
 *		only one that may use it; its struct is kept, not its memory
 * @account:	what its user holds
 * @lock:	guards all below; taken inside mmap_lock and the lock of an
 *		area, and held from the look at a slot to the insertion of its
 *		page, and while pages are zapped
 * @ram:	the file of the RAM; NULL until it is set
 * @mapping:	its pages
 * @base:	host address of its first byte
 * @pages:	its number of pages
 * @held:	its pages that windows may show, with a reference to each. They
 *		are entered in no rmap, so nothing else would keep them from
 *		being freed
 * @areas:	VMAs that show windows; without one no page is held
 * @windows:	the tables
 * @stats:	the counts
 */
struct machine {
	struct mm_struct *mm;
	struct account *account;
	struct mutex lock;	/* see above */
	struct file *ram;
	struct address_space *mapping;
	u64 base;
	pgoff_t pages;
	struct xarray held;
	unsigned int areas;
	struct tables windows[REPLEX_WINDOWS];
	struct replex_stats stats;
};

/* Whether the caller is the process that has opened the file. */
static inline bool machine_is_callers(const struct machine *machine)
{
	return current->mm == machine->mm;
}

/* account.c: how many pages may be held. */
struct account *account_get(void);
void account_put(struct account *account);
bool account_charge(struct account *account);
void account_uncharge(struct account *account, unsigned long pages);

/* ram.c: the file, and the pages of it that are held. */
int ram_set(struct machine *machine, const struct replex_ram *ram);
bool ram_may_be_written(struct machine *machine);
struct page *ram_hold(struct machine *machine, pgoff_t index);
void ram_drop(struct machine *machine);
void ram_close(struct machine *machine);

/**
 * struct view - a page of RAM as a slot shows it
 * @index:	number of the page
 * @present:	whether there is one
 * @writable:	whether it may be written
 */
struct view {
	pgoff_t index;
	bool present;
	bool writable;
};

/* slots.c: what the tables say. */
int slots_set(struct machine *machine, const struct replex_tables *tables);
int slots_read(const struct machine *machine, const struct tables *tables,
	       u32 first, u32 count, struct view *views);

/* window.c: the areas. */
int window_mmap(struct file *file, struct vm_area_struct *vma);
int window_zap(struct machine *machine, const struct replex_zap *zap);
int window_release(struct machine *machine);

#endif /* REPLEX_MACHINE_H */
