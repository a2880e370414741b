// SPDX-License-Identifier: MIT
/* The kernel's own code in the process, overwritten. vdso flip|rwx|mem */
#include "coverage.h"

#include <sys/auxv.h>

/* Such a mapping cannot be split (mm/mmap.c, special_mapping_split): protect as much as there is. */
static void protect_whole(unsigned char *start, int protection)
{
	for (size_t pages = 1; mprotect(start, pages * PAGE_BYTES, protection); pages++) {
		if (errno != EINVAL)
			fail("mprotect");
	}
}

int main(int argc, char **argv)
{
	unsigned char *page = (void *)getauxval(AT_SYSINFO_EHDR);
	struct marker marker;
	int fd;

	choose_variant(argc, argv, VARIANTS("flip", "rwx", "mem"));
	if (!page)
		exit(NOT_IN_THIS_KERNEL);
	if (variant_is("flip")) {
		protect_whole(page, READ_WRITE);
		marker = put_marker(page);
		protect_whole(page, READ_EXEC);
		execute(&marker);
	} else if (variant_is("rwx")) {
		protect_whole(page, READ_WRITE_EXEC);
		put_and_execute(page);
	} else if (variant_is("mem")) {
		marker = new_marker(page);
		fd = open("/proc/self/mem", O_RDWR);
		if (pwrite(fd, marker.bytes, MARKER_BYTES, (off_t)page) != MARKER_BYTES)
			fail("/proc/self/mem");
		execute(&marker);
	}
	return 0;
}
