// SPDX-License-Identifier: MIT
/*
 * Pages of a large region are made writable by themselves, written, and the whole region is made executable
 * again, as Ruby's YJIT does. patched_region pages|pairs
 * pages: one page at a time; pairs: two
 */
#include "coverage.h"

#define PAGES (32UL << 20 >> 12)
#define PATCHES 40
#define PLACES 4

int main(int argc, char **argv)
{
	static const size_t places[PLACES] = {0, 77, 4096, PAGES - 1};
	unsigned char *region = map(PAGES, READ_WRITE);

	choose_variant(argc, argv, VARIANTS("pages", "pairs"));
	memset(region, 0xcc, PAGES * PAGE_BYTES);
	protect(region, PAGES, READ_EXEC);
	for (size_t i = 0; i < PATCHES; i++) {
		unsigned char *page = region + places[i % PLACES] * PAGE_BYTES;
		unsigned char *other = region + places[(i + 1) % PLACES] * PAGE_BYTES;
		struct marker marker, second;

		protect(page, 1, READ_WRITE);
		marker = put_marker(page);
		if (variant_is("pairs")) {
			protect(other, 1, READ_WRITE);
			second = put_marker(other);
		}
		protect(region, PAGES, READ_EXEC);
		execute(&marker);
		if (variant_is("pairs"))
			execute(&second);
	}
	return 0;
}
