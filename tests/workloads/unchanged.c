// SPDX-License-Identifier: MIT
/* One page, written once and flipped again and again. unchanged [FLIPS] [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long flips = argument(argc, argv, 1, 1009);
	struct content content = {
		.address = map(1, READ_WRITE), .pages = 1, .seed = argument(argc, argv, 2, 1)};

	fill(&content);
	for (unsigned long i = 0; i < flips; i++) {
		flip(&content);
		protect(content.address, 1, READ_WRITE);
	}
	return 0;
}
