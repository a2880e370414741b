// SPDX-License-Identifier: MIT
/*
 * Writable and executable memory whose bytes go away by another call than munmap or mprotect.
 * rwx_discarded dontneed|process_madvise|mmap|mremap_shrink|mremap_move|mremap_over
 */
#include "coverage.h"

#include <sys/uio.h>

static void discard_from_outside(unsigned char *page)
{
	struct iovec range = {.iov_base = page, .iov_len = PAGE_BYTES};
	int self = syscall(SYS_pidfd_open, getpid(), 0);

	if (self < 0 || syscall(SYS_process_madvise, self, &range, 1, MADV_DONTNEED, 0) < 0)
		exit(NOT_IN_THIS_KERNEL);
}

int main(int argc, char **argv)
{
	unsigned char *pages = map(2, READ_WRITE_EXEC), *page = pages + PAGE_BYTES;
	void *moved = page;

	choose_variant(argc, argv,
		       VARIANTS("dontneed", "process_madvise", "mmap", "mremap_shrink", "mremap_move",
				"mremap_over"));
	put_and_execute(page);
	if (variant_is("dontneed")) {
		if (madvise(page, PAGE_BYTES, MADV_DONTNEED))
			fail("madvise");
	} else if (variant_is("process_madvise")) {
		discard_from_outside(page);
	} else if (variant_is("mmap")) {
		map_at(page, 1, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
	} else if (variant_is("mremap_shrink")) {
		moved = mremap(pages, 2 * PAGE_BYTES, PAGE_BYTES, 0);
	} else if (variant_is("mremap_move")) {
		moved = mremap(page, PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
			       map(1, READ_WRITE));
	} else if (variant_is("mremap_over")) {
		moved = mremap(map(1, READ_WRITE), PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
			       page);
	}
	if (moved == MAP_FAILED)
		fail("mremap");
	return 0;
}
