// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What else a process may do with the addresses of a window. */
#include "test.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "cases.h"

/* Newer than some C libraries. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

void fork_shows_nothing(void)
{
	struct machine machine = machine_new(16);
	uint64_t value;
	pid_t child;
	int status;

	show(&machine, 1, 1, true);
	CHECK(shows(&machine, 1, 1));
	child = fork();
	if (!child) {
		CHECK(!touch(&machine, 1, &value));
		CHECK(!touch(&machine, 2, &value));
		REFUSED(ENOMEM, madvise(machine.window, PAGE, MADV_WILLNEED));
		/* The RAM itself is shared, as any memfd. */
		CHECK(load(machine.ram + PAGE, &value) && value == MAGIC + 1);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	REFUSED(EINVAL, madvise(machine.window, PAGE, MADV_DOFORK));
	CHECK(shows(&machine, 1, 1));
}

void mremap_moves(void)
{
	struct machine machine = machine_new(16);
	uint8_t *old = machine.window;
	uint64_t value;
	uint8_t *place;

	show(&machine, 1, 1, true);
	show(&machine, 2, 2, true);
	CHECK(shows(&machine, 1, 1));
	REFUSED(EFAULT, (long)mremap(old, WINDOW_BYTES, 2 * WINDOW_BYTES,
				     MREMAP_MAYMOVE));
	REFUSED(EFAULT, (long)mremap(old, 0, WINDOW_BYTES, MREMAP_MAYMOVE));
	REFUSED(EINVAL, (long)mremap(old, WINDOW_BYTES, WINDOW_BYTES,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
	place = mmap(NULL, WINDOW_BYTES, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	machine.window = mremap(old, WINDOW_BYTES, WINDOW_BYTES,
				MREMAP_MAYMOVE | MREMAP_FIXED, place);
	CHECK(machine.window == place);
	CHECK(!load(old + PAGE, &value));
	CHECK(shows(&machine, 1, 1));
	CHECK(shows(&machine, 2, 2));
	REFUSED(EINVAL, zap(&machine, old, 1, 1));
	hide(&machine, 1);
	CHECK(!touch(&machine, 1, &value));
	/* A part that moves away shows what it did. */
	place = mremap(machine.window + 2 * PAGE, PAGE, PAGE,
		       MREMAP_MAYMOVE | MREMAP_FIXED, old);
	CHECK(place == old);
	CHECK(load(old, &value) && value == MAGIC + 2);
	CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	CHECK(!stats(&machine).held);
	CHECK(load(old, &value) && value == MAGIC + 2);
	CHECK(!munmap(machine.window, WINDOW_BYTES));
	CHECK(stats(&machine).held == 1);
	CHECK(!munmap(old, PAGE));
	CHECK(!stats(&machine).held);
}

void mprotect_holds(void)
{
	struct machine machine = machine_new(16);
	uint8_t *page = machine.window + PAGE;
	uint64_t value;

	show(&machine, 1, 1, true);
	CHECK(store(page + 8, 1));
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_READ));
	CHECK(!store(page + 8, 2));
	CHECK(shows(&machine, 1, 1));
	show(&machine, 2, 2, true);
	CHECK(shows(&machine, 2, 2));
	CHECK(!store(machine.window + 2 * PAGE + 8, 2));
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_READ | PROT_WRITE));
	CHECK(store(page + 8, 3));
	CHECK(store(machine.window + 2 * PAGE + 8, 3));
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_NONE));
	CHECK(!load(page, &value));
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_READ | PROT_WRITE));
	/* The write slot is empty: the protection alone gives no access. */
	hide(&machine, 1);
	show(&machine, 1, 1, false);
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_READ));
	CHECK(shows(&machine, 1, 1));
	CHECK(!mprotect(machine.window, WINDOW_BYTES, PROT_READ | PROT_WRITE));
	CHECK(!store(page + 8, 4));
	CHECK(*(uint64_t *)(machine.ram + PAGE + 8) == 3);
}

void parts_of_areas(void)
{
	struct machine machine = machine_new(64);
	uint64_t value;
	uint8_t *part;
	int i;

	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (i = 0; i < 64; i++)
		show(&machine, i, i, true);
	CHECK(!mprotect(machine.window + 8 * PAGE, PAGE, PROT_READ));
	CHECK(!munmap(machine.window + 12 * PAGE, PAGE));
	for (i = 0; i < 64; i++)
		CHECK(shows(&machine, i, i) == (i != 12));
	/* A range is zapped in one area only. */
	REFUSED(EINVAL, zap(&machine, machine.window, 0, 9));
	CHECK(!zap(&machine, machine.window, 0, 8));
	CHECK(!zap(&machine, machine.window + 13 * PAGE, 0, 10));
	/* A window may begin anywhere, and be there twice. */
	part = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, machine.fd,
		    30 * PAGE);
	CHECK(part != MAP_FAILED);
	CHECK(load(part + 3 * PAGE, &value) && value == MAGIC + 33);
	CHECK(!store(part + 3 * PAGE, 1));
	CHECK(!load(part + 4 * PAGE, &value) || value != MAGIC + 34);
	REFUSED(EINVAL, zap(&machine, part, 0, 5));
	CHECK(!zap(&machine, part, 0, 4));
}

static void in_tracer(pid_t tracee, const uint8_t *window)
{
	struct iovec local = { &(uint64_t){ 0 }, 8 };
	struct iovec remote = { (void *)(window + PAGE), 8 };
	int status;

	REFUSED(EFAULT, process_vm_readv(tracee, &local, 1, &remote, 1, 0));
	CHECK(!ptrace(PTRACE_ATTACH, tracee, NULL, NULL));
	CHECK(waitpid(tracee, &status, 0) == tracee);
	REFUSED(EIO, ptrace(PTRACE_PEEKDATA, tracee, window + PAGE, NULL));
	REFUSED(EIO, ptrace(PTRACE_POKEDATA, tracee, window + PAGE, NULL));
	CHECK(!ptrace(PTRACE_DETACH, tracee, NULL, NULL));
}

/* Calls that reach into a window of the caller's or of another's. */
static void reach_in(const struct machine *machine)
{
	uint8_t *page = machine->window + PAGE;
	int zero = open("/dev/zero", O_RDONLY);
	uint64_t word = 7;
	int ends[2];

	CHECK(read(zero, page + 8, 64) == 64);
	REFUSED(EFAULT, read(zero, machine->window + 9 * PAGE, 64));
	CHECK(!pipe(ends));
	CHECK(write(ends[1], page, 8) == 8);
	CHECK(read(ends[0], &word, 8) == 8 && word == MAGIC + 1);
	REFUSED(EFAULT, write(ends[1], machine->window + 9 * PAGE, 8));
	/* Pages are not for others to hold. */
	REFUSED(EFAULT, vmsplice(ends[1], &(struct iovec){ page, 8 }, 1, 0));
	REFUSED(EFAULT, syscall(SYS_futex, page, FUTEX_WAIT, 1, NULL));
	REFUSED(EAGAIN, syscall(SYS_futex, page, FUTEX_WAIT_PRIVATE, 1, NULL));
	REFUSED(EFAULT, syscall(SYS_futex, machine->window + 9 * PAGE,
				FUTEX_WAKE, 1));
	close(ends[0]);
	close(ends[1]);
	close(zero);
}

static void advise(const struct machine *machine)
{
	static const int advice[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_WILLNEED, MADV_DONTNEED,
		MADV_FREE, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK,
		MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_WIPEONFORK,
		MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ,
		MADV_POPULATE_WRITE, MADV_COLLAPSE, MADV_HWPOISON,
		MADV_SOFT_OFFLINE,
	};
	size_t i;

	for (i = 0; i < sizeof(advice) / sizeof(*advice); i++) {
		madvise(machine->window, 16 * PAGE, advice[i]);
		CHECK(shows(machine, 1, 1));
	}
}

void other_calls(void)
{
	struct machine machine = machine_new(16);
	unsigned char resident;
	char line[200];
	pid_t child;
	FILE *file;
	int status;

	show(&machine, 1, 1, true);
	reach_in(&machine);
	advise(&machine);
	mlock(machine.window, PAGE);
	CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
	CHECK(!munlockall());
	mincore(machine.window, PAGE, &resident);
	msync(machine.window, PAGE, MS_SYNC);
	syscall(SYS_remap_file_pages, machine.window, PAGE, 0, 2, 0);
	syscall(SYS_mbind, machine.window, 16 * PAGE, 0, NULL, 0, 0);
	file = fopen("/proc/self/smaps", "r");
	while (fgets(line, sizeof(line), file))
		;
	fclose(file);
	file = fopen("/proc/self/clear_refs", "w");
	fputs("4", file);
	fclose(file);
	CHECK(!munmap(machine.window, WINDOW_BYTES));
	machine.window = window_map(&machine, 0);
	CHECK(shows(&machine, 1, 1));
	child = fork();
	if (!child) {
		in_tracer(getppid(), machine.window);
		_exit(0);
	}
	while (waitpid(child, &status, 0) != child)
		;
	CHECK(!status);
}

static long meminfo(const char *field)
{
	char line[100];
	long value = -1;
	FILE *file = fopen("/proc/meminfo", "r");

	CHECK(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, field, strlen(field)))
			value = atol(line + strlen(field) + 1);
	fclose(file);
	return value;
}

static void show_all(void)
{
	struct machine machine = machine_new(4096);
	size_t i;

	set_tables(&machine, 0, 16, machine.read, machine.write);
	for (i = 0; i < machine.pages; i++) {
		show(&machine, i, i, true);
		CHECK(shows(&machine, i, i));
	}
	CHECK(stats(&machine).held == 4096);
	machine_free(&machine);
}

void memory_is_given_back(void)
{
	long before;
	int i;

	show_all();
	before = meminfo("Shmem");
	for (i = 0; i < 2; i++)
		show_all();
	/* 64 MiB were shown; counts are kept by processor, so not exactly. */
	CHECK(meminfo("Shmem") < before + 4096);
}
