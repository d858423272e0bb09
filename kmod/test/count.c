// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Counts the instructions that a page costs, with the module and without: in a
 * virtual machine whose time stamp counter counts instructions (QEMU's -icount
 * shift=0). Each line is "count NAME NUMBER", a median.
 */
#include "test.h"

#define PAGES		8192

static uint64_t now(void)
{
	return __builtin_ia32_rdtsc();
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* Prints the median cost of calls for a unit: every other group of pages. */
static void count(const char *name, struct machine *machine, uint32_t units,
		  void (*body)(struct machine *machine, uint32_t page))
{
	uint32_t number = PAGES / (2 * units);
	uint64_t samples[PAGES];
	uint64_t nothing = now();
	uint32_t i;

	nothing = now() - nothing;
	for (i = 0; i < number; i++) {
		uint32_t page = 2 * units * (i * 1597 % number);
		uint64_t start = now();

		body(machine, page);
		samples[i] = now() - start - nothing;
	}
	qsort(samples, number, sizeof(*samples), compare);
	printf("count %s %lu\n", name, samples[number / 2] / units);
}

/* What the handler does about a fault; it then returns to the access. */
static void (*repair)(uint8_t *address);
static struct machine *current;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	repair((uint8_t *)((uint64_t)info->si_addr & -PAGE));
}

static void write_page(struct machine *machine, uint32_t page)
{
	*(volatile uint8_t *)(machine->window + page * PAGE) = 1;
}

static void write_mapped(struct machine *machine, uint32_t page)
{
	*(volatile uint8_t *)(machine->ram + page * PAGE) = 1;
}

static void map_page(uint8_t *address)
{
	/* A page that is neither next to nor of another's. */
	off_t offset = ((address - current->ram) * 7) % (PAGES * PAGE);

	mmap(address, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	     current->ram_fd, offset);
}

static void unmap_page(struct machine *machine, uint32_t page)
{
	mmap(machine->ram + page * PAGE, PAGE, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static void protect_page(struct machine *machine, uint32_t page)
{
	mprotect(machine->ram + page * PAGE, PAGE, PROT_READ | PROT_WRITE);
}

static void show_page(uint8_t *address)
{
	uint32_t linear = (address - current->window) / PAGE;

	show(current, linear, linear, true);
}

static void zap_page(struct machine *machine, uint32_t page)
{
	zap(machine, machine->window, page, 1);
}

static void show_all(struct machine *machine, bool writable)
{
	uint32_t page;

	for (page = 0; page < PAGES; page++)
		show(machine, page, page, writable);
}

static void hide_all(struct machine *machine)
{
	memset(machine->read, 0, 8 * PAGES);
	memset(machine->write, 0, 8 * PAGES);
	zap(machine, machine->window, 0, PAGES);
}

static void read_all(struct machine *machine)
{
	uint64_t value;
	uint32_t page;

	for (page = 0; page < PAGES; page++)
		touch(machine, page, &value);
}

/* Maps the RAM anew. Its pages exist, and so do its page tables then. */
static void remap(struct machine *machine)
{
	mmap(machine->ram, PAGES * PAGE, PROT_READ | PROT_WRITE,
	     MAP_SHARED | MAP_FIXED, machine->ram_fd, 0);
	write_mapped(machine, 1);
	write_mapped(machine, 513);
}

static void without_module(struct machine *machine)
{
	uint32_t page;

	remap(machine);
	count("memfd", machine, 1, write_mapped);
	mmap(machine->ram, PAGES * PAGE, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	repair = map_page;
	count("segv_mmap", machine, 1, write_mapped);
	for (page = 0; page < PAGES; page += 2)
		mprotect(machine->ram + page * PAGE, PAGE, PROT_READ);
	count("mprotect", machine, 1, protect_page);
	count("unmap", machine, 1, unmap_page);
	remap(machine);
}

static void with_module(struct machine *machine)
{
	/* Pages are held and page tables there, as after a while. */
	show_all(machine, true);
	read_all(machine);
	count("zap", machine, 1, zap_page);
	zap(machine, machine->window, 0, PAGES);
	count("filled", machine, 1, write_page);
	hide_all(machine);
	repair = show_page;
	count("empty", machine, 1, write_page);
	hide_all(machine);
	show_all(machine, false);
	read_all(machine);
	show_all(machine, true);
	count("upgrade", machine, 1, write_page);
	zap(machine, machine->window, 0, PAGES);
	set_tables(machine, 0, 16, machine->read, machine->write);
	count("around", machine, 16, write_page);
}

int main(void)
{
	struct machine machine = machine_new(PAGES);
	struct sigaction action = { .sa_sigaction = on_fault,
				    .sa_flags = SA_SIGINFO };

	current = &machine;
	sigaction(SIGSEGV, &action, NULL);
	without_module(&machine);
	with_module(&machine);
	return 0;
}
