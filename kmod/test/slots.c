// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What windows show, by good slots and by bad ones. */
#include "test.h"

#include "cases.h"

void slots_show_pages(void)
{
	struct machine machine = machine_new(64);
	uint32_t last = (1 << REPLEX_WINDOW_BITS) - 1;
	uint64_t value;

	CHECK(!touch(&machine, 5, &value));
	show(&machine, 5, 40, true);
	show(&machine, 6, 40, false);
	show(&machine, last, 63, true);
	show(&machine, 0, 0, true);
	CHECK(shows(&machine, 5, 40));
	CHECK(shows(&machine, 6, 40));
	CHECK(shows(&machine, last, 63));
	CHECK(shows(&machine, 0, 0));
	CHECK(store(machine.window + 5 * PAGE + 8, 77));
	CHECK(load(machine.window + 6 * PAGE + 8, &value) && value == 77);
	CHECK(!store(machine.window + 6 * PAGE + 8, 78));
	CHECK(*(uint64_t *)(machine.ram + 40 * PAGE + 8) == 77);
	/* A write slot for another page counts for nothing. */
	machine.write[6] = slot(&machine, 6, 41);
	CHECK(!store(machine.window + 6 * PAGE + 8, 78));
	/* A page stays until it is zapped. */
	machine.read[5] = 0;
	CHECK(shows(&machine, 5, 40));
	CHECK(!zap(&machine, machine.window, 5, 1));
	CHECK(!touch(&machine, 5, &value));
	/* A write slot alone shows nothing. */
	CHECK(!store(machine.window + 5 * PAGE, 1));
	hide(&machine, 6);
	show(&machine, 6, 12, true);
	CHECK(shows(&machine, 6, 12));
	CHECK(stats(&machine).held == 4);
	machine_free(&machine);
}

void stores_upgrade(void)
{
	struct machine machine = machine_new(16);
	uint64_t value;

	show(&machine, 3, 9, false);
	CHECK(shows(&machine, 3, 9));
	CHECK(!store(machine.window + 3 * PAGE + 8, 5));
	show(&machine, 3, 9, true);
	CHECK(store(machine.window + 3 * PAGE + 8, 5));
	CHECK(stats(&machine).upgrades == 1);
	CHECK(*(uint64_t *)(machine.ram + 9 * PAGE + 8) == 5);
	/* A slot that changed without a zap: neither page is written. */
	show(&machine, 4, 10, false);
	CHECK(shows(&machine, 4, 10));
	show(&machine, 4, 11, true);
	CHECK(!store(machine.window + 4 * PAGE + 8, 6));
	CHECK(stats(&machine).refused == 1);
	CHECK(!zap(&machine, machine.window, 4, 1));
	CHECK(store(machine.window + 4 * PAGE + 8, 6));
	CHECK(load(machine.ram + 10 * PAGE + 8, &value) && !value);
	CHECK(load(machine.ram + 11 * PAGE + 8, &value) && value == 6);
	/* Without tables nothing is upgraded, either. */
	show(&machine, 5, 12, false);
	CHECK(shows(&machine, 5, 12));
	show(&machine, 5, 12, true);
	set_tables(&machine, 0, 1, NULL, NULL);
	CHECK(!store(machine.window + 5 * PAGE + 8, 5));
	CHECK(!touch(&machine, 6, &value));
}

void pages_around(void)
{
	struct machine machine = machine_new(1024);
	uint64_t *odd = machine.read + 8;
	uint64_t value;
	int i;

	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (i = 0; i < 1024; i++)
		if (i != 20)
			show(&machine, i, i, i % 2);
	CHECK(shows(&machine, 17, 17));
	CHECK(stats(&machine).faults == 1 && stats(&machine).around == 14);
	for (i = 16; i < 32; i++)
		CHECK(i == 20 || shows(&machine, i, i));
	CHECK(stats(&machine).faults == 1);
	CHECK(!touch(&machine, 20, &value));
	CHECK(store(machine.window + 19 * PAGE + 8, 1));
	CHECK(!store(machine.window + 18 * PAGE + 8, 1));
	/* An area that begins and ends within the group. */
	CHECK(!munmap(machine.window + 32 * PAGE, 5 * PAGE));
	CHECK(!munmap(machine.window + 40 * PAGE, 5 * PAGE));
	CHECK(shows(&machine, 38, 38));
	CHECK(stats(&machine).around == 14 + 2);
	CHECK(shows(&machine, 46, 46));
	CHECK(stats(&machine).around == 14 + 2 + 2);
	/* The slots lie in two pages of the table, of which one is absent. */
	for (i = 0; i < 32; i++)
		show(&machine, 512 + i, 512 + i, true);
	set_tables(&machine, 0, 16, odd, odd);
	for (i = 0; i < 16; i++)
		odd[496 + i] = slot(&machine, 496 + i, 100 + i);
	CHECK(!madvise(machine.read + 512, PAGE, MADV_DONTNEED));
	CHECK(shows(&machine, 500, 104));
	CHECK(!touch(&machine, 508, &value));
	CHECK(stats(&machine).absent == 1);
	odd[508] = slot(&machine, 508, 5);
	CHECK(shows(&machine, 508, 5));
}

/* A slot that is likely to be bad in an interesting way. */
static uint64_t bad_slot(const struct machine *machine, uint32_t linear,
			 uint64_t *random)
{
	uint64_t value = next_random(random);
	uint64_t good = slot(machine, linear, value % machine->pages);

	switch (next_random(random) % 8) {
	case 0:
		return value;
	case 1:
		return good + (value >> 40);
	case 2:
		return slot(machine, linear, machine->pages);
	case 3:
		return slot(machine, linear, -1UL);
	case 4:
		return good ^ 1UL << (value >> 58);
	case 5:
		return value | REPLEX_SLOT_PRESENT;
	case 6:
		return 1 - (uint64_t)linear * PAGE;
	default:
		return good;
	}
}

/* Whether what is seen is a page of the RAM. */
static bool is_own(const struct machine *machine, uint64_t value)
{
	return value - MAGIC < machine->pages;
}

void hostile_slots(void)
{
	struct machine machine = machine_new(256);
	uint64_t random = 0x123456789;
	int shown = 0;
	uint64_t value;
	int i;

	set_tables(&machine, 0, 8, machine.read, machine.write);
	for (i = 0; i < 20000; i++) {
		uint32_t linear = next_random(&random) % 512;

		machine.read[linear] = bad_slot(&machine, linear, &random);
		machine.write[linear] = next_random(&random) % 2 ?
			machine.read[linear] :
			bad_slot(&machine, linear, &random);
		if (!touch(&machine, linear, &value))
			continue;
		if (!is_own(&machine, value))
			FAIL("%lx is no page of the RAM", value);
		store(machine.window + linear * PAGE + 8, i);
		shown++;
		if (i % 4 == 0)
			hide(&machine, linear);
	}
	printf("hostile slots: %d of %d showed a page\n", shown, i);
	CHECK(shown > 2000);
	for (i = 0; i < 256; i++)
		CHECK(*(uint64_t *)(machine.ram + i * PAGE) == MAGIC + i);
}

void hostile_tables(void)
{
	struct machine machine = machine_new(16);
	uint64_t value;
	uint64_t *table;
	int zero;

	/* Not there, not readable, not resident. */
	table = mmap(NULL, TABLE_BYTES, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	set_tables(&machine, 0, 1, table, table);
	CHECK(!touch(&machine, 0, &value));
	CHECK(!mprotect(table, TABLE_BYTES, PROT_READ));
	CHECK(!touch(&machine, 0, &value));
	CHECK(!munmap(table, TABLE_BYTES));
	CHECK(!touch(&machine, 0, &value));
	CHECK(stats(&machine).absent == 3);
	/* The first page, the vsyscall page's neighbourhood, the stack. */
	set_tables(&machine, 0, 1, (void *)8, (void *)8);
	CHECK(!touch(&machine, 0, &value));
	table = (uint64_t *)((1UL << 47) - PAGE - TABLE_BYTES);
	set_tables(&machine, 0, 16, table, table);
	CHECK(!touch(&machine, (1 << REPLEX_WINDOW_BITS) - 1, &value));
	table = (uint64_t *)((uint64_t)&value & -8UL);
	set_tables(&machine, 0, 1, table, table);
	CHECK(!touch(&machine, 0, &value) || is_own(&machine, value));
	/* A file, the RAM. */
	zero = open("/dev/zero", O_RDONLY);
	table = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_PRIVATE, zero, 0);
	set_tables(&machine, 0, 16, table, table);
	CHECK(!touch(&machine, 0, &value));
	set_tables(&machine, 0, 1, machine.ram, machine.ram);
	CHECK(!touch(&machine, 0, &value));
	/* One table absent, the other not. */
	show(&machine, 3, 3, true);
	set_tables(&machine, 0, 1, machine.read, (void *)8);
	CHECK(!touch(&machine, 3, &value));
	set_tables(&machine, 0, 1, (void *)8, machine.write);
	CHECK(!touch(&machine, 3, &value));
	set_tables(&machine, 0, 1, machine.read, machine.read);
	CHECK(store(machine.window + 3 * PAGE + 8, 1));
}

void tables_in_windows(void)
{
	struct machine machine = machine_new(16);
	uint64_t *inside = (uint64_t *)(machine.window + WINDOW_BYTES / 2);
	uint8_t *second = window_map(&machine, 1);
	uint32_t half = 1 << (REPLEX_WINDOW_BITS - 1);
	uint64_t value;

	/* The table of the window lies in the window itself. */
	set_tables(&machine, 0, 16, inside, inside);
	CHECK(!touch(&machine, 3, &value));
	CHECK(!touch(&machine, half, &value));
	/* The table of the second window lies in the first. */
	set_tables(&machine, 0, 1, machine.read, machine.write);
	set_tables(&machine, 1, 16, inside, inside);
	show(&machine, half, 7, true);
	CHECK(!load(second, &value));
	inside[1] = slot(&machine, 1, 2);
	CHECK(load(second + PAGE, &value) && value == MAGIC + 2);
	/* A page of the first window that holds its own slot. */
	inside -= half;
	set_tables(&machine, 0, 1, inside, inside);
	inside[half] = slot(&machine, half, 7);
	CHECK(!touch(&machine, half + 2, &value));
	inside[half + 2] = slot(&machine, half + 2, 5);
	CHECK(shows(&machine, half + 2, 5));
	CHECK(!zap(&machine, machine.window, 0, 1 << REPLEX_WINDOW_BITS));
	CHECK(!touch(&machine, half + 2, &value));
	CHECK(!touch(&machine, half, &value));
}

void hole_punched(void)
{
	struct machine machine = machine_new(16);
	uint8_t *second = window_map(&machine, 1);
	uint64_t value;

	set_tables(&machine, 1, 1, machine.read, machine.write);
	show(&machine, 2, 4, true);
	show(&machine, 3, 4, false);
	CHECK(shows(&machine, 2, 4));
	CHECK(shows(&machine, 3, 4));
	CHECK(!fallocate(machine.ram_fd,
			 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			 16 * PAGE));
	CHECK(load(machine.ram + 4 * PAGE, &value) && !value);
	/* Windows keep the page that was lost; it is shown to nobody new. */
	CHECK(shows(&machine, 2, 4));
	CHECK(store(machine.window + 2 * PAGE + 8, 5));
	CHECK(!load(second + 2 * PAGE, &value));
	show(&machine, 3, 4, true);
	CHECK(!store(machine.window + 3 * PAGE, 5));
	CHECK(stats(&machine).refused == 2);
	/* A page that was not held is a new one. */
	show(&machine, 4, 5, true);
	CHECK(touch(&machine, 4, &value) && !value);
	CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	CHECK(!stats(&machine).held);
	CHECK(touch(&machine, 2, &value) && !value);
	CHECK(store(machine.window + 3 * PAGE + 16, 9));
	CHECK(load(machine.ram + 4 * PAGE + 16, &value) && value == 9);
}

void limits(void)
{
	struct machine machine = machine_new(1024);
	struct machine other = machine_new(64);
	uint64_t value;
	int i;

	write_parameter("user_limit_mib", "1");
	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (i = 0; i < 1024; i++)
		show(&machine, i, i, true);
	for (i = 0; touch(&machine, i, &value); i++)
		CHECK(value == MAGIC + i);
	CHECK(i == 256);
	CHECK(stats(&machine).held == 256);
	CHECK(stats(&machine).refused);
	CHECK(shows(&machine, 17, 17));
	/* The limit is the user's, not the machine's. */
	show(&other, 0, 0, true);
	CHECK(!touch(&other, 0, &value));
	CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	CHECK(shows(&other, 0, 0));
	CHECK(shows(&machine, 300, 300));
	write_parameter("user_limit_mib", "0");
	write_parameter("total_limit_mib", "1");
	CHECK(shows(&machine, 0, 0));
	for (i = 0; touch(&machine, i, &value); i++)
		CHECK(value == MAGIC + i);
	CHECK(i < 256);
	write_parameter("total_limit_mib", "0");
	for (i = 0; i < 1024; i++)
		CHECK(shows(&machine, i, i));
	machine_free(&other);
	machine_free(&machine);
}
