// SPDX-License-Identifier: MIT
/* Maps more of a new file to be executed than there is of it. beyond_end FILE */
#include "workload.h"

#include <fcntl.h>

int main(int argc, char **argv)
{
	int fd = open(argc > 1 ? argv[1] : "", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	char page[PAGE_BYTES] = "the only page";

	if (fd < 0 || write(fd, page, sizeof(page)) != sizeof(page))
		fail("file");
	if (mmap(NULL, 3 * PAGE_BYTES, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		fail("mmap");
	return 0;
}
