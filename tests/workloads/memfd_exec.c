// SPDX-License-Identifier: MIT
/* Executes a copy of a program from memory, so that no file has it. memfd_exec PROGRAM [ARGUMENT...] */
#include "workload.h"

#include <sys/sendfile.h>
#include <sys/stat.h>

int main(int argc, char **argv, char **environment)
{
	int source, copy;
	struct stat status;

	if (argc < 2)
		return 2;
	source = open(argv[1], O_RDONLY | O_CLOEXEC);
	copy = memfd_create("program", MFD_CLOEXEC);
	if (source < 0 || copy < 0 || fstat(source, &status))
		fail(argv[1]);
	if (sendfile(copy, source, NULL, status.st_size) != status.st_size)
		fail("sendfile");
	fexecve(copy, argv + 1, environment);
	fail("fexecve");
}
