// SPDX-License-Identifier: MIT
/* A page of code, and N threads that wait until standard input ends. many_threads [N] [SEED] */
#include "workload.h"

#include <pthread.h>

static void *wait_for_the_end(void *unused)
{
	pause();
	return unused;
}

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 1, 120);
	struct content content = {
		.address = map(1, READ_WRITE), .pages = 1, .seed = argument(argc, argv, 2, 1)};
	pthread_attr_t small;
	pthread_t thread;
	char byte;

	fill(&content);
	flip(&content);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 16);
	for (unsigned long i = 0; i < count; i++) {
		if (pthread_create(&thread, &small, wait_for_the_end, NULL))
			fail("pthread_create");
	}
	say("ready", ", \"threads\": %lu", count);
	return read(STDIN_FILENO, &byte, 1) < 0;
}
