// SPDX-License-Identifier: MIT
/* One page, rewritten and made executable N times; each generation is called. generations [N] [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 1, 17);
	unsigned long seed = argument(argc, argv, 2, 1);
	struct content content = {.address = map(1, READ_WRITE), .pages = 1};

	for (unsigned int generation = 1; generation <= count; generation++) {
		content.seed = seed + generation;
		content.code = code_returning(generation);
		fill(&content);
		flip(&content);
		call_and_expect(content.address, generation);
		protect(content.address, 1, READ_WRITE);
	}
	return 0;
}
