// SPDX-License-Identifier: MIT
/*
 * Writable and executable memory, rewritten several times without any call about memory.
 * rwx_rewritten busy|calls|silent: busy runs each generation for a while, which lets samples fall into it;
 * calls makes a system call after each; silent makes none.
 */
#include "coverage.h"

#define GENERATIONS 5

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE_EXEC);
	struct marker markers[GENERATIONS];

	choose_variant(argc, argv, VARIANTS("busy", "calls", "silent"));
	for (int i = 0; i < GENERATIONS; i++) {
		if (variant_is("calls")) {
			put_and_execute(page);
			continue;
		}
		markers[i] = variant_is("busy") ? spinning_marker(page) : new_marker(page);
		if (variant_is("silent"))
			continue;
		write_marker(&markers[i], page);
		execute_long(&markers[i]);
	}
	if (variant_is("silent"))
		execute_silently(markers, GENERATIONS, page);
	memset(page, 0, PAGE_BYTES);
	if (variant_is("silent")) {
		for (int i = 0; i < GENERATIONS; i++)
			say_executed(&markers[i], getpid());
	}
	return 0;
}
