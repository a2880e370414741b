// SPDX-License-Identifier: MIT
/*
 * Memory that is writable and executable from the start, written once, and gone right after.
 * rwx_ends unmap|none|exit|exit_group|killed|faulted|execve|read
 */
#include "coverage.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static void *execute_and_end(void *page)
{
	put_and_execute(page);
	syscall(SYS_exit_group, 0);
	return NULL;
}

/* The function's return becomes an instruction that user space may not execute, or an undefined one. */
static void fault_while_executing(unsigned char *page)
{
	struct marker marker = new_marker(page);

#if defined(__x86_64__)
	marker.bytes[5] = 0xf4; /* hlt: SIGSEGV */
#else
	memset(marker.bytes + 4, 0, 4); /* udf: SIGILL */
#endif
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	write_marker(&marker, page);
	say_executed(&marker, getpid());
	call_and_expect(page, 0);
}

/* The kernel writes the bytes. */
static void read_and_execute(unsigned char *page)
{
	struct marker marker = new_marker(page);
	int ends[2];

	if (pipe(ends) || write(ends[1], marker.bytes, MARKER_BYTES) != MARKER_BYTES ||
	    read(ends[0], page, MARKER_BYTES) != MARKER_BYTES)
		fail("pipe");
	execute(&marker);
}

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE_EXEC);
	pthread_t thread;

	choose_variant(
		argc, argv,
		VARIANTS("unmap", "none", "exit", "exit_group", "killed", "faulted", "execve", "read"));
	if (variant_is("faulted")) {
		fault_while_executing(page);
	} else if (variant_is("read")) {
		read_and_execute(page);
	} else if (variant_is("exit_group")) {
		if (pthread_create(&thread, NULL, execute_and_end, page))
			fail("pthread_create");
		pthread_join(thread, NULL);
		return 3;
	} else {
		put_and_execute(page);
	}
	if (variant_is("unmap")) {
		unmap(page, 1);
	} else if (variant_is("none")) {
		protect(page, 1, PROT_NONE);
		protect(page, 1, READ_WRITE);
		memset(page, 0, PAGE_BYTES);
	} else if (variant_is("killed")) {
		kill(getpid(), SIGKILL);
	} else if (variant_is("execve")) {
		execl("/bin/true", "true", (char *)NULL);
		fail("execl");
	}
	_exit(0);
}
