// SPDX-License-Identifier: MIT
/*
 * Writable and executable memory, rewritten several times without any call about memory.
 * rwx_rewritten busy|calls|written|silent: busy runs each generation for a while, which lets samples fall into
 * it; calls makes system calls after each; written makes a single one after each, which could itself write to
 * memory, when a page of another mapping is new; silent makes none.
 */
#include "coverage.h"

#define GENERATIONS 5

/* Before each call, write to a mapping below that of the markers, which is so looked at first. */
static void execute_and_write(const struct marker *markers, int count, void *view, unsigned char *below)
{
	int file = open("/dev/null", O_WRONLY | O_CLOEXEC);

	for (int i = 0; i < count; i++) {
		below[i * PAGE_BYTES] = 1 + i;
		execute_silently(&markers[i], 1, view);
		if (write(file, "", 1) != 1)
			fail("write");
	}
	close(file);
}

int main(int argc, char **argv)
{
	unsigned char *below = map(GENERATIONS + 2, READ_WRITE_EXEC);
	unsigned char *page = below + (GENERATIONS + 1) * PAGE_BYTES;
	struct marker markers[GENERATIONS];
	bool speaks_later;

	choose_variant(argc, argv, VARIANTS("busy", "calls", "written", "silent"));
	speaks_later = variant_is("written") || variant_is("silent");
	if (mprotect(page - PAGE_BYTES, PAGE_BYTES, PROT_NONE))
		fail("mprotect");
	for (int i = 0; i < GENERATIONS; i++) {
		if (variant_is("calls")) {
			put_and_execute(page);
			continue;
		}
		markers[i] = variant_is("busy") ? spinning_marker(page) : new_marker(page);
		if (speaks_later)
			continue;
		write_marker(&markers[i], page);
		execute_long(&markers[i]);
	}
	if (variant_is("silent"))
		execute_silently(markers, GENERATIONS, page);
	if (variant_is("written"))
		execute_and_write(markers, GENERATIONS, page, below);
	memset(page, 0, PAGE_BYTES);
	if (speaks_later) {
		for (int i = 0; i < GENERATIONS; i++)
			say_executed(&markers[i], getpid());
	}
	return 0;
}
