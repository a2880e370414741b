// SPDX-License-Identifier: MIT
/*
 * A program that uses SIGSEGV for its own purposes, beside writable and executable memory, and says what
 * its handler was told. own_faults. Ends by SIGUSR1.
 */
#include "workload.h"

#include <setjmp.h>
#include <signal.h>
#include <time.h>

static sigjmp_buf back;
static volatile siginfo_t told;
static volatile unsigned int count;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	told = *info;
	count++;
	siglongjmp(back, 1);
}

static void say_fault(const char *what, const unsigned char *page)
{
	uintptr_t address = (uintptr_t)told.si_addr;

	if (page)
		address -= (uintptr_t)page;
	say("fault", ", \"what\": \"%s\", \"count\": %u, \"code\": %d, \"address\": %lu", what, count,
	    told.si_code, (unsigned long)address);
}

static void put(unsigned char *page, unsigned int number)
{
	struct code code = code_returning(number);

	memcpy(page, code.bytes, code.length);
	call_and_expect(page, number);
}

int main(void)
{
	unsigned char alternate[1 << 16], *page = map(2, READ_WRITE | PROT_EXEC);
	struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	struct code code = code_returning(7);
	int ends[2];

	if (sigaltstack(&stack, NULL) || sigaction(SIGSEGV, &action, NULL))
		fail("sigaction");
	put(page, 1);
	if (!sigsetjmp(back, 1))
		*(volatile int *)8 = 1;
	say_fault("nothing there", NULL);
	protect(page, 1, PROT_READ);
	if (!sigsetjmp(back, 1))
		page[3] = 1;
	say_fault("not writable", page);
	protect(page, 1, READ_WRITE | PROT_EXEC);
	put(page, 2);
	put(page, 3);
	protect(page, 1, READ_WRITE);
	if (!sigsetjmp(back, 1))
		((void (*)(void))page)();
	say_fault("not executable", page);
	protect(page, 1, READ_WRITE | PROT_EXEC);
	put(page, 4);
	/* The kernel writes where the program may, too. */
	if (pipe(ends) || write(ends[1], code.bytes, code.length) != (ssize_t)code.length)
		fail("pipe");
	if (read(ends[0], page, code.length) != (ssize_t)code.length)
		fail("read");
	call_and_expect(page, 7);
	if (clock_gettime(CLOCK_REALTIME, (void *)(page + 512)) || !getcwd((char *)page + 1024, 512))
		fail("the kernel cannot write");
	call_and_expect(page, 7);
	raise(SIGUSR1);
	return 4;
}
