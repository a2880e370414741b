// SPDX-License-Identifier: MIT
/*
 * How long a command takes, from fork to its end, when a tracer starts us and follows it: without
 * the tracer's own start and end. stopwatch FILE COMMAND [ARGUMENT...]
 *
 * Writes nanoseconds to FILE and ends with the command's exit status.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unsigned long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	unsigned long start = now();
	int status;
	pid_t child;
	FILE *file;

	if (argc < 3)
		return 2;
	child = fork();
	if (child < 0)
		return 2;
	if (!child) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (waitpid(child, &status, 0) != child)
		return 2;
	file = fopen(argv[1], "w");
	if (!file || fprintf(file, "%lu\n", now() - start) < 0 || fclose(file))
		return 2;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
