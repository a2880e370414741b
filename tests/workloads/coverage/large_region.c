// SPDX-License-Identifier: MIT
/*
 * Few markers in much memory. large_region huge|sparse|zero
 * huge: huge pages; sparse: most pages never touched; zero: most pages only read
 */
#include "coverage.h"

#define HUGE_BYTES (2UL << 20)
#define PAGES (2 * HUGE_BYTES / PAGE_BYTES)

int main(int argc, char **argv)
{
	unsigned char *mapped = map(2 * PAGES, READ_WRITE);
	unsigned char *region = (void *)(((uintptr_t)mapped + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	size_t places[] = {0, 1, 63, 64, 511, 512, PAGES - 1};
	struct marker markers[7];
	volatile unsigned char *zero = region;

	choose_variant(argc, argv, VARIANTS("huge", "sparse", "zero"));
	if (variant_is("huge")) {
		if (madvise(region, PAGES * PAGE_BYTES, MADV_HUGEPAGE))
			exit(NOT_IN_THIS_KERNEL);
	} else if (variant_is("zero")) {
		for (size_t i = 0; i < PAGES; i++)
			(void)zero[i * PAGE_BYTES];
	}
	for (size_t i = 0; i < 7; i++)
		markers[i] = put_marker(region + places[i] * PAGE_BYTES);
	protect(region, PAGES, READ_EXEC);
	for (size_t i = 0; i < 7; i++)
		execute(&markers[i]);
	protect(region, PAGES, READ_WRITE);
	memset(region, 0, PAGES * PAGE_BYTES);
	return 0;
}
