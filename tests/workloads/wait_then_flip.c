// SPDX-License-Identifier: MIT
/*
 * Code that is executable before a tracer comes: in anonymous memory, in a memfd and in a deleted
 * file. Says {"step": "ready"}, waits for a line on standard input, rewrites and flips the
 * anonymous code, says so, waits for another line or the end of input. wait_then_flip DIRECTORY [SEED]
 */
#include "workload.h"

/* Write through one mapping of the file, execute through another. */
static void make_file_code(int file, uint64_t seed)
{
	struct content content = {.pages = 2, .seed = seed, .code = code_returning(seed & 0xffff)};

	if (file < 0 || ftruncate(file, content.pages * PAGE_BYTES))
		fail("file");
	content.address = mmap(NULL, content.pages * PAGE_BYTES, READ_WRITE, MAP_SHARED, file, 0);
	if (content.address == MAP_FAILED)
		fail("mmap");
	fill(&content);
	unmap(content.address, content.pages);
	content.address = mmap(NULL, content.pages * PAGE_BYTES, READ_EXEC, MAP_SHARED, file, 0);
	if (content.address == MAP_FAILED)
		fail("mmap");
	close(file);
	say_executable("mmap", content.address, content.pages, &content, 1);
	call_and_expect(content.address, seed & 0xffff);
}

static int deleted_file(const char *directory)
{
	char path[4096];
	int file;

	snprintf(path, sizeof(path), "%s/deleted", directory);
	file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	if (file < 0 || unlink(path))
		fail(path);
	return file;
}

static void await_line(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n')
		;
}

int main(int argc, char **argv)
{
	uint64_t seed = argument(argc, argv, 2, 1);
	struct content content = {.address = map(2, READ_WRITE), .pages = 2, .seed = seed};

	if (argc < 2)
		return 2;
	fill(&content);
	flip(&content);
	make_file_code(memfd_create("code", MFD_CLOEXEC), seed + 10);
	make_file_code(deleted_file(argv[1]), seed + 20);
	say("ready", "%s", "");
	await_line();

	protect(content.address, content.pages, READ_WRITE);
	content.seed = seed + 30;
	content.code = code_returning(99);
	fill(&content);
	flip(&content);
	call_and_expect(content.address, 99);
	await_line();
	return 0;
}
