// SPDX-License-Identifier: MIT
/* N pages with the same bytes but for the one in the middle, made executable at once. identical [N] [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 1, 8192);
	uint64_t seed = argument(argc, argv, 2, 1);
	unsigned char *pages = map(count, READ_WRITE);

	for (unsigned long i = 0; i < count; i++)
		fill_page(pages + i * PAGE_BYTES, i == count / 2 ? seed + 1 : seed);
	protect(pages, count, READ_EXEC);
	say("identical", ", \"address\": %lu, \"pages\": %lu", (unsigned long)pages, count);
	return 0;
}
