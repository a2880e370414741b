// SPDX-License-Identifier: MIT
/* One page that alternates between two contents, made executable each time. two_contents [N] [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 1, 13);
	uint64_t seed = argument(argc, argv, 2, 1);
	struct content content = {.address = map(1, READ_WRITE), .pages = 1};

	for (unsigned long i = 0; i < count; i++) {
		content.seed = seed + i % 2;
		fill(&content);
		flip(&content);
		protect(content.address, 1, READ_WRITE);
	}
	return 0;
}
