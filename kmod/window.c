// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The areas: what happens when a page is touched, and how pages are zapped.
 *
 * Pages are inserted as page frame numbers that the memory management does not
 * count (VM_PFNMAP), and the machine holds them. Were they inserted as pages of
 * the file, a hole punched in it would find pages mapped that it does not know
 * of.
 */
#include <linux/bits.h>
#include <linux/mmap_lock.h>
#include <linux/uaccess.h>

#include "machine.h"

#define WINDOW_PAGES	BIT(REPLEX_WINDOW_BITS)

/* log2 of the distance of the windows in the file, in pages. */
#define OFFSET_BITS	(REPLEX_OFFSET_BITS - PAGE_SHIFT)

/* Ranges that are zapped at a time. */
#define BATCH		32

static const struct vm_operations_struct window_ops;

static struct tables *tables_of(const struct vm_fault *vmf)
{
	struct machine *machine = vmf->vma->vm_private_data;

	return &machine->windows[vmf->pgoff >> OFFSET_BITS];
}

static u32 linear_page(const struct vm_fault *vmf)
{
	return vmf->pgoff & (WINDOW_PAGES - 1);
}

/* The protection of a page, writable if both the area and the page are. */
static pgprot_t protection(const struct vm_area_struct *vma, bool writable)
{
	/* That of the area is read-only, since window_mkwrite() exists. */
	if (!writable || !(vma->vm_flags & VM_WRITE))
		return vma->vm_page_prot;
	/* Nobody looks at the dirty bit, but the processor would set it. */
	return __pgprot(pgprot_val(vm_get_page_prot(vma->vm_flags)) |
			_PAGE_DIRTY);
}

/* The end of a fault on a page that cannot be held. */
static vm_fault_t failure(struct machine *machine, int err)
{
	if (err != -EDQUOT && err != -ESTALE)
		return vmf_error(err);
	machine->stats.refused++;
	return VM_FAULT_SIGSEGV;
}

static vm_fault_t insert(struct vm_area_struct *vma, unsigned long address,
			 const struct view *view)
{
	struct machine *machine = vma->vm_private_data;
	struct page *page = ram_hold(machine, view->index);

	if (IS_ERR(page))
		return failure(machine, PTR_ERR(page));
	return vmf_insert_pfn_prot(vma, address, page_to_pfn(page),
				   protection(vma, view->writable));
}

/**
 * struct group - the pages that a fault looks at
 * @first:	the first of them
 * @count:	their number
 * @at:		index of the page that was touched
 * @views:	what the slots say
 */
struct group {
	u32 first;
	u32 count;
	u32 at;
	struct view views[REPLEX_AROUND_MAX];
};

/* Chooses the pages around one that lie in its area. */
static void choose(struct group *group, const struct vm_fault *vmf, u32 around)
{
	struct vm_area_struct *vma = vmf->vma;
	u32 page = linear_page(vmf);
	u32 start = vma->vm_pgoff & (WINDOW_PAGES - 1);

	group->first = max(round_down(page, around), start);
	group->count = min_t(u32, round_down(page, around) + around,
			     start + vma_pages(vma)) - group->first;
	group->at = page - group->first;
}

static int read_group(const struct machine *machine,
		      const struct tables *tables, struct group *group)
{
	int err = slots_read(machine, tables, group->first, group->count,
			     group->views);

	if (!err || group->count == 1)
		return err;
	/* The slots of the others may be in another page of the table. */
	group->first += group->at;
	group->at = 0;
	group->count = 1;
	return slots_read(machine, tables, group->first, 1, group->views);
}

static void insert_others(struct vm_fault *vmf, const struct group *group)
{
	struct machine *machine = vmf->vma->vm_private_data;
	unsigned long address;
	u32 i;

	address = (vmf->address & PAGE_MASK) - ((u64)group->at << PAGE_SHIFT);
	for (i = 0; i < group->count; i++, address += PAGE_SIZE) {
		if (i == group->at || !group->views[i].present)
			continue;
		if (insert(vmf->vma, address, &group->views[i]) !=
		    VM_FAULT_NOPAGE)
			break;
		machine->stats.around++;
	}
}

/* Makes a page accessible, and those around it, as their slots say. */
static vm_fault_t fill(struct machine *machine, struct vm_fault *vmf)
{
	const struct tables *tables = tables_of(vmf);
	const struct view *view;
	struct group group;
	vm_fault_t ret;

	if (!tables->read) {
		machine->stats.empty++;
		return VM_FAULT_SIGSEGV;
	}
	choose(&group, vmf, tables->around);
	if (read_group(machine, tables, &group)) {
		machine->stats.absent++;
		return VM_FAULT_SIGSEGV;
	}
	view = &group.views[group.at];
	if (!view->present ||
	    (vmf->flags & FAULT_FLAG_WRITE && !view->writable)) {
		machine->stats.empty++;
		return VM_FAULT_SIGSEGV;
	}
	ret = insert(vmf->vma, vmf->address & PAGE_MASK, view);
	if (ret != VM_FAULT_NOPAGE)
		return ret;
	machine->stats.faults++;
	insert_others(vmf, &group);
	return VM_FAULT_NOPAGE;
}

static vm_fault_t window_fault(struct vm_fault *vmf)
{
	struct machine *machine = vmf->vma->vm_private_data;
	vm_fault_t ret;

	/* The tables are those of one process. */
	if (!machine_is_callers(machine))
		return VM_FAULT_SIGBUS;
	mutex_lock(&machine->lock);
	ret = fill(machine, vmf);
	mutex_unlock(&machine->lock);
	return ret;
}

/* Whether a page that is inserted, read-only, may become writable. */
static vm_fault_t upgrade(struct machine *machine, struct vm_fault *vmf)
{
	const struct tables *tables = tables_of(vmf);
	struct view view;
	struct page *page;

	if (!tables->read ||
	    slots_read(machine, tables, linear_page(vmf), 1, &view)) {
		machine->stats.absent++;
		return VM_FAULT_SIGSEGV;
	}
	if (!view.present || !view.writable) {
		machine->stats.empty++;
		return VM_FAULT_SIGSEGV;
	}
	page = ram_hold(machine, view.index);
	if (IS_ERR(page))
		return failure(machine, PTR_ERR(page));
	if (page_to_pfn(page) != pte_pfn(vmf->orig_pte))
		return failure(machine, -ESTALE);
	machine->stats.upgrades++;
	return 0;
}

/* A store to a page that is inserted: its write slot may be filled by now. */
static vm_fault_t window_mkwrite(struct vm_fault *vmf)
{
	struct machine *machine = vmf->vma->vm_private_data;
	vm_fault_t ret;

	if (!machine_is_callers(machine))
		return VM_FAULT_SIGBUS;
	mutex_lock(&machine->lock);
	ret = upgrade(machine, vmf);
	mutex_unlock(&machine->lock);
	return ret;
}

/*
 * Maps nothing. Kernels with locks for each area call window_fault() under
 * that lock only if this exists, and else begin each fault anew.
 */
static vm_fault_t window_map_pages(struct vm_fault *vmf, pgoff_t start,
				   pgoff_t end)
{
	return 0;
}

static void window_open(struct vm_area_struct *vma)
{
	struct machine *machine = vma->vm_private_data;

	mutex_lock(&machine->lock);
	machine->areas++;
	mutex_unlock(&machine->lock);
}

/* The area shows nothing any more. */
static void window_close(struct vm_area_struct *vma)
{
	struct machine *machine = vma->vm_private_data;

	mutex_lock(&machine->lock);
	if (!--machine->areas)
		ram_drop(machine);
	mutex_unlock(&machine->lock);
}

static const struct vm_operations_struct window_ops = {
	.open		= window_open,
	.close		= window_close,
	.fault		= window_fault,
	.map_pages	= window_map_pages,
	.pfn_mkwrite	= window_mkwrite,
};

static bool is_in_window(struct vm_area_struct *vma)
{
	unsigned long first = vma->vm_pgoff & (BIT(OFFSET_BITS) - 1);

	return vma->vm_pgoff >> OFFSET_BITS < REPLEX_WINDOWS &&
	       first + vma_pages(vma) <= WINDOW_PAGES;
}

static void set_flags(struct vm_area_struct *vma)
{
	const vm_flags_t set = VM_IO | VM_PFNMAP | VM_DONTCOPY | VM_DONTEXPAND |
			       VM_DONTDUMP;
#ifdef HAVE_VM_FLAGS_SET
	vm_flags_mod(vma, set, VM_MAYEXEC);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~VM_MAYEXEC;
#endif
}

int window_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct machine *machine = file->private_data;
	int err = 0;

	if (!machine_is_callers(machine))
		return -EPERM;
	if (!(vma->vm_flags & VM_SHARED) || !is_in_window(vma))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EACCES;
	mutex_lock(&machine->lock);
	if (ram_may_be_written(machine))
		machine->areas++;
	else
		err = machine->ram ? -EPERM : -EINVAL;
	mutex_unlock(&machine->lock);
	if (err)
		return err;
	set_flags(vma);
	vma->vm_private_data = machine;
	vma->vm_ops = &window_ops;
	return 0;
}

static bool is_of(const struct vm_area_struct *vma,
		  const struct machine *machine)
{
	return vma->vm_ops == &window_ops && vma->vm_private_data == machine;
}

/* Zaps ranges of the area at an address. The caller holds mmap_lock. */
static int zap_ranges(struct machine *machine, unsigned long base,
		      const struct replex_range *ranges, u32 count)
{
	struct vm_area_struct *vma = find_vma(machine->mm, base);
	int err = 0;
	u64 length;
	u32 i;

	if (!vma || vma->vm_start > base || !is_of(vma, machine))
		return -EINVAL;
	length = (vma->vm_end - base) >> PAGE_SHIFT;
	mutex_lock(&machine->lock);
	for (i = 0; i < count; i++) {
		if (!ranges[i].pages)
			continue;
		if ((u64)ranges[i].first + ranges[i].pages > length) {
			err = -EINVAL;
			break;
		}
		zap_vma_ptes(vma, base + ((u64)ranges[i].first << PAGE_SHIFT),
			     (u64)ranges[i].pages << PAGE_SHIFT);
		machine->stats.zaps++;
	}
	mutex_unlock(&machine->lock);
	return err;
}

/* Zaps some ranges. They are read without mmap_lock, which a fault takes. */
static int zap_batch(struct machine *machine, unsigned long base,
		     const struct replex_range __user *from, u32 count)
{
	struct replex_range ranges[BATCH];
	int err;

	if (copy_from_user(ranges, from, count * sizeof(*ranges)))
		return -EFAULT;
	if (mmap_read_lock_killable(machine->mm))
		return -EINTR;
	err = zap_ranges(machine, base, ranges, count);
	mmap_read_unlock(machine->mm);
	return err;
}

int window_zap(struct machine *machine, const struct replex_zap *zap)
{
	const struct replex_range __user *from = u64_to_user_ptr(zap->ranges);
	u32 done, count;
	int err = 0;

	if (zap->flags || zap->count > REPLEX_RANGES_MAX ||
	    !PAGE_ALIGNED(zap->window_base))
		return -EINVAL;
	for (done = 0; done < zap->count && !err; done += count) {
		count = min_t(u32, zap->count - done, BATCH);
		err = zap_batch(machine, zap->window_base, from + done, count);
	}
	return err;
}

/* Zaps all areas and lets go of all pages. */
int window_release(struct machine *machine)
{
	VMA_ITERATOR(areas, machine->mm, 0);
	struct vm_area_struct *vma;

	if (mmap_read_lock_killable(machine->mm))
		return -EINTR;
	mutex_lock(&machine->lock);
	for_each_vma(areas, vma)
		if (is_of(vma, machine))
			zap_vma_ptes(vma, vma->vm_start,
				     vma->vm_end - vma->vm_start);
	ram_drop(machine);
	mutex_unlock(&machine->lock);
	mmap_read_unlock(machine->mm);
	return 0;
}
