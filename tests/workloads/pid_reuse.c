// SPDX-License-Identifier: MIT
/*
 * Two processes, one after the other, with the same PID, each with code at the same address.
 * pid_reuse [SEED]
 *
 * Choosing a PID needs CAP_CHECKPOINT_RESTORE or root (clone(2), set_tid).
 */
#include "workload.h"

#include <linux/sched.h>
#include <time.h>

/* Start times are told apart by the clock tick (10 ms). */
#define APART_NS 30000000LL

static void let_time_pass(void)
{
	struct timespec start, now;

	clock_gettime(CLOCK_BOOTTIME, &start);
	do
		clock_gettime(CLOCK_BOOTTIME, &now);
	while ((now.tv_sec - start.tv_sec) * 1000000000LL + now.tv_nsec - start.tv_nsec < APART_NS);
}

static pid_t fork_as(pid_t *wanted)
{
	struct clone_args arguments = {.exit_signal = SIGCHLD};

	if (*wanted) {
		arguments.set_tid = (uintptr_t)wanted;
		arguments.set_tid_size = 1;
	}
	return syscall(SYS_clone3, &arguments, sizeof(arguments));
}

int main(int argc, char **argv)
{
	struct content content = {
		.address = map(1, READ_WRITE), .pages = 1, .seed = argument(argc, argv, 1, 1)};
	pid_t pid = 0;

	for (int i = 0; i < 2; i++, content.seed++) {
		pid_t child = fork_as(&pid);
		int status;

		if (child < 0)
			fail("clone3");
		if (!child) {
			fill(&content);
			flip(&content);
			_exit(i);
		}
		pid = child;
		if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != i)
			fail("waitpid");
		let_time_pass();
	}
	return 0;
}
