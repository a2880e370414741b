// SPDX-License-Identifier: MIT
/*
 * A large region of which few pages are ever written, flipped as a whole, as Ruby's YJIT does. Each
 * flip rewrites one of those pages. sparse [MIB] [WRITTEN] [FLIPS] [SEED]
 */
#include "workload.h"

#define MOST_WRITTEN 16

int main(int argc, char **argv)
{
	size_t pages = argument(argc, argv, 1, 128) << 8;
	size_t written = argument(argc, argv, 2, 7);
	unsigned long flips = argument(argc, argv, 3, 11);
	uint64_t seed = argument(argc, argv, 4, 1);
	unsigned char *region = map(pages, READ_WRITE);
	struct content contents[MOST_WRITTEN];

	if (!written || written > MOST_WRITTEN || written > pages)
		return 2;
	for (size_t i = 0; i < written; i++, seed++) {
		contents[i] = (struct content){
			.address = region + i * (pages / written) * PAGE_BYTES,
			.pages = 1,
			.seed = seed,
		};
		fill(&contents[i]);
	}
	for (unsigned long i = 0; i < flips; i++, seed++) {
		struct content *changed = &contents[i % written];

		changed->seed = seed;
		changed->code = code_returning(i);
		fill(changed);
		protect(region, pages, READ_EXEC);
		say_executable("mprotect", region, pages, contents, written);
		call_and_expect(changed->address, i);
		protect(region, pages, READ_WRITE);
	}
	return 0;
}
