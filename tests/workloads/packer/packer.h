/* SPDX-License-Identifier: MIT */
/*
 * What the parts of a packed program share. original.c is the program that is packed; stage0.c is the
 * executable that carries it, and stage1.c the code that loads it; __init__.py puts them together.
 *
 * Stage 1, and the end of the original, run where there is no libc: the raw functions and decrypt are
 * inline and call nothing.
 */
#ifndef PACKER_H
#define PACKER_H

#include "../workload.h"

#if !defined(__x86_64__)
#error "the packer exists for x86-64 only"
#endif

/*
 * What stage 1 is: it decrypts `pages` pages of an ELF file, maps what the file says (and its dynamic
 * loader), completes the auxiliary vector on `stack`, and returns where to start.
 */
typedef uintptr_t loader(uintptr_t *stack, const unsigned char *encrypted, size_t pages, uint64_t key);

static inline long raw_call(long number, long first, long second, long third, long fourth, long fifth,
			    long sixth)
{
	register long r10 __asm__("r10") = fourth;
	register long r8 __asm__("r8") = fifth;
	register long r9 __asm__("r9") = sixth;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/* Instructions instead of memcpy and memset: the compiler makes no call of libc's from them. */
static inline void raw_copy(void *to, const void *from, size_t length)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

static inline void raw_zero(void *address, size_t length)
{
	__asm__ volatile("rep stosb" : "+D"(address), "+c"(length) : "a"(0) : "memory");
}

/* Decrypt, or encrypt, with the random bytes that a workload fills pages with. */
static inline void decrypt(unsigned char *data, size_t pages, uint64_t key)
{
	unsigned char random[PAGE_BYTES];

	for (size_t i = 0; i < pages; i++) {
		fill_page(random, key + i);
		for (size_t j = 0; j < PAGE_BYTES; j++)
			data[i * PAGE_BYTES + j] ^= random[j];
	}
}

/* Say where something is on standard error: standard output is that of the original program. */
static inline void say_place(const char *what, const void *address)
{
	dprintf(STDERR_FILENO, "{\"step\": \"%s\", \"pid\": %d, \"tid\": %d, \"address\": %lu}\n", what,
		getpid(), (int)syscall(SYS_gettid), (unsigned long)address);
}

#endif
