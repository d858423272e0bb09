// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * How many pages may be held, by a user and by all.
 *
 * The pages are charged to the memory cgroup of the process as those of any
 * memfd; but while they are held they cannot be swapped, which the limits here
 * bound. A user may have more than one user ID, by a user namespace, so there
 * is a limit for all together.
 */
#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/uidgid.h>

#include "machine.h"

static unsigned int user_limit_mib;
module_param(user_limit_mib, uint, 0644);
MODULE_PARM_DESC(user_limit_mib,
		 "Most memory held for the machines of a user, in MiB (0: a quarter of all memory)");

static unsigned int total_limit_mib;
module_param(total_limit_mib, uint, 0644);
MODULE_PARM_DESC(total_limit_mib,
		 "Most memory held for all machines, in MiB (0: half of all memory)");

/**
 * struct account - what the machines of a user hold
 * @node:	in the list of accounts
 * @user:	the user
 * @machines:	number of machines
 * @pages:	number of pages held
 */
struct account {
	struct list_head node;
	kuid_t user;
	unsigned int machines;
	atomic_long_t pages;
};

static LIST_HEAD(accounts);
/* Guards the list and the numbers of machines. */
static DEFINE_MUTEX(accounts_lock);
static atomic_long_t all_pages;

static struct account *find(kuid_t user)
{
	struct account *account;

	list_for_each_entry(account, &accounts, node)
		if (uid_eq(account->user, user))
			return account;
	return NULL;
}

/* The account of the caller's user, for one more machine. */
struct account *account_get(void)
{
	kuid_t user = current_uid();
	struct account *account;

	mutex_lock(&accounts_lock);
	account = find(user);
	if (!account) {
		account = kzalloc(sizeof(*account), GFP_KERNEL_ACCOUNT);
		if (!account)
			goto unlock;
		account->user = user;
		list_add(&account->node, &accounts);
	}
	account->machines++;
unlock:
	mutex_unlock(&accounts_lock);
	return account;
}

void account_put(struct account *account)
{
	mutex_lock(&accounts_lock);
	if (!--account->machines) {
		list_del(&account->node);
		kfree(account);
	}
	mutex_unlock(&accounts_lock);
}

/* A limit in pages: what a parameter says, or a share of all memory. */
static long limit(const unsigned int *parameter, unsigned int share)
{
	unsigned int mib = READ_ONCE(*parameter);

	if (mib)
		return (long)mib << (20 - PAGE_SHIFT);
	return totalram_pages() / share;
}

/* Adds a page, unless that would be too many. */
bool account_charge(struct account *account)
{
	if (atomic_long_inc_return(&account->pages) > limit(&user_limit_mib, 4))
		goto undo;
	if (atomic_long_inc_return(&all_pages) > limit(&total_limit_mib, 2))
		goto undo_all;
	return true;
undo_all:
	atomic_long_dec(&all_pages);
undo:
	atomic_long_dec(&account->pages);
	return false;
}

void account_uncharge(struct account *account, unsigned long pages)
{
	atomic_long_sub(pages, &account->pages);
	atomic_long_sub(pages, &all_pages);
}
