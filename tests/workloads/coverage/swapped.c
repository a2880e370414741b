// SPDX-License-Identifier: MIT
/*
 * Code that is in swap when the call is made that lets it be executed. swapped ends|hide|view|rwx
 * ends leaves it there; hide makes it inaccessible and overwrites it; view executes a memfd that was
 * written at another address. rwx is swapped out after it has run, then unmapped.
 */
#include "coverage.h"

#include <sched.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21 /* Linux 5.4 */
#endif

#define GENERATIONS 3
#define TRIES 1000
#define PAUSE_NS 10000000
#define PRESENT (1ULL << 63) /* Documentation/admin-guide/mm/pagemap.rst */

static bool is_present(const unsigned char *page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pagemap < 0 || pread(pagemap, &entry, sizeof(entry), (uintptr_t)page / PAGE_BYTES * 8) != 8)
		fail("pagemap");
	close(pagemap);
	return entry & PRESENT;
}

/*
 * Write the page to swap, as the kernel does when memory is short. A new page waits on a list of the
 * CPU that made it, which only a call on that CPU empties (lru_add_drain in mm/swap.c): a thread that
 * was moved since tries from each.
 */
static void swap_out(unsigned char *page)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		fail("sched_getaffinity");
	for (int i = 0; i < TRIES; i++) {
		cpu_set_t cpu;

		CPU_ZERO(&cpu);
		CPU_SET(i % sysconf(_SC_NPROCESSORS_CONF), &cpu);
		sched_setaffinity(0, sizeof(cpu), &cpu); /* fails for a CPU that is not allowed */
		if (madvise(page, PAGE_BYTES, MADV_PAGEOUT)) {
			if (errno == EINVAL)
				exit(NOT_IN_THIS_KERNEL);
			fail("madvise");
		}
		if (!is_present(page)) {
			sched_setaffinity(0, sizeof(allowed), &allowed);
			return;
		}
		nanosleep(&pause, NULL);
	}
	fprintf(stderr, "the page was not swapped out\n");
	exit(3);
}

static void flip_page(void)
{
	unsigned char *page = map(1, READ_WRITE);

	for (int i = 0; i < (variant_is("hide") ? GENERATIONS : 1); i++) {
		struct marker marker = put_marker(page);

		swap_out(page);
		protect(page, 1, READ_EXEC);
		execute(&marker);
		if (variant_is("hide")) {
			protect(page, 1, READ_WRITE);
			memset(page, 0, PAGE_BYTES);
		}
	}
}

static void view(void)
{
	int fd = new_memfd(1);

	for (int i = 0; i < GENERATIONS; i++) {
		unsigned char *code = map_at(NULL, 1, PROT_NONE, MAP_SHARED, fd);
		unsigned char *written = map_at(NULL, 1, READ_WRITE, MAP_SHARED, fd);
		struct marker marker = new_marker(code);

		write_marker(&marker, written);
		swap_out(written);
		unmap(written, 1);
		map_at(code, 1, READ_EXEC, MAP_SHARED | MAP_FIXED, fd);
		execute(&marker);
		unmap(code, 1);
	}
}

static void rwx(void)
{
	unsigned char *page = map(1, READ_WRITE_EXEC);

	put_and_execute(page);
	swap_out(page);
	unmap(page, 1);
}

int main(int argc, char **argv)
{
	choose_variant(argc, argv, VARIANTS("ends", "hide", "view", "rwx"));
	if (variant_is("view"))
		view();
	else if (variant_is("rwx"))
		rwx();
	else
		flip_page();
	return 0;
}
