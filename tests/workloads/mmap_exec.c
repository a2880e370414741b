// SPDX-License-Identifier: MIT
/*
 * Memory that is executable from the start, and calls that fail. mmap_exec DIRECTORY [SEED]
 *
 * A failed call says {"step": "failed", "call": C, "address": A, "length": L, "errno": E}. The last
 * one, an mprotect that runs into a hole, made its first page executable all the same.
 */
#include "workload.h"

static void say_failed(const char *call, const void *address, size_t pages)
{
	say("failed", ", \"call\": \"%s\", \"address\": %lu, \"length\": %lu, \"errno\": %d", call,
	    (unsigned long)address, pages * PAGE_BYTES, errno);
}

static void expect_mmap_to_fail(void *address, size_t pages, int flags, int fd)
{
	if (mmap(address, pages * PAGE_BYTES, READ_EXEC, flags, fd, 0) != MAP_FAILED)
		exit(3);
	say_failed("mmap", address, pages);
}

static void map_file(const char *directory, uint64_t seed)
{
	struct content content = {.pages = 3, .seed = seed};
	char path[4096];
	int file;

	snprintf(path, sizeof(path), "%s/code", directory);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	if (file < 0 || ftruncate(file, content.pages * PAGE_BYTES))
		fail(path);
	content.address = mmap(NULL, content.pages * PAGE_BYTES, READ_WRITE, MAP_SHARED, file, 0);
	if (content.address == MAP_FAILED)
		fail("mmap");
	fill(&content);
	unmap(content.address, content.pages);
	content.address = mmap(NULL, content.pages * PAGE_BYTES, READ_EXEC, MAP_PRIVATE, file, 0);
	if (content.address == MAP_FAILED)
		fail("mmap");
	say_executable("mmap", content.address, content.pages, &content, 1);
	close(file);
}

/* The kernel changes what comes before the hole, then gives up. */
static void protect_across_a_hole(uint64_t seed)
{
	struct content content = {.address = map(3, READ_WRITE), .pages = 1, .seed = seed};

	fill(&content);
	unmap(content.address + PAGE_BYTES, 1);
	if (!mprotect(content.address, 3 * PAGE_BYTES, READ_EXEC) || errno != ENOMEM)
		exit(3);
	say_failed("mprotect", content.address, 3);
	say_executable("mprotect", content.address, 1, &content, 1);
}

int main(int argc, char **argv)
{
	uint64_t seed = argument(argc, argv, 2, 1);
	unsigned char *region;

	if (argc < 2)
		return 2;
	map_file(argv[1], seed);

	region = map(2, READ_WRITE | PROT_EXEC);
	say_executable("mmap", region, 2, NULL, 0);

	expect_mmap_to_fail(NULL, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	expect_mmap_to_fail(NULL, 1, MAP_PRIVATE, -1);
	expect_mmap_to_fail(region, 1, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1);

	unmap(region, 2);
	if (!mprotect(region, 2 * PAGE_BYTES, READ_EXEC))
		return 3;
	say_failed("mprotect", region, 2);
	protect_across_a_hole(seed + 3);
	return 0;
}
