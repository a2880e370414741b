// SPDX-License-Identifier: MIT
/*
 * System calls of the 32-bit ABI, made by a 64-bit process. compat_calls mmap|munmap|mprotect|hide
 * mmap and mprotect leave the code in place, munmap unmaps it, hide makes it writable and overwrites it.
 */
#include "coverage.h"

#if defined(__x86_64__)

/* arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_MUNMAP 91
#define I386_MPROTECT 125
#define I386_MMAP2 192

static long call32(long number, unsigned long first, long second, long third, long fourth, long fifth)
{
	long result;

	/* The sixth argument is in ebp, which is not ours to name: 0 by way of the stack. */
	__asm__ volatile("push %%rbp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "int $0x80\n\t"
			 "pop %%rbp"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth)
			 : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static void protect32(unsigned char *page, int protection)
{
	long result = call32(I386_MPROTECT, (unsigned long)page, PAGE_BYTES, protection, 0, 0);

	if (result == -ENOSYS)
		exit(NOT_IN_THIS_KERNEL);
	if (result)
		exit(3);
}

static void unmap32(unsigned char *page)
{
	if (call32(I386_MUNMAP, (unsigned long)page, PAGE_BYTES, 0, 0, 0))
		exit(3);
}

int main(int argc, char **argv)
{
	unsigned char *page;
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("mmap", "munmap", "mprotect", "hide"));
	if (variant_is("mmap")) {
		page = (void *)(call32(I386_MMAP2, 0, PAGE_BYTES, READ_WRITE_EXEC,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1) &
				0xffffffff);
		put_and_execute(page);
		return 0;
	}
	page = map_at(NULL, 1, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1);
	marker = put_marker(page);
	protect32(page, READ_EXEC);
	execute(&marker);
	if (variant_is("hide")) {
		protect32(page, READ_WRITE);
		memset(page, 0, PAGE_BYTES);
	} else if (variant_is("munmap")) {
		unmap32(page);
	}
	return 0;
}

#else

int main(void)
{
	return NOT_IN_THIS_KERNEL;
}

#endif
