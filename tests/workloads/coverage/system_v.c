// SPDX-License-Identifier: MIT
/*
 * A System V segment. system_v attach|detach
 * attach: written through one attachment, executed through another that was never touched.
 * detach: written while writable and executable, then detached and removed.
 */
#include "coverage.h"

#include <sys/shm.h>

static unsigned char *attach(int segment, int flags)
{
	unsigned char *address = shmat(segment, NULL, flags);

	if (address == (void *)-1)
		fail("shmat");
	return address;
}

int main(int argc, char **argv)
{
	int segment = shmget(IPC_PRIVATE, PAGE_BYTES, IPC_CREAT | 0700);
	unsigned char *writable, *executable;
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("attach", "detach"));
	if (segment < 0)
		fail("shmget");
	if (variant_is("attach")) {
		writable = attach(segment, 0);
		executable = attach(segment, SHM_EXEC | SHM_RDONLY);
		shmdt(executable);
		marker = new_marker(executable);
		write_marker(&marker, writable);
		if (shmat(segment, executable, SHM_EXEC | SHM_RDONLY) != executable)
			fail("shmat");
		shmctl(segment, IPC_RMID, NULL);
		execute(&marker);
		memset(writable, 0, PAGE_BYTES);
	} else if (variant_is("detach")) {
		executable = attach(segment, SHM_EXEC);
		shmctl(segment, IPC_RMID, NULL);
		put_and_execute(executable);
		shmdt(executable);
	}
	return 0;
}
