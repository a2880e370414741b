// SPDX-License-Identifier: MIT
/* Sixteen pages, each different, made executable by one call. pages16 [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content content = {.pages = 16, .seed = argument(argc, argv, 1, 1)};

	content.address = map(content.pages, READ_WRITE);
	fill(&content);
	flip(&content);
	return 0;
}
