// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Requests that get an error. */
#include "test.h"

#include <sys/wait.h>

#include "cases.h"

static int set_ram(int device, int fd, uint32_t flags, uint64_t base)
{
	struct replex_ram ram = { fd, flags, base };

	return ioctl(device, REPLEX_SET_RAM, &ram);
}

static int try_tables(const struct machine *machine, uint32_t window,
		      uint32_t around, uint64_t read, uint64_t write)
{
	struct replex_tables tables = { window, around, read, write };

	return ioctl(machine->fd, REPLEX_SET_TABLES, &tables);
}

static int try_zap(const struct machine *machine, void *base,
		   const void *ranges, uint32_t count, uint32_t flags)
{
	struct replex_zap zap = { (uint64_t)base, (uint64_t)ranges, count,
				  flags };

	return ioctl(machine->fd, REPLEX_ZAP, &zap);
}

static int try_mmap(int device, size_t length, int prot, int flags,
		    uint64_t offset)
{
	void *at = mmap(NULL, length, prot, flags, device, offset);

	return at == MAP_FAILED ? -1 : 0;
}

void versions(void)
{
	int fd = device_open(O_RDWR);

	CHECK(ioctl(fd, REPLEX_GET_VERSION) == REPLEX_VERSION);
	REFUSED(ENOTTY, ioctl(fd, _IO('R', 0x4f)));
	REFUSED(ENOTTY, ioctl(fd, TCGETS, &fd));
	REFUSED(EFAULT, ioctl(fd, REPLEX_SET_RAM, 8));
	REFUSED(EFAULT, ioctl(fd, REPLEX_SET_TABLES, -1L));
	REFUSED(EFAULT, ioctl(fd, REPLEX_ZAP, NULL));
	REFUSED(EFAULT, ioctl(fd, REPLEX_GET_STATS, NULL));
	REFUSED(EINVAL, read(fd, &fd, sizeof(fd)));
}

void ram_refused(void)
{
	int device = device_open(O_RDWR);
	int good = memfd(4, SEALS);
	char path[40];
	int fd;

	REFUSED(EBADF, set_ram(device, -1, 0, PAGE));
	REFUSED(EINVAL, set_ram(device, device, 0, PAGE));
	fd = open("/dev/zero", O_RDWR);
	REFUSED(EINVAL, set_ram(device, fd, 0, PAGE));
	fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	CHECK(fd >= 0 && !ftruncate(fd, 4 * PAGE));
	REFUSED(EINVAL, set_ram(device, fd, 0, PAGE));
	fd = memfd_create("huge", MFD_ALLOW_SEALING | MFD_HUGETLB);
	if (fd >= 0)
		REFUSED(EINVAL, set_ram(device, fd, 0, PAGE));
	REFUSED(EINVAL, set_ram(device, memfd(4, F_SEAL_GROW), 0, PAGE));
	REFUSED(EINVAL, set_ram(device, memfd(0, SEALS), 0, PAGE));
	REFUSED(EPERM,
		set_ram(device, memfd(4, SEALS | F_SEAL_WRITE), 0, PAGE));
	REFUSED(EPERM, set_ram(device, memfd(4, SEALS | F_SEAL_FUTURE_WRITE), 0,
			       PAGE));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", good);
	REFUSED(EACCES, set_ram(device, open(path, O_RDONLY), 0, PAGE));
	REFUSED(EBADF, set_ram(device, open(path, O_PATH), 0, PAGE));
	REFUSED(EINVAL, set_ram(device, good, 1, PAGE));
	REFUSED(EINVAL, set_ram(device, good, 0, PAGE + 8));
	REFUSED(EINVAL, set_ram(device, good, 0, -PAGE));
	CHECK(!set_ram(device, good, 0, PAGE));
	REFUSED(EBUSY, set_ram(device, good, 0, PAGE));
	REFUSED(EBUSY, set_ram(device, memfd(4, SEALS), 0, PAGE));
}

void tables_refused(void)
{
	struct machine machine = machine_new(4);
	uint64_t table = (uint64_t)machine.read;

	REFUSED(EINVAL, try_tables(&machine, REPLEX_WINDOWS, 1, table, table));
	REFUSED(EINVAL, try_tables(&machine, -1, 1, table, table));
	REFUSED(EINVAL, try_tables(&machine, 0, 0, table, table));
	REFUSED(EINVAL, try_tables(&machine, 0, 3, table, table));
	REFUSED(EINVAL, try_tables(&machine, 0, 32, table, table));
	REFUSED(EINVAL, try_tables(&machine, 0, 1u << 31, table, table));
	REFUSED(EFAULT, try_tables(&machine, 0, 1, table + 4, table));
	REFUSED(EFAULT, try_tables(&machine, 0, 1, table, table + 1));
	REFUSED(EFAULT, try_tables(&machine, 0, 1, table, 1UL << 63));
	REFUSED(EFAULT, try_tables(&machine, 0, 1, -TABLE_BYTES, table));
	REFUSED(EFAULT, try_tables(&machine, 0, 1, -8, table));
	/* The end of user space lies in the table, or before it. */
	REFUSED(EFAULT, try_tables(&machine, 0, 1, table,
				   (1UL << 56) - PAGE - TABLE_BYTES + 8));
	show(&machine, 7, 3, true);
	CHECK(shows(&machine, 7, 3));
}

void areas_refused(void)
{
	struct machine machine = machine_new(4);
	const int both = PROT_READ | PROT_WRITE;
	const uint64_t stride = 1UL << REPLEX_OFFSET_BITS;
	int empty = device_open(O_RDWR);
	int reader = device_open(O_RDONLY);
	struct replex_ram ram = { machine.ram_fd, 0, PAGE };
	int fd = machine.fd;

	REFUSED(EINVAL, try_mmap(empty, PAGE, both, MAP_SHARED, 0));
	CHECK(!ioctl(reader, REPLEX_SET_RAM, &ram));
	REFUSED(EACCES, try_mmap(reader, PAGE, both, MAP_SHARED, 0));
	REFUSED(EINVAL, try_mmap(reader, PAGE, PROT_READ, MAP_SHARED, 0));
	REFUSED(EINVAL, try_mmap(fd, PAGE, both, MAP_PRIVATE, 0));
	REFUSED(EINVAL, try_mmap(fd, PAGE, PROT_READ, MAP_PRIVATE, 0));
	REFUSED(EACCES, try_mmap(fd, PAGE, both | PROT_EXEC, MAP_SHARED, 0));
	REFUSED(EACCES, try_mmap(fd, PAGE, PROT_EXEC, MAP_SHARED, 0));
	REFUSED(EINVAL, try_mmap(fd, WINDOW_BYTES + PAGE, both, MAP_SHARED, 0));
	REFUSED(EINVAL, try_mmap(fd, WINDOW_BYTES, both, MAP_SHARED, PAGE));
	REFUSED(EINVAL, try_mmap(fd, PAGE, both, MAP_SHARED, WINDOW_BYTES));
	REFUSED(EINVAL, try_mmap(fd, PAGE, both, MAP_SHARED,
				 REPLEX_WINDOWS * stride));
	REFUSED(EINVAL, try_mmap(fd, PAGE, both, MAP_SHARED, 1UL << 62));
	CHECK(!try_mmap(fd, WINDOW_BYTES, both, MAP_SHARED,
			(REPLEX_WINDOWS - 1) * stride));
	REFUSED(EACCES, mprotect(machine.window, PAGE, PROT_EXEC));
	REFUSED(EACCES, mprotect(machine.window, WINDOW_BYTES,
				 PROT_READ | PROT_EXEC));
}

void zaps_refused(void)
{
	struct machine machine = machine_new(4);
	struct machine other = machine_new(4);
	struct replex_range many[REPLEX_RANGES_MAX + 1] = { };
	struct replex_range last = { (1 << REPLEX_WINDOW_BITS) - 1, 1 };
	struct replex_range past = { (1 << REPLEX_WINDOW_BITS) - 1, 2 };
	struct replex_range wraps = { UINT32_MAX, UINT32_MAX };
	uint8_t *window = machine.window;
	void *half;

	CHECK(!try_zap(&machine, window, &last, 1, 0));
	CHECK(!try_zap(&machine, window, many, REPLEX_RANGES_MAX, 0));
	CHECK(!try_zap(&machine, window, NULL, 0, 0));
	REFUSED(EINVAL, try_zap(&machine, window, many, REPLEX_RANGES_MAX + 1,
				0));
	REFUSED(EINVAL, try_zap(&machine, window, &last, 1, 1));
	REFUSED(EINVAL, try_zap(&machine, window + 8, &last, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, window, &past, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, window, &wraps, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, machine.ram, &last, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, other.window, &last, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, NULL, &last, 1, 0));
	REFUSED(EINVAL, try_zap(&machine, (void *)-PAGE, &last, 1, 0));
	REFUSED(EFAULT, try_zap(&machine, window, NULL, 1, 0));
	REFUSED(EFAULT, try_zap(&machine, window, (void *)-8, 1, 0));
	/* The array ends in pages that are not there. */
	half = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(!munmap(half + PAGE, PAGE));
	REFUSED(EFAULT, try_zap(&machine, window, half + PAGE - 40 * 8, 512,
				0));
	/* An array in the window itself. */
	show(&machine, 0, 0, true);
	memset(machine.ram, 0, PAGE);
	CHECK(!try_zap(&machine, window, window, REPLEX_RANGES_MAX, 0));
}

void late_seals(void)
{
	struct machine machine = machine_new(16);
	int fd = memfd(4, F_SEAL_SHRINK);
	int device = device_open(O_RDWR);
	struct replex_ram ram = { fd, 0, PAGE };
	int i;

	CHECK(!ioctl(device, REPLEX_SET_RAM, &ram));
	REFUSED(EBUSY, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	REFUSED(EPERM, ftruncate(fd, PAGE));
	/* What is added at the end is not RAM. */
	CHECK(!ftruncate(fd, 64 * PAGE));
	CHECK(!close(device));
	CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));

	for (i = 0; i < 16; i++)
		show(&machine, i, i, true);
	CHECK(store(machine.window + 8, 1));
	CHECK(!fcntl(machine.ram_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	CHECK(store(machine.window + PAGE + 8, 2));
	REFUSED(EPERM, try_mmap(machine.fd, PAGE, PROT_READ, MAP_SHARED, 0));
	REFUSED(EBUSY, fcntl(machine.ram_fd, F_ADD_SEALS, F_SEAL_WRITE));
}

static void in_child(const struct machine *machine)
{
	const int both = PROT_READ | PROT_WRITE;
	struct replex_stats stats;
	struct replex_ram ram = { machine->ram_fd, 0, PAGE };

	CHECK(ioctl(machine->fd, REPLEX_GET_VERSION) == REPLEX_VERSION);
	REFUSED(EPERM, ioctl(machine->fd, REPLEX_SET_RAM, &ram));
	REFUSED(EPERM, try_tables(machine, 0, 1, 0, 0));
	REFUSED(EPERM, zap(machine, machine->window, 0, 1));
	REFUSED(EPERM, ioctl(machine->fd, REPLEX_RELEASE));
	REFUSED(EPERM, ioctl(machine->fd, REPLEX_GET_STATS, &stats));
	REFUSED(EPERM, try_mmap(machine->fd, PAGE, both, MAP_SHARED, 0));
}

void other_processes_refused(void)
{
	struct machine machine = machine_new(4);
	pid_t child = fork();
	int status;

	if (!child) {
		in_child(&machine);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	show(&machine, 1, 1, true);
	CHECK(shows(&machine, 1, 1));
}
