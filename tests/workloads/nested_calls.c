// SPDX-License-Identifier: MIT
/*
 * Makes one page executable at the end of three calls, whose return addresses it says:
 *
 *	{"step": "called", ..., "page": A, "returns": [INNERMOST, ...]}
 */
#include "workload.h"

static unsigned char *page;
static unsigned long returns[2];

/* By itself, and not through the C library, whose wrapper has a return address of its own. */
__attribute__((noinline)) static long innermost(void)
{
	long result = SYS_mprotect;

	returns[0] = (unsigned long)__builtin_return_address(0);
#if defined(__x86_64__)
	__asm__ volatile("syscall"
			 : "+a"(result)
			 : "D"(page), "S"(PAGE_BYTES), "d"(PROT_READ | PROT_EXEC)
			 : "rcx", "r11", "memory");
#else
	result = syscall(SYS_mprotect, page, PAGE_BYTES, PROT_READ | PROT_EXEC);
#endif
	return result;
}

__attribute__((noinline)) static long middle(void)
{
	returns[1] = (unsigned long)__builtin_return_address(0);
	return innermost() + 1;
}

int main(void)
{
	page = map(1, PROT_READ | PROT_WRITE);
	page[0] = 1;
	if (middle() != 1)
		fail("mprotect");
	say("called", ", \"page\": %lu, \"returns\": [%lu, %lu]", (unsigned long)page, returns[0],
	    returns[1]);
	return 0;
}
