// SPDX-License-Identifier: MIT
/*
 * The executable of another packed program: it expands the original into memory that looks like a file,
 * and executes that. The original is ORIGINAL, compressed and then encrypted with KEY. Compressed it is
 * runs of two 32-bit numbers: how many bytes follow, and how many zeros follow these; two zeros end it.
 */
#include "packer.h"

extern const unsigned char original[], original_end[];
__asm__(".pushsection .rodata\n"
	"original: .incbin \"" ORIGINAL "\"\n"
	"original_end:\n"
	".popsection\n");

static void write_all(int file, const unsigned char *data, size_t length)
{
	while (length) {
		ssize_t written = write(file, data, length);

		if (written <= 0)
			fail("write");
		data += written;
		length -= written;
	}
}

static void expand(int file, const unsigned char *data)
{
	uint32_t run[2];
	off_t end = 0;

	for (;;) {
		memcpy(run, data, sizeof(run));
		if (!run[0] && !run[1])
			return;
		write_all(file, data + sizeof(run), run[0]);
		data += sizeof(run) + run[0];
		end += (off_t)run[0] + run[1];
		if (ftruncate(file, end) || lseek(file, end, SEEK_SET) != end)
			fail("ftruncate");
	}
}

int main(int argc, char **argv, char **environment)
{
	size_t pages = (original_end - original) / PAGE_BYTES;
	unsigned char *data = map(pages, READ_WRITE);
	int file = memfd_create("", MFD_CLOEXEC);

	(void)argc;
	if (file < 0)
		fail("memfd_create");
	memcpy(data, original, pages * PAGE_BYTES);
	decrypt(data, pages, KEY);
	expand(file, data);
	unmap(data, pages);
	syscall(SYS_execveat, file, "", argv, environment, AT_EMPTY_PATH);
	fail("execveat");
}
