/* SPDX-License-Identifier: MIT */
/*
 * What the coverage programs share. Each makes bytes executable in one way, executes them, and hides
 * them again or ends. The bytes are a marker: a function that returns a random number, followed by
 * random bytes. For each marker that ran, the program says
 *
 *	{"step": "executed", ..., "process": PID, "address": A, "bytes": HEX}
 *
 * where PID is that of the process that executed it. A variant that this kernel does not have ends
 * with status 77.
 */
#ifndef COVERAGE_H
#define COVERAGE_H

#include "../workload.h"

#include <stdbool.h>
#include <sys/random.h>
#include <time.h>

#define READ_WRITE_EXEC (PROT_READ | PROT_WRITE | PROT_EXEC)
#define MARKER_BYTES 48
#define NOT_IN_THIS_KERNEL 77
#define SPINNING_NS 40000000LL

struct marker {
	unsigned char *address; /* where it is to be executed */
	unsigned int number;
	unsigned char bytes[MARKER_BYTES];
};

static inline struct marker new_marker(void *address)
{
	struct marker marker = {.address = address};
	struct code code;

	if (getrandom(marker.bytes, sizeof(marker.bytes), 0) != sizeof(marker.bytes))
		fail("getrandom");
	marker.number = marker.bytes[0] | marker.bytes[1] << 8;
	code = code_returning(marker.number);
	memcpy(marker.bytes, code.bytes, code.length);
	return marker;
}

/* Code that spins before it returns: most of the time is spent in its page. */
static inline struct marker spinning_marker(void *address)
{
	struct marker marker = new_marker(address);
	struct code code = code_returning(marker.number);
#if defined(__x86_64__)
	static const unsigned char spin[] = {
		0xb9, 0x00, 0x10, 0x00, 0x00, /* mov ecx, 4096 */
		0xff, 0xc9,                   /* dec ecx */
		0x75, 0xfc,                   /* jnz to the dec */
	};
#elif defined(__aarch64__)
	static const uint32_t spin[] = {
		0x52820001, /* mov w1, 4096 */
		0x71000421, /* subs w1, w1, 1 */
		0x54ffffe1, /* b.ne to the subs */
	};
#endif

	memcpy(marker.bytes, spin, sizeof(spin));
	memcpy(marker.bytes + sizeof(spin), code.bytes, code.length);
	return marker;
}

/* Write the marker through `view`, which may be another mapping of the same memory. */
static inline void write_marker(const struct marker *marker, void *view)
{
	memcpy(view, marker->bytes, MARKER_BYTES);
	__builtin___clear_cache((char *)marker->address, (char *)marker->address + MARKER_BYTES);
}

static inline struct marker put_marker(void *address)
{
	struct marker marker = new_marker(address);

	write_marker(&marker, address);
	return marker;
}

static inline void say_executed(const struct marker *marker, pid_t process)
{
	char hex[2 * MARKER_BYTES + 1];

	for (size_t i = 0; i < MARKER_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", marker->bytes[i]);
	say("executed", ", \"process\": %d, \"address\": %lu, \"bytes\": \"%s\"", process,
	    (unsigned long)marker->address, hex);
}

static inline void execute(const struct marker *marker)
{
	call_and_expect(marker->address, marker->number);
	say_executed(marker, getpid());
}

/* Execute markers one after the other at their address, written through `view`, without any system call. */
static inline void execute_silently(const struct marker *markers, int count, void *view)
{
	for (int i = 0; i < count; i++) {
		write_marker(&markers[i], view);
		call_and_expect(markers[i].address, markers[i].number);
	}
}

static inline void put_and_execute(void *address)
{
	struct marker marker = put_marker(address);

	execute(&marker);
}

static inline long long cpu_time_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Execute a spinning marker for so much CPU time that many samples fall into it. */
static inline void execute_long(const struct marker *marker)
{
	long long end = cpu_time_ns() + SPINNING_NS;

	while (cpu_time_ns() < end)
		call_and_expect(marker->address, marker->number);
	say_executed(marker, getpid());
}

/* Map one page or more, and fail if that cannot be. */
static inline unsigned char *map_at(void *address, size_t pages, int protection, int flags, int fd)
{
	unsigned char *mapped = mmap(address, pages * PAGE_BYTES, protection, flags, fd, 0);

	if (mapped == MAP_FAILED)
		fail("mmap");
	return mapped;
}

static inline int new_memfd(size_t pages)
{
	int fd = memfd_create("coverage", 0);

	if (fd < 0 || ftruncate(fd, pages * PAGE_BYTES))
		fail("memfd");
	return fd;
}

static inline void wait_for(pid_t child)
{
	int status = 0;

	if (child < 0 || waitpid(child, &status, 0) != child)
		fail("child");
	if (status) {
		fprintf(stderr, "child %d ended with status 0x%x\n", child, status);
		exit(3);
	}
}

#define VARIANTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *variant = "";

/* Take the variant from argv[1]; it must be one of those that exist. */
static inline void choose_variant(int argc, char **argv, const char *const *known)
{
	if (argc > 1)
		variant = argv[1];
	while (*known) {
		if (!strcmp(variant, *known++))
			return;
	}
	fprintf(stderr, "there is no variant \"%s\"\n", variant);
	exit(2);
}

static inline bool variant_is(const char *name)
{
	return !strcmp(variant, name);
}

#endif
