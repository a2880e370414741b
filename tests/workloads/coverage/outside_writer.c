// SPDX-License-Identifier: MIT
/*
 * Another process writes the code. outside_writer writev|mem|ptrace COUNT
 * The parent writes COUNT markers, one after another, into the page that its child executes: with
 * process_vm_writev (the page is writable), or through /proc/PID/mem or ptrace (it is not).
 */
#include "coverage.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static void write_memory(pid_t child, const struct marker *marker)
{
	struct iovec from = {.iov_base = (void *)marker->bytes, .iov_len = MARKER_BYTES};
	struct iovec to = {.iov_base = marker->address, .iov_len = MARKER_BYTES};
	char path[32];
	long word;
	int fd;

	if (variant_is("writev")) {
		if (process_vm_writev(child, &from, 1, &to, 1, 0) != MARKER_BYTES)
			fail("process_vm_writev");
	} else if (variant_is("mem")) {
		snprintf(path, sizeof(path), "/proc/%d/mem", child);
		fd = open(path, O_WRONLY);
		if (fd < 0 || pwrite(fd, marker->bytes, MARKER_BYTES, (off_t)marker->address) != MARKER_BYTES)
			fail(path);
		close(fd);
	} else if (variant_is("ptrace")) {
		for (size_t i = 0; i < MARKER_BYTES; i += sizeof(word)) {
			memcpy(&word, marker->bytes + i, sizeof(word));
			if (ptrace(PTRACE_POKETEXT, child, marker->address + i, word))
				fail("ptrace");
		}
	}
}

/* The child stops, and executes what it finds when it goes on. */
static void execute_what_comes(const struct marker *markers, unsigned long count)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		fail("ptrace");
	for (unsigned long i = 0; i < count; i++) {
		raise(SIGSTOP);
		execute(&markers[i]);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE);
	unsigned long count = argument(argc, argv, 2, 1);
	struct marker markers[4];
	pid_t child;
	int status;

	choose_variant(argc, argv, VARIANTS("writev", "mem", "ptrace"));
	memset(page, 0xcc, PAGE_BYTES);
	protect(page, 1, variant_is("writev") ? READ_WRITE_EXEC : READ_EXEC);
	for (unsigned long i = 0; i < count; i++)
		markers[i] = new_marker(page);
	child = fork();
	if (!child)
		execute_what_comes(markers, count);
	for (unsigned long i = 0; i < count; i++) {
		if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
			fail("waitpid");
		write_memory(child, &markers[i]);
		if (ptrace(PTRACE_CONT, child, NULL, NULL))
			fail("ptrace");
	}
	wait_for(child);
	return 0;
}
