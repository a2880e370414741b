// SPDX-License-Identifier: MIT
/*
 * Code in a huge page of hugetlbfs. hugetlb flip|rwx|view|file
 * flip makes private memory executable, rwx unmaps it writable and executable. view executes a memfd
 * that was written at another address, and file a file of hugetlbfs, where no page table has it yet.
 */
#include "coverage.h"

#include <sched.h>
#include <sys/mount.h>

#define GENERATIONS 3
#define HUGE_PAGES 512UL             /* pages in a huge page */
#define INSIDE (7 * PAGE_BYTES + 64) /* the marker's place in one */
#define MOUNT_POINT "/tmp"

static void flip_page(void)
{
	unsigned char *page = map_at(NULL, HUGE_PAGES, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
				     -1);

	for (int i = 0; i < GENERATIONS; i++) {
		struct marker marker = put_marker(page + INSIDE);

		protect(page, HUGE_PAGES, READ_EXEC);
		execute(&marker);
		protect(page, HUGE_PAGES, READ_WRITE);
	}
	memset(page, 0, HUGE_PAGES * PAGE_BYTES);
}

static void rwx(void)
{
	for (int i = 0; i < GENERATIONS; i++) {
		unsigned char *page = map_at(NULL, HUGE_PAGES, READ_WRITE_EXEC,
					     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);

		put_and_execute(page + INSIDE);
		unmap(page, HUGE_PAGES);
	}
}

/* Two huge pages of a file; the code is in the second, and the first is a hole. */
static void view(int fd)
{
	unsigned char *written;

	if (ftruncate(fd, 2 * HUGE_PAGES * PAGE_BYTES))
		fail("ftruncate");
	written = map_at(NULL, 2 * HUGE_PAGES, READ_WRITE, MAP_SHARED, fd);
	for (int i = 0; i < GENERATIONS; i++) {
		unsigned char *place = map_at(NULL, 2 * HUGE_PAGES, PROT_NONE, MAP_SHARED, fd);
		struct marker marker = new_marker(place + HUGE_PAGES * PAGE_BYTES + INSIDE);

		write_marker(&marker, written + HUGE_PAGES * PAGE_BYTES + INSIDE);
		map_at(place, 2 * HUGE_PAGES, READ_EXEC, MAP_SHARED | MAP_FIXED, fd);
		execute(&marker);
		unmap(place, 2 * HUGE_PAGES);
	}
}

static int new_huge_file(void)
{
	int fd;

	if (variant_is("view")) {
		fd = memfd_create("coverage", MFD_HUGETLB);
	} else {
		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("none", MOUNT_POINT, "hugetlbfs", 0, NULL))
			fail("mount");
		fd = open(MOUNT_POINT "/code", O_RDWR | O_CREAT, 0700);
	}
	if (fd < 0)
		fail("huge file");
	return fd;
}

int main(int argc, char **argv)
{
	choose_variant(argc, argv, VARIANTS("flip", "rwx", "view", "file"));
	if (variant_is("flip"))
		flip_page();
	else if (variant_is("rwx"))
		rwx();
	else
		view(new_huge_file());
	return 0;
}
