// SPDX-License-Identifier: MIT
/* One large region, every page written, made executable by one call. big [MIB] [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content content = {.pages = argument(argc, argv, 1, 64) << 8,
				  .seed = argument(argc, argv, 2, 1)};

	content.address = map(content.pages, READ_WRITE);
	fill(&content);
	flip(&content);
	return 0;
}
