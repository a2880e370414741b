// SPDX-License-Identifier: MIT
/*
 * How long mprotect(PROT_READ | PROT_EXEC) takes, seen by the caller. flips MODE PAGES FLIPS REST
 *
 *	new        each flip has a region of its own, every page of it written
 *	ready      the same, with all regions written before the first flip
 *	changed    one region, one byte written in every page before each flip
 *	unchanged  one region, never written again
 *
 * REST is how many microseconds to sleep after every 4 MiB, for a tracer to catch up.
 *
 * Prints one JSON object: the median and the mean of one call in nanoseconds.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096UL
/* The first flips of a region are no measure of the later ones: memory-tracer's hot_calls is 16. */
#define WARM_UP 16
#define PAGES_BEFORE_REST 1024

struct plan {
	size_t pages, flips;
	useconds_t rest;
};

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static unsigned long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

/*
 * A region that never merges with its neighbours: the page behind it stays inaccessible. It is never
 * unmapped either, so no address is used twice.
 */
static unsigned char *new_region(size_t pages)
{
	unsigned char *region = mmap(NULL, (pages + 1) * PAGE_BYTES, PROT_NONE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (region == MAP_FAILED)
		fail("mmap");
	return region;
}

/* Make every page differ from all pages and all flips before. */
static void change(unsigned char *region, size_t pages, unsigned long flip)
{
	for (size_t i = 0; i < pages; i++) {
		unsigned long number = flip * pages + i + 1;

		memcpy(region + i * PAGE_BYTES, &number, sizeof(number));
	}
}

static void make_writable(unsigned char *region, size_t pages)
{
	if (mprotect(region, pages * PAGE_BYTES, PROT_READ | PROT_WRITE))
		fail("mprotect");
}

/* Flip a region and return how long that took. */
static unsigned long flip(unsigned char *region, const struct plan *plan)
{
	static size_t flipped;
	unsigned long start = now(), time;

	if (mprotect(region, plan->pages * PAGE_BYTES, PROT_READ | PROT_EXEC))
		fail("mprotect");
	time = now() - start;
	flipped += plan->pages;
	if (plan->rest && flipped >= PAGES_BEFORE_REST) {
		flipped = 0;
		usleep(plan->rest);
	}
	return time;
}

static void flip_new_regions(unsigned long *times, const struct plan *plan)
{
	for (size_t i = 0; i < plan->flips; i++) {
		unsigned char *region = new_region(plan->pages);

		make_writable(region, plan->pages);
		change(region, plan->pages, i);
		times[i] = flip(region, plan);
		if (madvise(region, plan->pages * PAGE_BYTES, MADV_DONTNEED))
			fail("madvise");
	}
}

static void flip_ready_regions(unsigned long *times, const struct plan *plan)
{
	unsigned char **regions = calloc(plan->flips, sizeof(*regions));

	if (!regions)
		fail("calloc");
	for (size_t i = 0; i < plan->flips; i++) {
		regions[i] = new_region(plan->pages);
		make_writable(regions[i], plan->pages);
		change(regions[i], plan->pages, i);
	}
	for (size_t i = 0; i < plan->flips; i++)
		times[i] = flip(regions[i], plan);
	free(regions);
}

static void flip_one_region(unsigned long *times, const struct plan *plan, int changing)
{
	unsigned char *region = new_region(plan->pages);

	make_writable(region, plan->pages);
	change(region, plan->pages, 0);
	for (size_t i = 0; i < WARM_UP + plan->flips; i++) {
		unsigned long time;

		make_writable(region, plan->pages);
		if (changing)
			change(region, plan->pages, i + 1);
		time = flip(region, plan);
		if (i >= WARM_UP)
			times[i - WARM_UP] = time;
	}
}

static int ascending(const void *left, const void *right)
{
	unsigned long a = *(const unsigned long *)left, b = *(const unsigned long *)right;

	return (a > b) - (a < b);
}

static void report(unsigned long *times, size_t flips)
{
	unsigned long sum = 0;

	qsort(times, flips, sizeof(*times), ascending);
	for (size_t i = 0; i < flips; i++)
		sum += times[i];
	printf("{\"median_ns\": %lu, \"mean_ns\": %lu}\n", times[flips / 2], sum / flips);
}

int main(int argc, char **argv)
{
	struct plan plan = {
		.pages = argc == 5 ? strtoul(argv[2], NULL, 10) : 0,
		.flips = argc == 5 ? strtoul(argv[3], NULL, 10) : 0,
		.rest = argc == 5 ? strtoul(argv[4], NULL, 10) : 0,
	};
	unsigned long *times = calloc(plan.flips, sizeof(*times));

	if (!plan.pages || !plan.flips || !times)
		return 2;
	/* Touch the results now, not between two flips. */
	memset(times, 1, plan.flips * sizeof(*times));
	if (!strcmp(argv[1], "new"))
		flip_new_regions(times, &plan);
	else if (!strcmp(argv[1], "ready"))
		flip_ready_regions(times, &plan);
	else
		flip_one_region(times, &plan, !strcmp(argv[1], "changed"));
	report(times, plan.flips);
	return 0;
}
