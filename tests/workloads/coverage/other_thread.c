// SPDX-License-Identifier: MIT
/* One thread executes a page over and over while another changes the page beside it. other_thread */
#include "coverage.h"

#include <pthread.h>

#define GENERATIONS 11

static struct marker fixed;
static bool finished;

static void *keep_executing(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE))
		call_and_expect(fixed.address, fixed.number);
	say_executed(&fixed, getpid());
	return NULL;
}

int main(void)
{
	unsigned char *pages = map(2, READ_WRITE), *changing = pages + PAGE_BYTES;
	pthread_t thread;

	fixed = put_marker(pages);
	protect(pages, 1, READ_EXEC);
	if (pthread_create(&thread, NULL, keep_executing, NULL))
		fail("pthread_create");
	for (int i = 0; i < GENERATIONS; i++) {
		struct marker marker = put_marker(changing);

		protect(pages, 2, READ_EXEC);
		execute(&marker);
		protect(changing, 1, READ_WRITE);
	}
	__atomic_store_n(&finished, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	return 0;
}
