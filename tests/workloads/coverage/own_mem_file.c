// SPDX-License-Identifier: MIT
/* A process writes its own code, which it may not write, through /proc/self/mem. own_mem_file COUNT */
#include "coverage.h"

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_EXEC);
	int fd = open("/proc/self/mem", O_RDWR);

	for (unsigned long i = 0; i < argument(argc, argv, 1, 1); i++) {
		struct marker marker = new_marker(page);

		if (pwrite(fd, marker.bytes, MARKER_BYTES, (off_t)page) != MARKER_BYTES)
			fail("/proc/self/mem");
		execute(&marker);
	}
	return 0;
}
