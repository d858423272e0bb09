// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The tables of slots, which are memory of the caller's and hold anything. A
 * slot is used only if it leads to a page of the RAM.
 */
#include <linux/log2.h>
#include <linux/nospec.h>
#include <linux/uaccess.h>

#include "machine.h"

#define TABLE_BYTES	(sizeof(u64) << REPLEX_WINDOW_BITS)

static bool is_table(u64 address)
{
	return IS_ALIGNED(address, sizeof(u64)) &&
	       access_ok((const void __user *)address, TABLE_BYTES);
}

int slots_set(struct machine *machine, const struct replex_tables *tables)
{
	struct tables *window;

	if (tables->window >= REPLEX_WINDOWS ||
	    tables->around > REPLEX_AROUND_MAX ||
	    !is_power_of_2(tables->around))
		return -EINVAL;
	if (!is_table(tables->read_slots) || !is_table(tables->write_slots))
		return -EFAULT;
	window = &machine->windows[array_index_nospec(tables->window,
						      REPLEX_WINDOWS)];
	mutex_lock(&machine->lock);
	window->read = (const u64 __user *)tables->read_slots;
	window->write = (const u64 __user *)tables->write_slots;
	window->around = tables->around;
	mutex_unlock(&machine->lock);
	return 0;
}

/*
 * Copies slots without a page fault, each in one piece: others may store to
 * them meanwhile. -EFAULT if one of them is not resident.
 */
static int copy(u64 *slots, const u64 __user *from, u32 count)
{
	u32 i;

	if (!user_read_access_begin(from, count * sizeof(*from)))
		return -EFAULT;
	for (i = 0; i < count; i++)
		unsafe_get_user(slots[i], from + i, fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

static struct view view(const struct machine *machine, u32 page, u64 read,
			u64 write)
{
	u64 host = ((u64)page << PAGE_SHIFT) + read - REPLEX_SLOT_PRESENT;
	u64 index = (host - machine->base) >> PAGE_SHIFT;

	return (struct view){
		.index = index,
		.present = offset_in_page(read) == REPLEX_SLOT_PRESENT &&
			   index < machine->pages,
		.writable = write == read,
	};
}

/*
 * Reads the slots of some pages, REPLEX_AROUND_MAX at most. -EFAULT if a slot
 * is not resident.
 */
int slots_read(const struct machine *machine, const struct tables *tables,
	       u32 first, u32 count, struct view *views)
{
	u64 read[REPLEX_AROUND_MAX];
	u64 write[REPLEX_AROUND_MAX];
	int err;
	u32 i;

	pagefault_disable();
	err = copy(read, tables->read + first, count);
	if (!err)
		err = copy(write, tables->write + first, count);
	pagefault_enable();
	if (err)
		return err;
	for (i = 0; i < count; i++)
		views[i] = view(machine, first + i, read[i], write[i]);
	return 0;
}
