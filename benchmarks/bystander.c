// SPDX-License-Identifier: MIT
/*
 * What system calls cost a process that nobody traces. bystander BLOCKS
 *
 * Times BLOCKS blocks of each kind of call and prints one JSON object: the median block, in
 * nanoseconds per call (or per pair of calls).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CALLS_PER_BLOCK 2000
#define SPAWNS_PER_BLOCK 20

static char *program;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static void call_getppid(void)
{
	syscall(SYS_getppid);
}

/* Plain data, never touched: the calls themselves are what is measured. */
static void call_mmap_munmap(void)
{
	void *region = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (region == MAP_FAILED || munmap(region, 4096))
		exit(2);
}

/* Without arguments this program ends at once. */
static void call_spawn(void)
{
	char *const arguments[] = {program, NULL};
	pid_t child = vfork();

	if (child == 0) {
		execv(program, arguments);
		_exit(2);
	}
	if (child < 0 || waitpid(child, NULL, 0) != child)
		exit(2);
}

static int ascending(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static double median_block(void (*call)(void), int calls, double *times, size_t blocks)
{
	for (size_t i = 0; i < blocks; i++) {
		double start = now();

		for (int j = 0; j < calls; j++)
			call();
		times[i] = (now() - start) / calls;
	}
	qsort(times, blocks, sizeof(*times), ascending);
	return times[blocks / 2];
}

int main(int argc, char **argv)
{
	size_t blocks = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	double *times = calloc(blocks, sizeof(*times));
	double getppid_ns, mmap_munmap_ns, spawn_ns;

	if (!blocks || !times)
		return 2;
	program = argv[0];
	getppid_ns = median_block(call_getppid, CALLS_PER_BLOCK, times, blocks);
	mmap_munmap_ns = median_block(call_mmap_munmap, CALLS_PER_BLOCK, times, blocks);
	spawn_ns = median_block(call_spawn, SPAWNS_PER_BLOCK, times, blocks);
	printf("{\"getppid_ns\": %.1f, \"mmap_munmap_ns\": %.1f, \"spawn_ns\": %.1f}\n", getppid_ns,
	       mmap_munmap_ns, spawn_ns);
	return 0;
}
