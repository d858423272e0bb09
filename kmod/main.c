// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * replex: guest address spaces realized in the host's page-fault handler.
 *
 * /dev/replex gives a process one thing: areas in which pages of its own RAM
 * file appear, as tables in its own memory say. replex.h is the interface.
 */
#include <linux/build_bug.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "machine.h"

/* The layout of the interface, as the other side repeats it. */
static_assert(sizeof(struct replex_ram) == 16);
static_assert(offsetof(struct replex_ram, base) == 8);
static_assert(sizeof(struct replex_tables) == 24);
static_assert(offsetof(struct replex_tables, read_slots) == 8);
static_assert(sizeof(struct replex_range) == 8);
static_assert(sizeof(struct replex_zap) == 24);
static_assert(offsetof(struct replex_zap, count) == 16);
static_assert(sizeof(struct replex_stats) == 64);

static int replex_open(struct inode *inode, struct file *file)
{
	struct machine *machine;

	machine = kzalloc(sizeof(*machine), GFP_KERNEL_ACCOUNT);
	if (!machine)
		return -ENOMEM;
	machine->account = account_get();
	if (!machine->account) {
		kfree(machine);
		return -ENOMEM;
	}
	mutex_init(&machine->lock);
	xa_init(&machine->held);
	machine->mm = current->mm;
	mmgrab(machine->mm);
	file->private_data = machine;
	return 0;
}

/* Every area holds a reference to the file, so none is left here. */
static int replex_release(struct inode *inode, struct file *file)
{
	struct machine *machine = file->private_data;

	ram_close(machine);
	account_put(machine->account);
	mmdrop(machine->mm);
	kfree(machine);
	return 0;
}

static long set_ram(struct machine *machine, const void __user *arg)
{
	struct replex_ram ram;

	if (copy_from_user(&ram, arg, sizeof(ram)))
		return -EFAULT;
	return ram_set(machine, &ram);
}

static long set_tables(struct machine *machine, const void __user *arg)
{
	struct replex_tables tables;

	if (copy_from_user(&tables, arg, sizeof(tables)))
		return -EFAULT;
	return slots_set(machine, &tables);
}

static long zap(struct machine *machine, const void __user *arg)
{
	struct replex_zap zap;

	if (copy_from_user(&zap, arg, sizeof(zap)))
		return -EFAULT;
	return window_zap(machine, &zap);
}

static long get_stats(struct machine *machine, void __user *arg)
{
	struct replex_stats stats;

	mutex_lock(&machine->lock);
	stats = machine->stats;
	mutex_unlock(&machine->lock);
	return copy_to_user(arg, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static long replex_ioctl(struct file *file, unsigned int request,
			 unsigned long arg)
{
	struct machine *machine = file->private_data;
	void __user *user = (void __user *)arg;

	if (request == REPLEX_GET_VERSION)
		return REPLEX_VERSION;
	if (!machine_is_callers(machine))
		return -EPERM;
	switch (request) {
	case REPLEX_SET_RAM:
		return set_ram(machine, user);
	case REPLEX_SET_TABLES:
		return set_tables(machine, user);
	case REPLEX_ZAP:
		return zap(machine, user);
	case REPLEX_RELEASE:
		return window_release(machine);
	case REPLEX_GET_STATS:
		return get_stats(machine, user);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations replex_fops = {
	.owner		= THIS_MODULE,
	.open		= replex_open,
	.release	= replex_release,
	.unlocked_ioctl	= replex_ioctl,
	.mmap		= window_mmap,
};

static struct miscdevice replex_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "replex",
	.fops	= &replex_fops,
};
module_misc_device(replex_device);

MODULE_DESCRIPTION("Windows on guest memory for the replex virtual machine monitor");
MODULE_AUTHOR("The replex authors");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_VERSION("0.1.0");
