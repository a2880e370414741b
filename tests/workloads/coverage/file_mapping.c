// SPDX-License-Identifier: MIT
/*
 * A file with the marker is mapped and executed. file_mapping VARIANT FILE
 * cow: the marker is in the mapping only, written after a private mapping was made
 * view: written through a shared mapping, executed through another
 * deleted, deleted_later: the file has no name when it is mapped, or when it is unmapped
 * overwritten: unmapped, and only then overwritten and deleted
 */
#include "coverage.h"

static unsigned char *map_file(char **argv, int fd, int flags, int protection)
{
	if (variant_is("deleted"))
		unlink(argv[2]);
	return map_at(NULL, 1, protection, flags, fd);
}

static void write_file(int fd, const unsigned char *bytes)
{
	if (pwrite(fd, bytes, MARKER_BYTES, 0) != MARKER_BYTES)
		fail("pwrite");
}

int main(int argc, char **argv)
{
	static const unsigned char nothing[MARKER_BYTES];
	unsigned char *code, *view;
	struct marker marker;
	int fd;

	choose_variant(argc, argv, VARIANTS("cow", "view", "deleted", "deleted_later", "overwritten"));
	if (argc != 3)
		return 2;
	fd = open(argv[2], O_RDWR | O_CREAT, 0700);
	if (fd < 0 || ftruncate(fd, PAGE_BYTES))
		fail(argv[2]);
	if (variant_is("cow")) {
		code = map_file(argv, fd, MAP_PRIVATE, READ_WRITE);
		marker = put_marker(code);
		protect(code, 1, READ_EXEC);
	} else if (variant_is("view")) {
		view = map_file(argv, fd, MAP_SHARED, READ_WRITE);
		code = map_file(argv, fd, MAP_SHARED, READ_EXEC);
		marker = new_marker(code);
		write_marker(&marker, view);
	} else {
		marker = new_marker(NULL);
		write_file(fd, marker.bytes);
		marker.address = code = map_file(argv, fd, MAP_PRIVATE, READ_EXEC);
	}
	execute(&marker);
	if (variant_is("deleted_later"))
		unlink(argv[2]);
	unmap(code, 1);
	write_file(fd, nothing);
	unlink(argv[2]);
	return 0;
}
