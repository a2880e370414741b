// SPDX-License-Identifier: MIT
/*
 * Names meant to break whoever prints them: a thread name and a file name with terminal escapes and
 * a line break. hostile_name DIRECTORY [SEED]
 *
 * Says them, as hexadecimal bytes: {"step": "names", "comm": HEX, "path": HEX}.
 */
#include "workload.h"

#include <sys/prctl.h>

#define COMM "\033[31m\nred\a\302\233"
#define FILE_NAME "a\nb\033]0;owned\a\033[2J\342\200\256\377"

static void to_hex(char *out, const char *text)
{
	for (; *text; text++, out += 2)
		sprintf(out, "%02x", (unsigned char)*text);
}

int main(int argc, char **argv)
{
	struct content content = {.pages = 1, .seed = argument(argc, argv, 2, 1)};
	char path[1024], path_hex[2 * sizeof(path)], comm_hex[64];
	int file;

	if (argc < 2)
		return 2;
	if (prctl(PR_SET_NAME, COMM))
		fail("prctl");
	snprintf(path, sizeof(path), "%s/%s", argv[1], FILE_NAME);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
	if (file < 0 || ftruncate(file, PAGE_BYTES))
		fail("open");
	to_hex(path_hex, path);
	to_hex(comm_hex, COMM);
	say("names", ", \"comm\": \"%s\", \"path\": \"%s\"", comm_hex, path_hex);

	content.address = mmap(NULL, PAGE_BYTES, READ_WRITE, MAP_PRIVATE, file, 0);
	if (content.address == MAP_FAILED)
		fail("mmap");
	fill(&content);
	flip(&content);
	return 0;
}
