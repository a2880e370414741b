// SPDX-License-Identifier: MIT
/* Executable memory whose page is put there later, by userfaultfd. userfaultfd */
#include "coverage.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

int main(void)
{
	unsigned char *page = map(1, READ_EXEC), *source = map(1, READ_WRITE);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register range = {
		.range = {.start = (uint64_t)page, .len = PAGE_BYTES},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_copy copy = {.dst = (uint64_t)page, .src = (uint64_t)source, .len = PAGE_BYTES};
	struct marker marker = new_marker(page);
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		exit(NOT_IN_THIS_KERNEL);
	write_marker(&marker, source);
	if (ioctl(fd, UFFDIO_REGISTER, &range) || ioctl(fd, UFFDIO_COPY, &copy))
		fail("userfaultfd");
	memset(source, 0, PAGE_BYTES);
	execute(&marker);
	unmap(page, 1);
	return 0;
}
