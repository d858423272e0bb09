// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The RAM of a machine, a memfd of the caller's, and the pages of it that are
 * held for windows.
 */
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>

#include "machine.h"

static bool is_sealed_against_writes(struct file *file)
{
	unsigned int seals = READ_ONCE(SHMEM_I(file_inode(file))->seals);

	return seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
}

/* Whether the file can be the RAM. Then no seal against writes can follow. */
static int claim(struct file *file)
{
	const fmode_t both = FMODE_READ | FMODE_WRITE;
	struct inode *inode = file_inode(file);
	int err = -EINVAL;

	if (!shmem_file(file))
		return -EINVAL;
	if ((file->f_mode & both) != both)
		return -EACCES;
	/* Adding a seal takes this lock, too. */
	inode_lock(inode);
	if (!(SHMEM_I(inode)->seals & F_SEAL_SHRINK))
		goto unlock;
	err = -EPERM;
	if (!is_sealed_against_writes(file))
		err = mapping_map_writable(file->f_mapping);
unlock:
	inode_unlock(inode);
	return err;
}

static void disclaim(struct file *file)
{
	mapping_unmap_writable(file->f_mapping);
	fput(file);
}

static int set(struct machine *machine, struct file *file, u64 base)
{
	u64 pages = i_size_read(file_inode(file)) >> PAGE_SHIFT;
	int err = -EBUSY;
	u64 end;

	if (!pages || !PAGE_ALIGNED(base) ||
	    check_add_overflow(base, pages << PAGE_SHIFT, &end))
		return -EINVAL;
	mutex_lock(&machine->lock);
	if (!machine->ram) {
		machine->ram = file;
		machine->mapping = file->f_mapping;
		machine->base = base;
		machine->pages = pages;
		err = 0;
	}
	mutex_unlock(&machine->lock);
	return err;
}

int ram_set(struct machine *machine, const struct replex_ram *ram)
{
	struct file *file;
	int err;

	if (ram->flags)
		return -EINVAL;
	file = fget(ram->fd);
	if (!file)
		return -EBADF;
	/* Not inside machine->lock: the inode's lock is taken outside mmap_lock. */
	err = claim(file);
	if (err) {
		fput(file);
		return err;
	}
	err = set(machine, file, ram->base);
	if (err)
		disclaim(file);
	return err;
}

/*
 * Whether new areas may be writable. F_SEAL_FUTURE_WRITE can be added at any
 * time, and spares, as its name says, the areas that are there.
 */
bool ram_may_be_written(struct machine *machine)
{
	return machine->ram && !is_sealed_against_writes(machine->ram);
}

static struct page *hold(struct machine *machine, pgoff_t index)
{
	struct page *page;
	int err;

	page = shmem_read_mapping_page(machine->mapping, index);
	if (IS_ERR(page))
		return page;
	/*
	 * Stores through an area leave no trace but in its page tables. A page
	 * that is dirty stays so while it is held: it cannot be written out.
	 */
	set_page_dirty_lock(page);
	err = xa_err(xa_store(&machine->held, index, page, GFP_KERNEL_ACCOUNT));
	if (err) {
		put_page(page);
		return ERR_PTR(err);
	}
	machine->stats.held++;
	atomic64_inc(&machine->mm->pinned_vm);
	return page;
}

/*
 * A page of the RAM, which is held from now on; -EDQUOT at the limit, -ESTALE
 * for one that a hole in the file has taken from it since it is held.
 */
struct page *ram_hold(struct machine *machine, pgoff_t index)
{
	struct page *page;

	page = xa_load(&machine->held, index);
	if (page) {
		if (unlikely(page_folio(page)->mapping != machine->mapping))
			return ERR_PTR(-ESTALE);
		return page;
	}
	if (!account_charge(machine->account))
		return ERR_PTR(-EDQUOT);
	page = hold(machine, index);
	if (IS_ERR(page))
		account_uncharge(machine->account, 1);
	return page;
}

/* Lets go of all pages. No area shows one of them. */
void ram_drop(struct machine *machine)
{
	struct page *page;
	unsigned long index;

	xa_for_each(&machine->held, index, page) {
		put_page(page);
		cond_resched();
	}
	xa_destroy(&machine->held);
	account_uncharge(machine->account, machine->stats.held);
	atomic64_sub(machine->stats.held, &machine->mm->pinned_vm);
	machine->stats.held = 0;
}

void ram_close(struct machine *machine)
{
	ram_drop(machine);
	if (machine->ram)
		disclaim(machine->ram);
}
