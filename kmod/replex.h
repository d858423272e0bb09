/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * The interface of /dev/replex.
 *
 * An open file is one machine, whose RAM is a memfd. A window is an area of
 * 4 GiB of host addresses that stand for the linear addresses of one guest
 * address space. Its pages are those of the RAM that the slots say:
 *
 *	slot = host address - linear address + REPLEX_SLOT_PRESENT, or 0
 *
 * where "host address" is that of the page in a mapping of the RAM, which
 * need not exist. A page is readable if its read slot is filled, writable if
 * its write slot is the same. The tables of slots are the caller's memory, an
 * 8-byte slot for each of the 2^20 linear pages, and are read when a page is
 * touched. What has no slot is SIGSEGV, and so is a slot in a page of a table
 * that is not resident.
 *
 * A page stays as it was made accessible until it is zapped: empty the slot
 * first, then call REPLEX_ZAP. A slot that was filled needs no call, nor does
 * a write slot that was filled beside its read slot. A window may be zapped by
 * any thread, but only one at a time may touch it: a store that makes a page
 * writable may go by a write slot that was emptied and zapped meanwhile, if
 * another thread has read the page since.
 *
 * All requests but REPLEX_GET_VERSION, and mmap(), are for the process that
 * has opened the file, and fail with EPERM in all others.
 */
#ifndef REPLEX_H
#define REPLEX_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The version of this interface, as REPLEX_GET_VERSION returns it. */
#define REPLEX_VERSION		1

/* The low 12 bits of a filled slot. */
#define REPLEX_SLOT_PRESENT	1

/* Windows of a machine. */
#define REPLEX_WINDOWS		128

/* log2 of the linear pages of a window. */
#define REPLEX_WINDOW_BITS	20

/*
 * log2 of the distance, in bytes, of the windows in the file: for window N
 * call mmap() with offset N << REPLEX_OFFSET_BITS, MAP_SHARED, and 4 GiB or
 * less. Executable and private mappings are refused.
 */
#define REPLEX_OFFSET_BITS	33

/* Most pages that one fault makes accessible. */
#define REPLEX_AROUND_MAX	16

/* Most ranges of one REPLEX_ZAP. */
#define REPLEX_RANGES_MAX	512

/**
 * struct replex_ram - the RAM of a machine
 * @fd:		a memfd, open for reading and writing, with F_SEAL_SHRINK and
 *		without F_SEAL_WRITE and F_SEAL_FUTURE_WRITE
 * @flags:	0
 * @base:	host address of the first byte, page aligned
 */
struct replex_ram {
	__s32	fd;
	__u32	flags;
	__u64	base;
};

/**
 * struct replex_tables - the tables of a window
 * @window:	number of the window
 * @around:	a fault makes accessible what has slots in the aligned group of
 *		this many pages around it: a power of two, REPLEX_AROUND_MAX at
 *		most
 * @read_slots:	address of the read slot of linear page 0, a multiple of 8; 0
 *		for a window without slots
 * @write_slots: the same for write slots; may be the same table
 */
struct replex_tables {
	__u32	window;
	__u32	around;
	__u64	read_slots;
	__u64	write_slots;
};

/**
 * struct replex_range - successive pages of a window
 * @first:	number of the first page from the start of the area
 * @pages:	number of pages
 */
struct replex_range {
	__u32	first;
	__u32	pages;
};

/**
 * struct replex_zap - pages that become inaccessible until they are touched
 * @window_base: address of the window's area, as mmap() returned it
 * @ranges:	address of an array of struct replex_range
 * @count:	its length, REPLEX_RANGES_MAX at most
 * @flags:	0
 */
struct replex_zap {
	__u64	window_base;
	__u64	ranges;
	__u32	count;
	__u32	flags;
};

/**
 * struct replex_stats - what was done for a machine since it was opened
 * @faults:	faults that made a page accessible
 * @around:	pages with slots around those, which were made accessible or were
 *		so before
 * @upgrades:	pages that became writable by a store
 * @empty:	faults without a slot for the access: SIGSEGV
 * @absent:	faults whose slots were not resident: SIGSEGV
 * @refused:	faults for which the machine may not hold another page, or
 *		whose page the file has lost by a hole, or whose slot was
 *		changed without a zap: SIGSEGV; see REPLEX_RELEASE
 * @zaps:	ranges that were zapped
 * @held:	pages of RAM that are held at present
 */
struct replex_stats {
	__u64	faults;
	__u64	around;
	__u64	upgrades;
	__u64	empty;
	__u64	absent;
	__u64	refused;
	__u64	zaps;
	__u64	held;
};

/* Returns REPLEX_VERSION. */
#define REPLEX_GET_VERSION	_IO('R', 0x40)

/* Sets the RAM, once; EBUSY the second time. */
#define REPLEX_SET_RAM		_IOW('R', 0x41, struct replex_ram)

/* Sets the tables of a window, which does not zap it. */
#define REPLEX_SET_TABLES	_IOW('R', 0x42, struct replex_tables)

/* Zaps ranges of a window. */
#define REPLEX_ZAP		_IOW('R', 0x43, struct replex_zap)

/*
 * Zaps all windows and lets go of all pages that are held. Pages that a window
 * has shown are held, and cannot be swapped, until then or until the last
 * window is unmapped. Their number is limited for each user and for all; at the
 * limit other pages are SIGSEGV, and this is the way to go on.
 */
#define REPLEX_RELEASE		_IO('R', 0x44)

/* Gets the counts. */
#define REPLEX_GET_STATS	_IOR('R', 0x45, struct replex_stats)

#endif /* REPLEX_H */
