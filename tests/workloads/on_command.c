// SPDX-License-Identifier: MIT
/*
 * Does what it reads on standard input, a letter and an argument a line, and says so: makes a page with a
 * content of its own executable (f SEED), or many (b PAGES), becomes another user (u UID), takes a name (n NAME), executes a
 * program (x PATH), has a child do all that follows, and ends with it (c). Ends with the input. on_command
 */
#include "workload.h"

#include <sys/prctl.h>

/* A line at a time and no more: a program that is executed reads on. */
static int read_line(char *line, size_t size)
{
	size_t length = 0;

	while (length + 1 < size && read(STDIN_FILENO, line + length, 1) == 1 && line[length] != '\n')
		length++;
	line[length] = '\0';
	return length > 0;
}

static void make_code(size_t pages, uint64_t seed)
{
	struct content content = {.address = map(pages, READ_WRITE), .pages = pages, .seed = seed};

	content.code = code_returning(seed & 0xffff);
	fill(&content);
	flip(&content);
	call_and_expect(content.address, seed & 0xffff);
}

static void leave_to_child(void)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		fail("fork");
	if (!child)
		return;
	if (waitpid(child, &status, 0) != child)
		fail("waitpid");
	exit(WEXITSTATUS(status));
}

int main(void)
{
	char line[4096];

	say("ready", "%s", "");
	while (read_line(line, sizeof(line))) {
		char *argument = line + 2;

		switch (line[0]) {
		case 'f':
			make_code(1, strtoul(argument, NULL, 0));
			continue;
		case 'b':
			make_code(strtoul(argument, NULL, 0), 1);
			continue;
		case 'u':
			if (setresuid(atoi(argument), atoi(argument), atoi(argument)))
				fail("setresuid");
			break;
		case 'n':
			if (prctl(PR_SET_NAME, argument))
				fail("prctl");
			break;
		case 'x':
			execl(argument, argument, NULL);
			fail(argument);
			break;
		case 'c':
			leave_to_child();
			break;
		}
		say("done", "%s", "");
	}
	return 0;
}
