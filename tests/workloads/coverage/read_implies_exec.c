// SPDX-License-Identifier: MIT
/* Whatever may be read may be executed: personality(2). read_implies_exec mmap|mprotect|brk */
#include "coverage.h"

#include <sys/personality.h>

int main(int argc, char **argv)
{
	unsigned char *page;
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("mmap", "mprotect", "brk"));
	if (personality(READ_IMPLIES_EXEC) < 0)
		fail("personality");
	if (variant_is("mmap")) {
		page = map(1, READ_WRITE);
		put_and_execute(page);
		unmap(page, 1);
	} else if (variant_is("mprotect")) {
		page = map(1, PROT_WRITE);
		marker = put_marker(page);
		protect(page, 1, PROT_READ);
		execute(&marker);
		personality(0);
		protect(page, 1, READ_WRITE);
		memset(page, 0, PAGE_BYTES);
	} else if (variant_is("brk")) {
		page = sbrk(2 * PAGE_BYTES);
		put_and_execute((void *)(((uintptr_t)page + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)));
	}
	return 0;
}
