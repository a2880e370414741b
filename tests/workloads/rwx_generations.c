// SPDX-License-Identifier: MIT
/*
 * Pages that are writable and executable at once, each rewritten and executed N times by a thread of its
 * own, without any call. rwx_generations [N] [SEED] [THREADS] [memfd]: with memfd, each page is written
 * through another view of it. Generation i of thread t is page SEED + t * N + i, for i from 1.
 */
#include "workload.h"

#include <pthread.h>

static unsigned long count, seed;

struct place {
	unsigned char *view, *code;
	unsigned long number;
};

static void *rewrite(void *argument)
{
	struct place *place = argument;

	for (unsigned long i = 1; i <= count; i++) {
		struct code code = code_returning(i & 0xffff);

		fill_page(place->view, seed + place->number * count + i);
		memcpy(place->view, code.bytes, code.length);
		call_and_expect(place->code, i & 0xffff);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long threads = argument(argc, argv, 3, 1);
	struct place places[16];
	pthread_t handles[16];

	count = argument(argc, argv, 1, 17);
	seed = argument(argc, argv, 2, 1);
	if (threads > 16)
		return 2;
	for (unsigned long t = 0; t < threads; t++) {
		places[t].number = t;
		if (argc > 4) {
			int fd = memfd_create("generations", 0);

			if (fd < 0 || ftruncate(fd, PAGE_BYTES))
				fail("memfd");
			places[t].view = mmap(NULL, PAGE_BYTES, READ_WRITE, MAP_SHARED, fd, 0);
			places[t].code = mmap(NULL, PAGE_BYTES, READ_EXEC, MAP_SHARED, fd, 0);
			if (places[t].view == MAP_FAILED || places[t].code == MAP_FAILED)
				fail("mmap");
		} else {
			places[t].view = map(1, READ_WRITE | PROT_EXEC);
			places[t].code = places[t].view;
		}
		say("place", ", \"thread\": %lu, \"address\": %lu", t, (unsigned long)places[t].code);
	}
	for (unsigned long t = 1; t < threads; t++) {
		if (pthread_create(&handles[t], NULL, rewrite, &places[t]))
			fail("pthread_create");
	}
	rewrite(&places[0]);
	for (unsigned long t = 1; t < threads; t++)
		pthread_join(handles[t], NULL);
	return 0;
}
