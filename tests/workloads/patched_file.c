// SPDX-License-Identifier: MIT
/*
 * Code of a file, patched in memory: the second of three pages of a private mapping is written to.
 * Waits for a line or the end of input at the end. patched_file DIRECTORY [SEED]
 */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content patch = {.pages = 1, .seed = argument(argc, argv, 2, 1)};
	unsigned char *region;
	char path[4096], byte;
	int file;

	if (argc < 2)
		return 2;
	snprintf(path, sizeof(path), "%s/patched", argv[1]);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	if (file < 0 || ftruncate(file, 3 * PAGE_BYTES))
		fail(path);
	region = mmap(NULL, 3 * PAGE_BYTES, READ_WRITE, MAP_PRIVATE, file, 0);
	if (region == MAP_FAILED)
		fail("mmap");
	patch.address = region + PAGE_BYTES;
	fill(&patch);
	protect(region, 3, READ_EXEC);
	say_executable("mprotect", region, 3, &patch, 1);
	while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n')
		;
	return 0;
}
