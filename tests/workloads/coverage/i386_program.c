// SPDX-License-Identifier: MIT
/*
 * A 32-bit program, without libc: what is installed is for 64-bit ones.
 * i386_program mmap|mprotect|munmap
 * mmap executes memory that is writable and executable at once; mprotect writes, makes executable,
 * executes and hides; munmap does so in a new place for each generation. It says what coverage.h says.
 */
#if defined(__i386__)

#include <stddef.h>

/* include/uapi/asm-generic/mman-common.h */
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 32

/* arch/x86/entry/syscalls/syscall_32.tbl */
#define NR_EXIT 1
#define NR_WRITE 4
#define NR_GETPID 20
#define NR_MUNMAP 91
#define NR_MPROTECT 125
#define NR_MMAP2 192
#define NR_GETRANDOM 355

#define PAGE_BYTES 4096
#define MARKER_BYTES 48
#define GENERATIONS 3

static char line[512];
static size_t used;

static long call(long number, long first, long second, long third, long fourth, long fifth)
{
	long result;

	/* The sixth argument is in ebp, which is not ours to name: 0 by way of the stack. */
	__asm__ volatile("push %%ebp\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "int $0x80\n\t"
			 "pop %%ebp"
			 : "=a"(result)
			 : "a"(number), "b"(first), "c"(second), "d"(third), "S"(fourth), "D"(fifth)
			 : "memory");
	return result;
}

static void end(int status)
{
	call(NR_EXIT, status, 0, 0, 0, 0);
	__builtin_unreachable();
}

static void add_text(const char *text)
{
	while (*text)
		line[used++] = *text++;
}

static void add_number(unsigned long number)
{
	if (number > 9)
		add_number(number / 10);
	line[used++] = '0' + number % 10;
}

static void say_executed(const unsigned char *address)
{
	static const char digits[] = "0123456789abcdef";
	unsigned long pid = call(NR_GETPID, 0, 0, 0, 0, 0);

	used = 0;
	add_text("{\"step\": \"executed\", \"pid\": ");
	add_number(pid);
	add_text(", \"tid\": ");
	add_number(pid);
	add_text(", \"process\": ");
	add_number(pid);
	add_text(", \"address\": ");
	add_number((unsigned long)address);
	add_text(", \"bytes\": \"");
	for (size_t i = 0; i < MARKER_BYTES; i++) {
		line[used++] = digits[address[i] >> 4];
		line[used++] = digits[address[i] & 15];
	}
	add_text("\"}\n");
	if (call(NR_WRITE, 1, (long)line, used, 0, 0) != (long)used)
		end(2);
}

/* A function that returns a random number, and random bytes behind it. */
static void write_marker(unsigned char *page)
{
	if (call(NR_GETRANDOM, (long)page, MARKER_BYTES, 0, 0, 0) != MARKER_BYTES)
		end(2);
	page[0] = 0xb8; /* mov eax, the two bytes that follow */
	page[3] = 0;
	page[4] = 0;
	page[5] = 0xc3; /* ret */
}

static void execute(const unsigned char *page)
{
	if (((unsigned int (*)(void))page)() != (unsigned int)(page[1] | page[2] << 8))
		end(3);
	say_executed(page);
}

static unsigned char *map(int protection)
{
	return (unsigned char *)call(NR_MMAP2, 0, PAGE_BYTES, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void protect(unsigned char *page, int protection)
{
	if (call(NR_MPROTECT, (long)page, PAGE_BYTES, protection, 0, 0))
		end(2);
}

static void unmap(unsigned char *page)
{
	if (call(NR_MUNMAP, (long)page, PAGE_BYTES, 0, 0, 0))
		end(2);
}

static void flip(int into_new_place)
{
	unsigned char *page = map(PROT_READ | PROT_WRITE);

	for (int i = 0; i < GENERATIONS; i++) {
		write_marker(page);
		protect(page, PROT_READ | PROT_EXEC);
		execute(page);
		if (into_new_place) {
			unmap(page);
			page = map(PROT_READ | PROT_WRITE);
		} else {
			protect(page, PROT_READ | PROT_WRITE);
		}
	}
	write_marker(page);
}

static void run_writable(void)
{
	for (int i = 0; i < GENERATIONS; i++) {
		unsigned char *page = map(PROT_READ | PROT_WRITE | PROT_EXEC);

		write_marker(page);
		execute(page);
		unmap(page);
	}
}

static int same(const char *one, const char *other)
{
	while (*one && *one == *other) {
		one++;
		other++;
	}
	return *one == *other;
}

/* What execve leaves on the stack: the number of arguments, then the arguments. */
__attribute__((used)) static void run(const long *stack)
{
	const char *variant = stack[0] > 1 ? (const char *)stack[2] : "";

	if (same(variant, "mmap"))
		run_writable();
	else if (same(variant, "mprotect"))
		flip(0);
	else if (same(variant, "munmap"))
		flip(1);
	else
		end(2);
	end(0);
}

__asm__(".globl _start\n"
	"_start:\n\t"
	"mov %esp, %eax\n\t"
	"and $-16, %esp\n\t"
	"sub $12, %esp\n\t"
	"push %eax\n\t"
	"call run\n");

#else
#error "this is a program for i386: compile it with -m32"
#endif
