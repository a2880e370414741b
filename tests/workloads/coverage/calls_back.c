// SPDX-License-Identifier: MIT
/* Code in executable memory calls a function of the program, which maps memory: it is on the stack then. */
#include "coverage.h"

#if defined(__x86_64__)

static void map_something(void)
{
	unmap(map(1, READ_EXEC), 1);
}

int main(void)
{
	static const unsigned char code[] = {
		0x55,             /* push rbp */
		0x48, 0x89, 0xe5, /* mov rbp, rsp */
		0xff, 0xd7,       /* call rdi */
		0x5d,             /* pop rbp */
		0xc3,             /* ret */
	};
	unsigned char *page = map(1, READ_WRITE);
	struct marker marker = {.address = page};

	memcpy(marker.bytes, code, sizeof(code));
	write_marker(&marker, page);
	protect(page, 1, READ_EXEC);
	((void (*)(void (*)(void)))page)(map_something);
	say_executed(&marker, getpid());
	return 0;
}

#else

int main(void)
{
	return NOT_IN_THIS_KERNEL;
}

#endif
