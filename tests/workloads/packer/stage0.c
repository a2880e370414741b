// SPDX-License-Identifier: MIT
/*
 * The executable of a packed program. It has stage 1 and the original program as encrypted bytes:
 * STAGE1 and ORIGINAL are their files, KEY is the key of stage 1, whose pages are followed by those of
 * the original in the random bytes. ENTRY is where stage 1 starts, as an offset.
 */
#include "packer.h"

extern const unsigned char stage1[], stage1_end[], original[], original_end[];
__asm__(".pushsection .rodata\n"
	"stage1: .incbin \"" STAGE1 "\"\n"
	"stage1_end:\n"
	"original: .incbin \"" ORIGINAL "\"\n"
	"original_end:\n"
	".popsection\n");

int main(int argc, char **argv)
{
	size_t code_pages = (stage1_end - stage1) / PAGE_BYTES;
	size_t original_pages = (original_end - original) / PAGE_BYTES;
	uintptr_t *stack = (uintptr_t *)argv - 1; /* as the kernel has left it: argc stands before argv[0] */
	unsigned char *code = map(code_pages, READ_WRITE);
	uintptr_t start;
	loader *load;

	(void)argc;
	memcpy(code, stage1, code_pages * PAGE_BYTES);
	decrypt(code, code_pages, KEY);
	protect(code, code_pages, READ_EXEC);
	load = (loader *)(code + ENTRY);
	say_place("stage1", load);
	start = load(stack, original, original_pages, KEY + code_pages);

	/* Stage 1 cannot erase the page that it runs in. */
	protect(code, code_pages, READ_WRITE);
	memset(code, 0, code_pages * PAGE_BYTES);
	unmap(code, code_pages);

	/* As the kernel starts a program: rdx is what to call at exit. */
	__asm__ volatile("mov %0, %%rsp\n\t"
			 "jmp *%1"
			 :
			 : "r"(stack), "r"(start), "d"(0L)
			 : "memory");
	__builtin_unreachable();
}
