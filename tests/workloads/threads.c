// SPDX-License-Identifier: MIT
/* Threads that each flip a page of their own, all at once. threads [THREADS] [FLIPS] [SEED] */
#include "workload.h"

#include <pthread.h>

static unsigned long flips;
static pthread_barrier_t all_started;

static void *flip_own_page(void *first_seed)
{
	struct content content = {.address = map(1, READ_WRITE), .pages = 1, .seed = (uint64_t)first_seed};

	pthread_barrier_wait(&all_started);
	for (unsigned long i = 0; i < flips; i++, content.seed++) {
		content.code = code_returning(i);
		fill(&content);
		flip(&content);
		call_and_expect(content.address, i);
		protect(content.address, 1, READ_WRITE);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long count = argument(argc, argv, 1, 4);
	unsigned long seed = argument(argc, argv, 3, 1);
	pthread_t *threads = calloc(count, sizeof(*threads));

	flips = argument(argc, argv, 2, 11);
	if (!threads || pthread_barrier_init(&all_started, NULL, count))
		fail("threads");
	for (unsigned long i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, flip_own_page, (void *)(seed + i * flips)))
			fail("pthread_create");
	for (unsigned long i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
