// SPDX-License-Identifier: MIT
/*
 * An mprotect whose range is not one mapping: part of one, several, or some that end in a hole. At
 * the hole the call fails, with what is before it executable. mprotect_range part|several|hole|far_hole
 */
#include "coverage.h"

static void execute_and_hide(unsigned char *pages, size_t count)
{
	struct marker markers[4];

	for (size_t i = 0; i < count; i++)
		markers[i] = put_marker(pages + i * PAGE_BYTES);
	if (mprotect(pages, 4 * PAGE_BYTES, READ_EXEC) && (count == 4 || errno != ENOMEM))
		fail("mprotect");
	for (size_t i = 0; i < count; i++)
		execute(&markers[i]);
	for (size_t i = 0; i < count; i++)
		protect(pages + i * PAGE_BYTES, 1, READ_WRITE);
	memset(pages, 0, count * PAGE_BYTES);
}

int main(int argc, char **argv)
{
	unsigned char *pages = map(8, READ_WRITE) + 2 * PAGE_BYTES;

	choose_variant(argc, argv, VARIANTS("part", "several", "hole", "far_hole"));
	if (variant_is("part")) {
		execute_and_hide(pages, 4);
		return 0;
	}
	/* Another kind of memory, which cannot become one mapping with its neighbours. */
	if (!variant_is("hole"))
		map_at(pages + PAGE_BYTES, 1, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1);
	if (variant_is("several")) {
		execute_and_hide(pages, 4);
	} else if (variant_is("hole") || variant_is("far_hole")) {
		unmap(pages + 3 * PAGE_BYTES, 1);
		execute_and_hide(pages, 3);
	}
	return 0;
}
