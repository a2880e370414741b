// SPDX-License-Identifier: MIT
/*
 * Prints CLOCK_MONOTONIC in nanoseconds, read before anything else, then waits for the end of
 * standard input.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	struct timespec time;
	char byte;

	clock_gettime(CLOCK_MONOTONIC, &time);
	printf("%lu\n", time.tv_sec * 1000000000UL + time.tv_nsec);
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) == 1)
		;
	return 0;
}
