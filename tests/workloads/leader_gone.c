// SPDX-License-Identifier: MIT
/*
 * The first thread ends, another goes on: /proc shows the process as a zombie, but it lives.
 * leader_gone [SEED] [wait]
 *
 * With "wait" it says {"step": "ready"} and waits for a line before it makes its code.
 */
#include "workload.h"

#include <pthread.h>
#include <sched.h>

static int waits;

static char state_of_first_thread(void)
{
	char path[64], text[512];
	ssize_t length;
	int file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	file = open(path, O_RDONLY | O_CLOEXEC);
	length = read(file, text, sizeof(text) - 1);
	if (file < 0 || length < 0)
		fail(path);
	close(file);
	text[length] = 0;
	return strrchr(text, ')')[2];
}

static void *go_on(void *seed)
{
	struct content content = {.address = map(3, READ_WRITE), .pages = 3, .seed = (uint64_t)seed};
	char byte;

	while (state_of_first_thread() != 'Z')
		sched_yield();
	if (waits) {
		say("ready", "%s", "");
		while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n')
			;
	}
	fill(&content);
	flip(&content);
	exit(0);
}

int main(int argc, char **argv)
{
	pthread_t thread;

	waits = argc > 2;
	if (pthread_create(&thread, NULL, go_on, (void *)argument(argc, argv, 1, 1)))
		fail("pthread_create");
	pthread_exit(NULL);
}
