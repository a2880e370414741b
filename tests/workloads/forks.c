// SPDX-License-Identifier: MIT
/*
 * A tree of processes, made in every way there is, each making code executable. forks [SEED]
 *
 *	root ─┬─ fork:    flips a page, then executes itself as a leaf
 *	      ├─ vfork:   executes itself as a leaf
 *	      └─ clone:   flips a page in the address space it shares with the root, executes itself
 *
 * A leaf flips a page and forks a grandchild, which flips another. Every process but the vfork
 * child before its exec also says {"step": "process", "parent": PID, "how": HOW}.
 */
#include "workload.h"

#include <sched.h>

#define STACK_BYTES 65536

static const char *program;

static void make_code(uint64_t seed)
{
	struct content content = {.address = map(1, READ_WRITE), .pages = 1, .seed = seed};

	content.code = code_returning(getpid() & 0xffff);
	fill(&content);
	flip(&content);
	call_and_expect(content.address, getpid() & 0xffff);
}

static void say_process(const char *how)
{
	say("process", ", \"parent\": %d, \"how\": \"%s\"", getppid(), how);
}

static void become_leaf(char *how, char *seed)
{
	execl(program, program, "leaf", how, seed, (char *)NULL);
	_exit(2);
}

static void await(pid_t child)
{
	int status;

	if (child < 0)
		fail("a child could not be made");
	if (waitpid(child, &status, 0) != child)
		fail("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "child %d ended with status 0x%x\n", child, status);
		exit(3);
	}
}

static int leaf(const char *how, uint64_t seed)
{
	pid_t child;

	say_process(how);
	make_code(seed);
	child = fork();
	if (!child) {
		say_process("fork");
		make_code(seed + 1);
		_exit(0);
	}
	await(child);
	return 0;
}

static int in_clone(void *seed)
{
	say_process("clone");
	make_code(strtoul(seed, NULL, 0) - 1);
	become_leaf("clone-exec", seed);
	return 2;
}

int main(int argc, char **argv)
{
	static char stack[STACK_BYTES] __attribute__((aligned(16)));
	char seeds[3][24];
	uint64_t seed;
	pid_t child;

	program = argv[0];
	if (argc == 4 && !strcmp(argv[1], "leaf"))
		return leaf(argv[2], strtoul(argv[3], NULL, 0));
	seed = argument(argc, argv, 1, 1);
	for (int i = 0; i < 3; i++)
		snprintf(seeds[i], sizeof(seeds[i]), "%lu", (unsigned long)seed + 10 * (i + 1));
	say_process("root");
	make_code(seed);

	child = fork();
	if (!child) {
		say_process("fork");
		make_code(seed + 9);
		become_leaf("fork-exec", seeds[0]);
	}
	await(child);
	child = vfork();
	if (!child)
		become_leaf("vfork-exec", seeds[1]);
	await(child);
	await(clone(in_clone, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, seeds[2]));
	return 0;
}
