// SPDX-License-Identifier: MIT
/*
 * A program to be packed. original STATUS WORD... prints what its functions make of the words, and ends
 * with that status. It says where it starts on standard error. It uses what a loader has to get right:
 * several pages of code, relocated pointers, thread-local and zeroed data, the stack, constructors.
 * In the end it wipes its own code, so that only who came earlier has it.
 */
#include "packer.h"

#include <elf.h>
#include <sys/auxv.h>

/* From the linker: where the program starts, and its image. */
extern unsigned char _start[], __executable_start[];

/* Sixty-four different functions, on four pages. */
#define FUNCTION(n)                                                                                          \
	static __attribute__((noinline, aligned(256))) uint64_t mix_##n(uint64_t x)                          \
	{                                                                                                    \
		for (int i = 0; i < 0x1##n; i++)                                                             \
			x = (x << 7 ^ x >> 9) * (0x9e3779b97f4a7c15 + 0x##n) + i;                            \
		return x;                                                                                    \
	}
#define POINTER(n) mix_##n,
#define SIXTEEN(with, n)                                                                                     \
	with(n##0) with(n##1) with(n##2) with(n##3) with(n##4) with(n##5) with(n##6) with(n##7) with(n##8)   \
		with(n##9) with(n##a) with(n##b) with(n##c) with(n##d) with(n##e) with(n##f)
#define ALL(with) SIXTEEN(with, 0) SIXTEEN(with, 1) SIXTEEN(with, 2) SIXTEEN(with, 3)

ALL(FUNCTION)

static uint64_t (*const functions[])(uint64_t) = {ALL(POINTER)};
static __thread uint64_t state = 1;
static uint64_t results[1024]; /* in no file: the loader's zeros */
static const char *greeting;

__attribute__((constructor)) static void greet(void)
{
	greeting = getenv("GREETING");
}

static int by_value(const void *first, const void *second)
{
	uint64_t a = *(const uint64_t *)first, b = *(const uint64_t *)second;

	return (a > b) - (a < b);
}

/* Apart from the code that it wipes, and without a call into it. */
__attribute__((noreturn, noinline, section(".text_that_wipes"), aligned(4096))) static void
wipe(unsigned char *from, size_t length, int status)
{
	raw_call(SYS_mprotect, (long)from, length, READ_WRITE, 0, 0, 0);
	raw_zero(from, length);
	raw_call(SYS_exit_group, status, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}

/* Wipe the executable segment up to the page that wipes. */
__attribute__((noreturn)) static void wipe_and_exit(int status)
{
	const Elf64_Phdr *image = (const Elf64_Phdr *)getauxval(AT_PHDR), *code;
	unsigned char *start;

	while (image->p_type != PT_LOAD)
		image++;
	for (code = image; !(code->p_type == PT_LOAD && code->p_flags & PF_X);)
		code++;
	start = __executable_start + (code->p_vaddr - image->p_vaddr);
	wipe(start, (unsigned char *)wipe - start, status);
}

int main(int argc, char **argv)
{
	const size_t count = sizeof(functions) / sizeof(*functions);

	say_place("original", _start);
	for (int i = 2; i < argc; i++) {
		for (const char *letter = argv[i]; *letter; letter++) {
			state ^= *letter;
			for (size_t j = 0; j < count; j++)
				results[j] += state = functions[j](state);
		}
	}
	qsort(results, count, sizeof(*results), by_value);
	printf("%s %d %.3f\n", greeting ? greeting : "-", argc, (double)state / count);
	for (size_t i = 0; i < count; i++)
		printf("%016lx\n", results[i]);
	fflush(stdout);
	wipe_and_exit((int)argument(argc, argv, 1, 0));
}
