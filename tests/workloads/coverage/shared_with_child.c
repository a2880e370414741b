// SPDX-License-Identifier: MIT
/*
 * Shared anonymous memory that a child writes and its parent executes.
 * shared_with_child protected|rwx: the parent makes it executable afterwards, or it always was
 */
#include "coverage.h"

int main(int argc, char **argv)
{
	int protection;
	unsigned char *page;
	struct marker marker;
	pid_t child;

	choose_variant(argc, argv, VARIANTS("protected", "rwx"));
	protection = variant_is("rwx") ? READ_WRITE_EXEC : READ_WRITE;
	page = map_at(NULL, 1, protection, MAP_SHARED | MAP_ANONYMOUS, -1);
	marker = new_marker(page);
	child = fork();
	if (!child) {
		write_marker(&marker, page);
		_exit(0);
	}
	wait_for(child);
	if (protection == READ_WRITE)
		protect(page, 1, READ_EXEC);
	execute(&marker);
	unmap(page, 1);
	return 0;
}
