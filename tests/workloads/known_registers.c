// SPDX-License-Identifier: MIT
/*
 * Jumps into a page that is writable and executable with a value of its own in every register, N times, the
 * page rewritten each time. known_registers [N]. Says before each jump where to, and what the registers hold.
 */
#include "workload.h"

#include <asm/prctl.h>

enum { R15, R14, R13, R12, RBP, RBX, R11, R10, R9, R8, RAX, RCX, RDX, RSI, RDI, FLAGS, RSP, COUNT };

#define AT 0x123        /* in the page */
#define FLAG_BITS 0xcd5 /* carry, parity, adjust, zero, sign, direction, overflow */

static unsigned char stack[PAGE_BYTES];

/* Jump to target with these registers. What is there sets rsp to the word at patch, and returns. */
void enter(const uint64_t *values, const unsigned char *target, unsigned char *patch);

__asm__(".local goal\n.comm goal, 8, 8\n.text\nenter:\n"
	"push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
	"lea 1f(%rip), %rax; push %rax\n"
	"mov %rsp, (%rdx)\n"
	"mov %rsi, goal(%rip)\n"
	"push 120(%rdi); popfq\n"
	"mov 0(%rdi), %r15; mov 8(%rdi), %r14; mov 16(%rdi), %r13; mov 24(%rdi), %r12\n"
	"mov 32(%rdi), %rbp; mov 40(%rdi), %rbx; mov 48(%rdi), %r11; mov 56(%rdi), %r10\n"
	"mov 64(%rdi), %r9; mov 72(%rdi), %r8; mov 80(%rdi), %rax; mov 88(%rdi), %rcx\n"
	"mov 96(%rdi), %rdx; mov 104(%rdi), %rsi; mov 128(%rdi), %rsp; mov 112(%rdi), %rdi\n"
	"jmp *goal(%rip)\n"
	"1: cld\n"
	"pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
	"ret\n");

int main(int argc, char **argv)
{
	unsigned long turns = argument(argc, argv, 1, 3), fs_base;
	unsigned char *page = map(1, READ_WRITE | PROT_EXEC);

	if (syscall(SYS_arch_prctl, ARCH_GET_FS, &fs_base))
		fail("arch_prctl");
	for (unsigned long turn = 1; turn <= turns; turn++) {
		unsigned char code[11] = {0x48, 0xbc, [10] = 0xc3}; /* movabs $..., %rsp; ret */
		uint64_t v[COUNT];

		for (int i = 0; i < COUNT; i++)
			v[i] = 0x0101010101010101UL * (turn * 0x20 + i);
		v[FLAGS] = turn % 2 ? FLAG_BITS : 0;
		v[RSP] = (uint64_t)(stack + sizeof(stack) - 64 * turn);
		fill_page(page, turn);
		memcpy(page + AT, code, sizeof(code));
		say("jump",
		    ", \"to\": %lu, \"values\": {\"r15\": %lu, \"r14\": %lu, \"r13\": %lu, \"r12\": %lu,"
		    " \"rbp\": %lu, \"rbx\": %lu, \"r11\": %lu, \"r10\": %lu, \"r9\": %lu, \"r8\": %lu,"
		    " \"rax\": %lu, \"rcx\": %lu, \"rdx\": %lu, \"rsi\": %lu, \"rdi\": %lu,"
		    " \"eflags\": %lu, \"rsp\": %lu, \"fs_base\": %lu}",
		    (unsigned long)page + AT, v[R15], v[R14], v[R13], v[R12], v[RBP], v[RBX], v[R11], v[R10],
		    v[R9], v[R8], v[RAX], v[RCX], v[RDX], v[RSI], v[RDI], v[FLAGS], v[RSP], fs_base);
		enter(v, page + AT, page + AT + 2);
	}
	return 0;
}
