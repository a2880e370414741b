// SPDX-License-Identifier: MIT
/* A program whose stack is executable from the start: its object file asks for it. executable_stack */
#include "coverage.h"

__asm__(".pushsection .note.GNU-stack, \"x\", @progbits\n.popsection\n");

int main(void)
{
	unsigned char page[PAGE_BYTES] __attribute__((aligned(4096)));

	put_and_execute(page);
	_exit(0); /* exit() would use this part of the stack */
}
