// SPDX-License-Identifier: MIT
/*
 * Makes a page executable at the end of three calls, whose return addresses it says:
 *
 *	{"step": "called", ..., "page": A, "returns": [INNERMOST, ...]}
 *
 * Then another by the C library's mprotect, which has no frame pointer, from code at [START, END):
 *
 *	{"step": "wrapped", ..., "page": A, "code": [START, END], "returns": [INNERMOST]}
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

/* In a section of its own, so that the linker says where it starts and ends. */
__attribute__((noinline, section("wrapped"))) static long through_the_library(void)
{
	returns[0] = (unsigned long)__builtin_return_address(0);
	return mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC);
}

extern const char __start_wrapped[], __stop_wrapped[];

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
	page = map(1, PROT_READ | PROT_WRITE);
	page[0] = 1;
	if (through_the_library() != 0)
		fail("mprotect");
	say("wrapped", ", \"page\": %lu, \"code\": [%lu, %lu], \"returns\": [%lu]", (unsigned long)page,
	    (unsigned long)__start_wrapped, (unsigned long)__stop_wrapped, returns[0]);
	return 0;
}
