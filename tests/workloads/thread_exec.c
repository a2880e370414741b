// SPDX-License-Identifier: MIT
/*
 * A thread that is not the first executes a program: it takes over the process and its PID, and all
 * other threads end. Code is made before and after. thread_exec [SEED]
 */
#include "workload.h"

#include <pthread.h>

static char **arguments;

static void make_code(uint64_t seed)
{
	struct content content = {.address = map(1, READ_WRITE), .pages = 1, .seed = seed};

	fill(&content);
	flip(&content);
}

static void *execute(void *seed)
{
	make_code((uint64_t)seed);
	execl("/proc/self/exe", arguments[0], arguments[1] ? arguments[1] : "1", "again", (char *)NULL);
	fail("execl");
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t seed = argument(argc, argv, 1, 1);
	pthread_t thread;

	arguments = argv;
	if (argc == 3) {
		make_code(seed + 1);
		return 0;
	}
	if (pthread_create(&thread, NULL, execute, (void *)seed))
		fail("pthread_create");
	pthread_join(thread, NULL);
	return 3;
}
