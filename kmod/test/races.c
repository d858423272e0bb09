// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Several threads and processes at once. */
#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "cases.h"

#define THREADS		3
#define PAGES		512

/* A thread with a window of its own, on the machine of all. */
struct worker {
	pthread_t thread;
	struct machine *machine;
	uint8_t *window;
	uint64_t *read;
	uint64_t *write;
	uint32_t number;
	uint64_t hits;
	uint64_t faults;
};

static atomic_bool stop;

static void fill(struct worker *worker, uint32_t page, bool writable)
{
	uint64_t filled = slot(worker->machine, page, page);

	worker->read[page] = filled;
	worker->write[page] = writable ? filled : 0;
}

static void start(struct worker *workers, struct machine *machine,
		  void *(*body)(void *))
{
	uint32_t i, page;

	for (i = 0; i < THREADS; i++) {
		struct worker *worker = &workers[i];

		*worker = (struct worker){ .machine = machine, .number = i };
		worker->read = mmap(NULL, 2 * TABLE_BYTES,
				    PROT_READ | PROT_WRITE, MAP_PRIVATE |
				    MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		CHECK(worker->read != MAP_FAILED);
		worker->write = worker->read + TABLE_BYTES / 8;
		for (page = 0; page < PAGES; page++)
			fill(worker, page, page % 2);
		set_tables(machine, i + 1, 1 << i, worker->read,
			   worker->write);
		worker->window = window_map(machine, i + 1);
		CHECK(!pthread_create(&worker->thread, NULL, body, worker));
	}
}

static uint64_t end(struct worker *workers)
{
	uint64_t hits = 0;
	int i;

	atomic_store(&stop, true);
	for (i = 0; i < THREADS; i++) {
		CHECK(!pthread_join(workers[i].thread, NULL));
		hits += workers[i].hits;
	}
	atomic_store(&stop, false);
	return hits;
}

/* Touches pages until told to stop. They show their page, or fault. */
static void *toucher(void *argument)
{
	struct worker *worker = argument;
	uint64_t random = worker->number + 1;
	uint64_t value;

	while (!atomic_load(&stop)) {
		uint32_t page = next_random(&random) % PAGES;
		uint8_t *at = worker->window + page * PAGE;

		if (!load(at, &value)) {
			worker->faults++;
			continue;
		}
		if (value && value != MAGIC + page)
			FAIL("page %u shows %lx", page, value);
		fill(worker, page, true);
		store(at + 8 + 8 * worker->number, random);
		worker->hits++;
	}
	return NULL;
}

/* Zaps pages of all windows, some with their slots emptied for a while. */
static void zap_often(struct machine *machine, struct worker *workers,
		      int rounds)
{
	uint64_t random = 99;
	int i;

	for (i = 0; i < rounds; i++) {
		struct worker *worker = &workers[i % THREADS];
		uint32_t page = next_random(&random) % PAGES;
		uint32_t count = 1 + next_random(&random) % (PAGES - page);

		if (i % 3 == 0)
			worker->read[page] = 0;
		worker->write[page] = 0;
		CHECK(!zap(machine, worker->window, page, count));
		fill(worker, page, false);
	}
}

void concurrent_hits(void)
{
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	struct replex_stats done;
	uint64_t hits;

	start(workers, &machine, toucher);
	do {
		zap_often(&machine, workers, 100);
		done = stats(&machine);
	} while (done.faults < 20000);
	hits = end(workers);
	printf("concurrent hits: %lu faults, %lu around, %lu upgrades, %lu zaps, %lu touches\n",
	       (unsigned long)done.faults, (unsigned long)done.around,
	       (unsigned long)done.upgrades, (unsigned long)done.zaps, hits);
	CHECK(done.faults >= 10000);
}

/* The machine of zap_is_final, and whose turn it is. */
static struct {
	struct machine machine;
	atomic_uint turn;
} final;

#define AROUND		16

/* Makes the other thread fault again and again, then hides a page for good. */
static void *zapper(void *argument)
{
	unsigned int turn;
	int i;

	(void)argument;
	for (turn = 1; turn < 1600; turn += 2) {
		while (atomic_load(&final.turn) != turn)
			sched_yield();
		for (i = 0; i < 5; i++)
			CHECK(!zap(&final.machine, final.machine.window, 0,
				   AROUND));
		hide(&final.machine, AROUND - 1);
		atomic_store(&final.turn, turn + 1);
	}
	return NULL;
}

void zap_is_final(void)
{
	pthread_t thread;
	unsigned int turn;
	uint64_t value;
	uint32_t page;

	final.machine = machine_new(PAGES);
	set_tables(&final.machine, 0, AROUND, final.machine.read,
		   final.machine.write);
	CHECK(!pthread_create(&thread, NULL, zapper, NULL));
	for (turn = 0; turn < 1600; turn += 2) {
		for (page = 0; page < AROUND; page++)
			show(&final.machine, page, page, true);
		CHECK(shows(&final.machine, AROUND - 1, AROUND - 1));
		atomic_store(&final.turn, turn + 1);
		/* The fault on the first page inserts the last one, too. */
		while (atomic_load(&final.turn) == turn + 1)
			touch(&final.machine, 0, &value);
		CHECK(!touch(&final.machine, AROUND - 1, &value));
	}
	CHECK(!pthread_join(thread, NULL));
}

void hole_punched_meanwhile(void)
{
	const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	int i;

	start(workers, &machine, toucher);
	for (i = 0; i < 120; i++) {
		CHECK(!fallocate(machine.ram_fd, hole, i % 64 * PAGE,
				 (PAGES - 64) * PAGE));
		zap_often(&machine, workers, 10);
		if (i % 8 == 0)
			CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	}
	printf("holes: %lu touches\n", end(workers));
}

void release_meanwhile(void)
{
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	int i;

	start(workers, &machine, toucher);
	for (i = 0; i < 300; i++) {
		CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
		sched_yield();
	}
	printf("releases: %lu touches\n", end(workers));
	CHECK(!ioctl(machine.fd, REPLEX_RELEASE));
	CHECK(!stats(&machine).held);
}

void munmap_meanwhile(void)
{
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	int i;

	start(workers, &machine, toucher);
	for (i = 0; i < 90; i++) {
		struct worker *worker = &workers[i % THREADS];
		uint64_t offset = (uint64_t)(worker->number + 1) <<
				  REPLEX_OFFSET_BITS;

		if (i % 2)
			CHECK(!munmap(worker->window, WINDOW_BYTES));
		CHECK(mmap(worker->window, WINDOW_BYTES,
			   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			   machine.fd, offset) == worker->window);
	}
	printf("munmap: %lu touches\n", end(workers));
}

void mremap_meanwhile(void)
{
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	uint8_t *place;
	int i;

	place = mmap(NULL, WINDOW_BYTES, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	start(workers, &machine, toucher);
	for (i = 0; i < 60; i++) {
		uint8_t *window = workers[i % THREADS].window;

		CHECK(mremap(window, WINDOW_BYTES, WINDOW_BYTES,
			     MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
		zap(&machine, place, 0, PAGES);
		CHECK(mremap(place, WINDOW_BYTES, WINDOW_BYTES,
			     MREMAP_MAYMOVE | MREMAP_FIXED, window) == window);
	}
	printf("mremap: %lu touches\n", end(workers));
}

void mprotect_meanwhile(void)
{
	static const int protections[] = { PROT_READ, PROT_NONE,
					   PROT_READ | PROT_WRITE };
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	int i;

	start(workers, &machine, toucher);
	for (i = 0; i < 300; i++)
		CHECK(!mprotect(workers[i % THREADS].window + i % 64 * PAGE,
				(1 + i % 100) * PAGE, protections[i % 3]));
	printf("mprotect: %lu touches\n", end(workers));
}

void fork_meanwhile(void)
{
	struct machine machine = machine_new(PAGES);
	struct worker workers[THREADS];
	int status;
	int i;

	start(workers, &machine, toucher);
	for (i = 0; i < 25; i++) {
		pid_t child = fork();

		if (!child)
			_exit(0);
		CHECK(waitpid(child, &status, 0) == child && !status);
		zap_often(&machine, workers, 10);
	}
	printf("fork: %lu touches\n", end(workers));
}

/* A process whose threads touch until it ends, one way or another. */
static pid_t busy_process(bool exits, int number)
{
	pid_t child = fork();

	if (!child) {
		struct machine machine = machine_new(PAGES);
		struct worker workers[THREADS];

		start(workers, &machine, toucher);
		zap_often(&machine, workers, 20 + 5 * number);
		if (exits)
			_exit(0);
		for (;;)
			zap_often(&machine, workers, 100);
	}
	CHECK(child > 0);
	return child;
}

void exit_meanwhile(void)
{
	int status;
	int i;

	for (i = 0; i < 10; i++) {
		pid_t child = busy_process(true, i);

		CHECK(waitpid(child, &status, 0) == child && !status);
	}
}

void killed_meanwhile(void)
{
	int status;
	int i;

	for (i = 0; i < 12; i++) {
		pid_t one = busy_process(false, 0);
		pid_t other = busy_process(false, 0);
		struct timespec time = { 0, 20000000 + i * 7000000 };

		nanosleep(&time, NULL);
		CHECK(!kill(one, SIGKILL));
		CHECK(!kill(other, SIGKILL));
		CHECK(waitpid(one, &status, 0) == one);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		CHECK(waitpid(other, &status, 0) == other);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
}
