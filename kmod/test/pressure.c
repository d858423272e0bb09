// SPDX-License-Identifier: GPL-2.0 OR MIT
/* More memory in use than there is, with compressed swap. */
#include "test.h"

#include <sys/sysinfo.h>

#include "cases.h"

#define RAM_PAGES	(32UL << 8)

/* Bytes in swap that take pages of the RAM along. */
#define MUCH		(64UL << 20)

/* Fills a page with what compresses, but is not the same everywhere. */
static void dirty(uint8_t *page, uint64_t round)
{
	uint64_t *words = (uint64_t *)page;
	int i;

	for (i = 0; i < 512; i += 8)
		words[i] = round + (uint64_t)page;
}

static uint64_t swapped(void)
{
	struct sysinfo info;

	CHECK(!sysinfo(&info));
	return (info.totalswap - info.freeswap) * info.mem_unit;
}

/*
 * Uses memory, page by page, until there is much in swap, whatever the kernel
 * itself takes of all memory; without swap, three quarters of all.
 */
static void use_all(uint64_t round)
{
	struct sysinfo info;
	size_t bytes, at;
	uint8_t *hog;

	CHECK(!sysinfo(&info));
	bytes = info.totalram / 4 * 3;
	if (info.totalswap)
		bytes = info.totalram + info.totalswap / 2;
	bytes *= info.mem_unit;
	hog = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(hog != MAP_FAILED);
	for (at = 0; at < bytes && swapped() < MUCH; at += PAGE)
		dirty(hog + at, round);
	CHECK(!info.totalswap || swapped() >= MUCH);
	CHECK(!munmap(hog, bytes));
}

/* What a handler of SIGSEGV does about a filled slot. */
static bool try_again(struct machine *machine, uint32_t page, uint64_t *value)
{
	uint64_t slots;

	/* The slot itself may be in swap. */
	CHECK(load(&machine->read[page], &slots));
	CHECK(load(&machine->write[page], &slots));
	if (load(machine->window + page * PAGE + 8, value))
		return true;
	/* The limit. */
	CHECK(!ioctl(machine->fd, REPLEX_RELEASE));
	return load(machine->window + page * PAGE + 8, value);
}

/* Stores to each page through the window, and checks what was there. */
static void go_over(struct machine *machine, uint64_t round)
{
	uint64_t value;
	size_t i;

	for (i = 0; i < machine->pages; i++) {
		uint8_t *at = machine->window + i * PAGE;

		if (!load(at + 8, &value) && !try_again(machine, i, &value))
			FAIL("page %zu: no access", i);
		if (value != round * i)
			FAIL("page %zu: %lx in round %lu", i, value, round);
		CHECK(shows(machine, i, i));
		CHECK(store(at + 8, (round + 1) * i));
	}
}

void memory_pressure(void)
{
	struct machine machine = machine_new(RAM_PAGES);
	struct sysinfo info;
	uint64_t round;
	size_t i;

	CHECK(!sysinfo(&info));
	if (!info.totalswap) {
		printf("memory pressure: without swap, the module's limit alone\n");
		return;
	}
	for (i = 0; i < machine.pages; i++)
		show(&machine, i, i, true);
	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (round = 0; round < 2; round++) {
		/* The first half stays held, the other can be swapped. */
		write_parameter("user_limit_mib", round == 1 ? "0" : "16");
		go_over(&machine, round);
		use_all(round);
		printf("memory pressure: %lu MiB swapped, %lu pages held\n",
		       swapped() >> 20, (unsigned long)stats(&machine).held);
		/* What is in swap now is the RAM's. */
		CHECK(round || swapped());
	}
	write_parameter("user_limit_mib", "0");
	for (i = 0; i < machine.pages; i++)
		CHECK(*(uint64_t *)(machine.ram + i * PAGE + 8) == round * i);
}

/* Pages that were never stored to but through a window. */
void stores_are_kept(void)
{
	const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct machine machine = machine_new(RAM_PAGES);
	size_t i;

	CHECK(!fallocate(machine.ram_fd, hole, 0, RAM_PAGES * PAGE));
	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (i = 0; i < machine.pages; i++) {
		show(&machine, i, i, true);
		CHECK(store(machine.window + i * PAGE + 8, i));
	}
	CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	use_all(0);
	for (i = 0; i < machine.pages; i++)
		CHECK(*(uint64_t *)(machine.ram + i * PAGE + 8) == i);
}
