// SPDX-License-Identifier: MIT
/* A program whose stack is executable from the start: its object file asks for it. executable_stack */
#include "coverage.h"

__asm__(".pushsection .note.GNU-stack, \"x\", @progbits\n.popsection\n");

#define PAGES 64 /* what the dynamic loader had on the stack is above the lowest of them */

int main(void)
{
	unsigned char pages[PAGES * PAGE_BYTES] __attribute__((aligned(4096)));

	put_and_execute(pages);
	_exit(0); /* exit() would use this part of the stack */
}
