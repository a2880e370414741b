// SPDX-License-Identifier: MIT
/* The heap made executable. heap flip|shrink: shrink writes while it is writable, then gives it back */
#include "coverage.h"

int main(int argc, char **argv)
{
	uintptr_t old = (uintptr_t)sbrk(0);
	unsigned char *page = (void *)((old + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1));
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("flip", "shrink"));
	if (brk(page + PAGE_BYTES))
		fail("brk");
	if (variant_is("flip")) {
		marker = put_marker(page);
		protect(page, 1, READ_EXEC);
		execute(&marker);
		protect(page, 1, READ_WRITE);
		memset(page, 0, PAGE_BYTES);
	} else if (variant_is("shrink")) {
		protect(page, 1, READ_WRITE_EXEC);
		put_and_execute(page);
		if (brk(page))
			fail("brk");
	}
	return 0;
}
