// SPDX-License-Identifier: MIT
/*
 * A program that is executed from where it leaves no trace: this program itself, with a marker in its
 * code that is not in its file. program_image memfd|deleted|deletes_itself|deleted_after FILE
 * memfd and deleted are executed through a descriptor with execveat. The others have a name when they
 * are executed; the program deletes itself, or its parent does when it has ended.
 */
#include "coverage.h"

#include <sys/stat.h>

#define MARK 0xcc

/* A page of code, to be found in the file by its bytes. */
extern unsigned char marked[PAGE_BYTES];
__asm__(".pushsection .text.marked, \"ax\"\n"
	".balign 4096\n"
	".globl marked\n"
	".hidden marked\n"
	"marked: .fill 4096, 1, 0xcc\n"
	".popsection\n");

static bool is_marked(const unsigned char *page)
{
	for (size_t i = 0; i < PAGE_BYTES; i++) {
		if (page[i] != MARK)
			return false;
	}
	return true;
}

/* Write this program to `to`, with the marker where the marked page is. */
static void copy_self(int to, const struct marker *marker)
{
	static unsigned char page[PAGE_BYTES];
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (from < 0 || to < 0 || fchmod(to, 0700))
		fail("copy");
	while ((length = read(from, page, PAGE_BYTES)) > 0) {
		if (is_marked(page))
			memcpy(page, marker->bytes, MARKER_BYTES);
		if (write(to, page, length) != length)
			fail("write");
	}
}

/* In the copy: what is in the marked page now is the marker. */
static int run_copy(char **argv)
{
	struct marker marker = {.address = marked, .number = strtoul(argv[3], NULL, 0)};

	memcpy(marker.bytes, marked, MARKER_BYTES);
	execute(&marker);
	if (variant_is("deletes_itself"))
		unlink(argv[2]);
	return 0;
}

static void execute_descriptor(int fd, char **arguments)
{
	char *environment[] = {NULL};

	syscall(SYS_execveat, fd, "", arguments, environment, AT_EMPTY_PATH);
	fail("execveat");
}

/* A file that is open for writing cannot be executed: leave the only descriptor read-only. */
static int reopened(const char *path, int fd)
{
	int again = open(path, O_RDONLY | O_CLOEXEC);

	close(fd);
	return again;
}

int main(int argc, char **argv)
{
	struct marker marker = new_marker(NULL);
	char number[16];
	char *arguments[] = {argv[0], argv[1], argv[2], number, NULL};
	bool in_memory;
	pid_t child;
	int fd;

	choose_variant(argc, argv, VARIANTS("memfd", "deleted", "deletes_itself", "deleted_after"));
	if (argc == 4)
		return run_copy(argv);
	if (argc != 3)
		return 2;
	in_memory = variant_is("memfd");
	snprintf(number, sizeof(number), "%u", marker.number);
	fd = in_memory ? memfd_create("image", MFD_CLOEXEC)
		       : open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0700);
	copy_self(fd, &marker);
	if (in_memory)
		execute_descriptor(fd, arguments);
	fd = reopened(argv[2], fd);
	if (variant_is("deleted")) {
		unlink(argv[2]);
		execute_descriptor(fd, arguments);
	}
	child = fork();
	if (!child) {
		execv(argv[2], arguments);
		fail("execv");
	}
	wait_for(child);
	unlink(argv[2]);
	return 0;
}
