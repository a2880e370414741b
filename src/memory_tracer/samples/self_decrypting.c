// SPDX-License-Identifier: MIT
/*
 * A program that hides its code the way a packer does, to try memory-tracer on:
 *
 *	cc -o sample self_decrypting.c
 *	sudo memory-tracer run ./sample
 *
 * The function it calls is in the executable only as XOR-encrypted bytes. It is decrypted into a
 * fresh page, made executable, called, and wiped, so neither the file nor a later look at the
 * process's memory shows it. `strings sample` does not find the sentence that the sample prints.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096
#define KEY 0x5a

/* clang-format off */
static const unsigned char encrypted[] = {
#if defined(__x86_64__)
	0xe2, 0x5b, 0x5a, 0x5a, 0x5a,             /* mov eax, 1 (write) */
	0xe5, 0x5b, 0x5a, 0x5a, 0x5a,             /* mov edi, 1 (standard output) */
	0x12, 0xd7, 0x6f, 0x57, 0x5a, 0x5a, 0x5a, /* lea rsi, [rip + 13] (message) */
	0xe0, 0x7b, 0x5a, 0x5a, 0x5a,             /* mov edx, 33 (its length) */
	0x55, 0x5f,                               /* syscall */
	0xe2, 0x70, 0x5a, 0x5a, 0x5a,             /* mov eax, 42 */
	0x99,                                     /* ret */
	0x0e, 0x32, 0x33, 0x29, 0x7a, 0x39, 0x35, 0x3e, 0x3f, 0x7a, 0x2d, /* This code w */
	0x3b, 0x29, 0x7a, 0x34, 0x3f, 0x2c, 0x3f, 0x28, 0x7a, 0x33, 0x34, /* as never in */
	0x7a, 0x2e, 0x32, 0x3f, 0x7a, 0x3c, 0x33, 0x36, 0x3f, 0x74, 0x50, /*  the file.\n */
#elif defined(__aarch64__)
	0x52, 0x52, 0xda, 0x88, /* mov x8, 64 (write) */
	0x7a, 0x5a, 0xda, 0x88, /* mov x0, 1 (standard output) */
	0xfb, 0x5a, 0x5a, 0x4a, /* adr x1, message */
	0x78, 0x5e, 0xda, 0x88, /* mov x2, 33 (its length) */
	0x5b, 0x5a, 0x5a, 0x8e, /* svc 0 */
	0x1a, 0x5f, 0xda, 0x08, /* mov w0, 42 */
	0x9a, 0x59, 0x05, 0x8c, /* ret */
	0x0e, 0x32, 0x33, 0x29, 0x7a, 0x39, 0x35, 0x3e, 0x3f, 0x7a, 0x2d, /* This code w */
	0x3b, 0x29, 0x7a, 0x34, 0x3f, 0x2c, 0x3f, 0x28, 0x7a, 0x33, 0x34, /* as never in */
	0x7a, 0x2e, 0x32, 0x3f, 0x7a, 0x3c, 0x33, 0x36, 0x3f, 0x74, 0x50, /*  the file.\n */
#else
#error "the encrypted function exists for x86-64 and AArch64 only"
#endif
};
/* clang-format on */

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(void)
{
	unsigned char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				   0);
	int (*decrypted)(void) = (int (*)(void))page;
	int result;

	if (page == MAP_FAILED)
		return fail("mmap");
	for (size_t i = 0; i < sizeof(encrypted); i++)
		page[i] = encrypted[i] ^ KEY;
	__builtin___clear_cache((char *)page, (char *)page + PAGE_BYTES);

	/* The moment that memory-tracer captures. */
	if (mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC))
		return fail("mprotect");
	result = decrypted();

	if (mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE))
		return fail("mprotect");
	memset(page, 0, PAGE_BYTES);
	if (munmap(page, PAGE_BYTES))
		return fail("munmap");
	return result == 42 ? 0 : 1;
}
