// SPDX-License-Identifier: GPL-2.0 OR MIT
#include "test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>

static __thread sigjmp_buf recovery;
static __thread volatile sig_atomic_t touching;

void fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("%s:%d: ", file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static void on_fault(int signal)
{
	if (touching)
		siglongjmp(recovery, 1);
	_exit(100 + signal);
}

void catch_faults(void)
{
	struct sigaction action = { .sa_handler = on_fault,
				    .sa_flags = SA_NODEFER };

	CHECK(!sigaction(SIGSEGV, &action, NULL));
	CHECK(!sigaction(SIGBUS, &action, NULL));
}

bool load(const void *address, uint64_t *value)
{
	bool done = false;

	touching = 1;
	if (!sigsetjmp(recovery, 0)) {
		*value = *(const volatile uint64_t *)address;
		done = true;
	}
	touching = 0;
	return done;
}

bool store(void *address, uint64_t value)
{
	bool done = false;

	touching = 1;
	if (!sigsetjmp(recovery, 0)) {
		*(volatile uint64_t *)address = value;
		done = true;
	}
	touching = 0;
	return done;
}

int device_open(int flags)
{
	int fd = open("/dev/replex", flags | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

int memfd(size_t pages, int seals)
{
	int fd = memfd_create("ram", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(!ftruncate(fd, pages * PAGE));
	CHECK(!fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

static void *reserve(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(at != MAP_FAILED);
	CHECK(!madvise(at, bytes, MADV_NOHUGEPAGE));
	return at;
}

struct machine machine_new(size_t pages)
{
	struct machine new = { .pages = pages };
	struct replex_ram ram = { };
	size_t page;

	new.fd = device_open(O_RDWR);
	new.ram_fd = memfd(pages, SEALS);
	new.ram = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       new.ram_fd, 0);
	CHECK(new.ram != MAP_FAILED);
	for (page = 0; page < pages; page++)
		*(uint64_t *)(new.ram + page * PAGE) = MAGIC + page;
	ram.fd = new.ram_fd;
	ram.base = (uint64_t)new.ram;
	CHECK(!ioctl(new.fd, REPLEX_SET_RAM, &ram));
	new.read = reserve(TABLE_BYTES);
	new.write = reserve(TABLE_BYTES);
	set_tables(&new, 0, 1, new.read, new.write);
	new.window = window_map(&new, 0);
	return new;
}

void machine_free(struct machine *machine)
{
	CHECK(!munmap(machine->window, WINDOW_BYTES));
	CHECK(!munmap(machine->ram, machine->pages * PAGE));
	CHECK(!munmap(machine->read, TABLE_BYTES));
	CHECK(!munmap(machine->write, TABLE_BYTES));
	CHECK(!close(machine->fd));
	CHECK(!close(machine->ram_fd));
}

uint8_t *window_map(const struct machine *machine, uint32_t window)
{
	void *at = mmap(NULL, WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			machine->fd, (uint64_t)window << REPLEX_OFFSET_BITS);

	CHECK(at != MAP_FAILED);
	return at;
}

void set_tables(const struct machine *machine, uint32_t window,
		uint32_t around, const void *read, const void *write)
{
	struct replex_tables tables = { window, around, (uint64_t)read,
					(uint64_t)write };

	CHECK(!ioctl(machine->fd, REPLEX_SET_TABLES, &tables));
}

int zap(const struct machine *machine, void *window, uint32_t first,
	uint32_t pages)
{
	struct replex_range range = { first, pages };
	struct replex_zap zap = { (uint64_t)window, (uint64_t)&range, 1, 0 };

	return ioctl(machine->fd, REPLEX_ZAP, &zap);
}

struct replex_stats stats(const struct machine *machine)
{
	struct replex_stats stats;

	CHECK(!ioctl(machine->fd, REPLEX_GET_STATS, &stats));
	return stats;
}

uint64_t slot(const struct machine *machine, uint32_t linear, size_t page)
{
	return (uint64_t)machine->ram + page * PAGE - linear * PAGE +
	       REPLEX_SLOT_PRESENT;
}

void show(struct machine *machine, uint32_t linear, size_t page, bool writable)
{
	machine->read[linear] = slot(machine, linear, page);
	machine->write[linear] = writable ? machine->read[linear] : 0;
	/* The page of the table is then resident. */
	*(volatile uint64_t *)&machine->write[linear];
}

void hide(struct machine *machine, uint32_t linear)
{
	machine->read[linear] = 0;
	machine->write[linear] = 0;
	CHECK(!zap(machine, machine->window, linear, 1));
}

bool touch(const struct machine *machine, uint32_t linear, uint64_t *value)
{
	return load(machine->window + linear * PAGE, value);
}

bool shows(const struct machine *machine, uint32_t linear, size_t page)
{
	uint64_t value;

	return touch(machine, linear, &value) && value == MAGIC + page;
}

bool run(const char *name, void (*body)(void))
{
	struct timespec start, end;
	int status;
	pid_t child;

	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &start);
	child = fork();
	if (!child) {
		catch_faults();
		alarm(1000);
		body();
		fflush(stdout);
		_exit(0);
	}
	waitpid(child, &status, 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%s %s (%ld ms)\n", status ? "FAIL" : "ok", name,
	       (end.tv_sec - start.tv_sec) * 1000 +
	       (end.tv_nsec - start.tv_nsec) / 1000000);
	if (WIFSIGNALED(status))
		printf("killed by signal %d\n", WTERMSIG(status));
	else if (status)
		printf("exit status %d\n", WEXITSTATUS(status));
	fflush(stdout);
	return !status;
}

void write_parameter(const char *name, const char *value)
{
	char path[100];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/replex/parameters/%s", name);
	file = fopen(path, "w");
	CHECK(file);
	CHECK(fputs(value, file) >= 0);
	CHECK(!fclose(file));
}

/* Xorshift: Marsaglia, "Xorshift RNGs", 2003. */
uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
