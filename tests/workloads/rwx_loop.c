// SPDX-License-Identifier: MIT
/*
 * Rewrites and executes a page that is writable and executable until a line comes, then says that
 * all went well. rwx_loop [flips]: says "ready" after the first round, and what protection its page has in
 * the end. With flips the page is writable or executable, and mprotect flips it.
 */
#include "workload.h"

#include <poll.h>

static void say_protection(const void *page)
{
	char line[512];
	unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps)) {
		char protection[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, protection) == 3 &&
		    start <= (unsigned long)page && (unsigned long)page < end)
			say("protection", ", \"protection\": \"%s\"", protection);
	}
	fclose(maps);
}

int main(int argc, char **argv)
{
	int flips = argc > 1 && !strcmp(argv[1], "flips");
	unsigned char *page = map(1, READ_WRITE | (flips ? 0 : PROT_EXEC));
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	for (unsigned int round = 1; !poll(&input, 1, 0); round++) {
		struct code code = code_returning(round & 0xffff);

		if (flips)
			protect(page, 1, READ_WRITE);
		memcpy(page, code.bytes, code.length);
		if (flips)
			protect(page, 1, READ_EXEC);
		call_and_expect(page, round & 0xffff);
		if (round == 1)
			say("ready", ", \"address\": %lu", (unsigned long)page);
	}
	say_protection(page);
	return 0;
}
