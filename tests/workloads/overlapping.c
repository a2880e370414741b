// SPDX-License-Identifier: MIT
/*
 * A page in two regions. The large region is flipped until it is hot, with A in the page; then the
 * page alone is flipped, with B in it; then the large region again, with A back. overlapping [FLIPS] [SEED]
 */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long flips = argument(argc, argv, 1, 31);
	uint64_t seed = argument(argc, argv, 2, 1);
	struct content both = {.address = map(2, READ_WRITE), .pages = 2, .seed = seed};
	struct content second = {.address = both.address + PAGE_BYTES, .pages = 1, .seed = seed + 2};

	fill(&both);
	for (unsigned long i = 0; i < flips; i++) {
		flip(&both);
		protect(both.address, both.pages, READ_WRITE);
	}
	fill(&second);
	flip(&second);
	protect(second.address, 1, READ_WRITE);
	fill(&both);
	flip(&both);
	return 0;
}
