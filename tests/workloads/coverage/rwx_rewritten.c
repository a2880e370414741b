// SPDX-License-Identifier: MIT
/*
 * Writable and executable memory, rewritten several times without any call about memory.
 * rwx_rewritten busy|quick: busy runs each generation for a while, which lets samples fall into it.
 */
#include "coverage.h"

#define GENERATIONS 5

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE_EXEC);

	choose_variant(argc, argv, VARIANTS("busy", "quick"));
	for (int i = 0; i < GENERATIONS; i++) {
		struct marker marker;

		if (variant_is("quick")) {
			put_and_execute(page);
			continue;
		}
		marker = spinning_marker(page);
		write_marker(&marker, page);
		execute_long(&marker);
	}
	memset(page, 0, PAGE_BYTES);
	return 0;
}
