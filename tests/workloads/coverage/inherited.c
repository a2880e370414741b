// SPDX-License-Identifier: MIT
/*
 * A child executes code that it inherited. inherited exit|rewrite|unmap: then it ends, or first
 * writes and executes other code in its copy, or unmaps it
 */
#include "coverage.h"

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE);
	struct marker marker = put_marker(page), own;
	pid_t child;

	choose_variant(argc, argv, VARIANTS("exit", "rewrite", "unmap"));
	protect(page, 1, READ_EXEC);
	child = fork();
	if (!child) {
		execute(&marker);
		if (variant_is("rewrite")) {
			protect(page, 1, READ_WRITE);
			own = put_marker(page);
			protect(page, 1, READ_EXEC);
			execute(&own);
		} else if (variant_is("unmap")) {
			unmap(page, 1);
		}
		_exit(0);
	}
	wait_for(child);
	execute(&marker);
	return 0;
}
