/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the cases share: a machine with one window, and touches that may fail. */
#ifndef TEST_H
#define TEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../replex.h"

#define PAGE		4096UL
#define WINDOW_BYTES	(PAGE << REPLEX_WINDOW_BITS)
#define TABLE_BYTES	(8UL << REPLEX_WINDOW_BITS)
#define SEALS		(F_SEAL_SHRINK | F_SEAL_GROW)

/* A machine. Word 0 of each page of its RAM is the page's number plus MAGIC. */
struct machine {
	int fd;
	int ram_fd;
	size_t pages;
	uint8_t *ram;
	uint64_t *read;
	uint64_t *write;
	uint8_t *window;
};

#define MAGIC		0x5245504c45580000UL

/* Ends the case as failed. */
#define FAIL(...)	fail(__FILE__, __LINE__, __VA_ARGS__)

/* Ends the case unless something is so. */
#define CHECK(what)						\
	do {							\
		if (!(what))					\
			FAIL("%s: %s", #what, strerror(errno));	\
	} while (0)

/* Ends the case unless a call fails with an error. */
#define REFUSED(error, call)						\
	do {								\
		errno = 0;						\
		long result = (long)(call);				\
		if (result != -1 || errno != (error))			\
			FAIL("%s: %ld, %s, and not %s", #call, result,	\
			     strerrorname_np(errno), #error);		\
	} while (0)

void fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4), noreturn));

int device_open(int flags);
int memfd(size_t pages, int seals);
struct machine machine_new(size_t pages);
void machine_free(struct machine *machine);
uint8_t *window_map(const struct machine *machine, uint32_t window);
void set_tables(const struct machine *machine, uint32_t window,
		uint32_t around, const void *read, const void *write);
int zap(const struct machine *machine, void *window, uint32_t first,
	uint32_t pages);
struct replex_stats stats(const struct machine *machine);

/* The slot that shows a page of RAM at a linear page. */
uint64_t slot(const struct machine *machine, uint32_t linear, size_t page);
void show(struct machine *machine, uint32_t linear, size_t page, bool writable);
void hide(struct machine *machine, uint32_t linear);

/* Load and store; whether it was possible. */
void catch_faults(void);
bool load(const void *address, uint64_t *value);
bool store(void *address, uint64_t value);

/* Loads word 0 of a page of the window. */
bool touch(const struct machine *machine, uint32_t linear, uint64_t *value);
bool shows(const struct machine *machine, uint32_t linear, size_t page);

/* Runs a case in a process of its own; whether it passed. */
bool run(const char *name, void (*body)(void));
void write_parameter(const char *name, const char *value);

uint64_t next_random(uint64_t *state);

#endif /* TEST_H */
