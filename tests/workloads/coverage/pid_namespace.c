// SPDX-License-Identifier: MIT
/* A process that is number 1 in a PID namespace of its own; its parent knows it by another. pid_namespace */
#include "coverage.h"

#include <sched.h>

int main(void)
{
	unsigned char *page = map(1, READ_WRITE);
	struct marker marker = put_marker(page);
	pid_t child;

	if (unshare(CLONE_NEWPID))
		exit(NOT_IN_THIS_KERNEL);
	child = fork();
	if (!child) {
		if (getpid() != 1)
			_exit(3);
		protect(page, 1, READ_EXEC);
		call_and_expect(page, marker.number);
		unmap(page, 1);
		_exit(0);
	}
	wait_for(child);
	say_executed(&marker, child);
	return 0;
}
