// SPDX-License-Identifier: MIT
/*
 * A memfd, written at one address and executed at another. Between two generations:
 * double_mapping calls|silent|busy|unmap|protect|pwrite|truncate|punch
 * unmap and protect change the executable mapping; busy does nothing, for a while; calls makes calls of
 * other kinds, and silent none; pwrite writes through the descriptor; truncate and punch discard the old bytes through it.
 */
#include "coverage.h"

#define GENERATIONS 3

static void write_next(const struct marker *marker, int fd, unsigned char *view)
{
	if (!variant_is("pwrite"))
		write_marker(marker, view);
	else if (pwrite(fd, marker->bytes, MARKER_BYTES, 0) != MARKER_BYTES)
		fail("pwrite");
}

static void after(const struct marker *marker, int fd)
{
	if (variant_is("unmap")) {
		unmap(marker->address, 1);
		map_at(marker->address, 1, READ_EXEC, MAP_SHARED | MAP_FIXED, fd);
	} else if (variant_is("protect")) {
		protect(marker->address, 1, PROT_NONE);
		protect(marker->address, 1, READ_EXEC);
	} else if (variant_is("truncate")) {
		if (ftruncate(fd, 0) || ftruncate(fd, PAGE_BYTES))
			fail("ftruncate");
	} else if (variant_is("punch")) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE_BYTES))
			fail("fallocate");
	}
}

int main(int argc, char **argv)
{
	int fd = new_memfd(1);
	unsigned char *view = map_at(NULL, 1, READ_WRITE, MAP_SHARED, fd);
	unsigned char *code = map_at(NULL, 1, READ_EXEC, MAP_SHARED, fd);

	choose_variant(
		argc, argv,
		VARIANTS("calls", "silent", "busy", "unmap", "protect", "pwrite", "truncate", "punch"));
	if (variant_is("silent")) {
		struct marker markers[GENERATIONS];

		for (int i = 0; i < GENERATIONS; i++)
			markers[i] = new_marker(code);
		execute_silently(markers, GENERATIONS, view);
		for (int i = 0; i < GENERATIONS; i++)
			say_executed(&markers[i], getpid());
		return 0;
	}
	for (int i = 0; i < GENERATIONS; i++) {
		bool busy = variant_is("busy");
		struct marker marker = busy ? spinning_marker(code) : new_marker(code);

		write_next(&marker, fd, view);
		if (busy)
			execute_long(&marker);
		else
			execute(&marker);
		after(&marker, fd);
	}
	return 0;
}
