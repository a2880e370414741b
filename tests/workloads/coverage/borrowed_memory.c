// SPDX-License-Identifier: MIT
/*
 * A child with its parent's address space makes code and executes it; then the parent does.
 * borrowed_memory vfork|clone
 */
#include "coverage.h"

#include <sched.h>

static struct marker marker;

static int make_code(void *unused)
{
	unsigned char *page = map(1, READ_WRITE);

	(void)unused;
	marker = put_marker(page);
	protect(page, 1, READ_EXEC);
	execute(&marker);
	return 0;
}

int main(int argc, char **argv)
{
	static char stack[65536] __attribute__((aligned(16)));
	pid_t child;

	choose_variant(argc, argv, VARIANTS("vfork", "clone"));
	if (variant_is("clone")) {
		child = clone(make_code, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	} else {
		child = vfork();
		if (!child)
			_exit(make_code(NULL));
	}
	wait_for(child);
	execute(&marker);
	unmap(marker.address, 1);
	return 0;
}
