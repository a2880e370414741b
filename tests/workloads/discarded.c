// SPDX-License-Identifier: MIT
/*
 * Two pages made executable N times, then discarded while they are writable, and made executable once
 * more without being touched: "emptied" by madvise, or "replaced" by memory newly mapped in their
 * place. One page is written again after that. discarded emptied|replaced [N] [SEED]
 */
#include "workload.h"

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 2, 1);
	unsigned long seed = argument(argc, argv, 3, 1);
	struct content content = {.address = map(2, READ_WRITE), .pages = 2};
	unsigned char *pages = content.address;

	for (unsigned long generation = 0; generation < count; generation++) {
		content.seed = seed + 2 * generation;
		fill(&content);
		flip(&content);
		protect(pages, 2, READ_WRITE);
	}
	if (argc > 1 && !strcmp(argv[1], "emptied")) {
		if (madvise(pages, 2 * PAGE_BYTES, MADV_DONTNEED))
			fail("madvise");
	} else if (munmap(pages, 2 * PAGE_BYTES) ||
		   mmap(pages, 2 * PAGE_BYTES, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != pages) {
		fail("munmap and mmap");
	}
	protect(pages, 2, READ_EXEC);
	say("emptied", ", \"address\": %lu", (unsigned long)pages);
	protect(pages, 2, READ_WRITE);
	content.pages = 1;
	fill(&content); /* what it held before */
	flip(&content);
	return 0;
}
