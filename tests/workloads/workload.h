/* SPDX-License-Identifier: MIT */
/*
 * What the workloads share. A workload makes memory executable and says, as one JSON object per
 * line on standard output, exactly which bytes were executable where; tests/workloads/__init__.py reads
 * that and works out the same bytes.
 *
 * Every line has "step", "pid" and "tid". For each flip it is
 *
 *	{"step": "executable", ..., "call": C, "address": A, "length": L, "contents": [
 *		{"address": A, "pages": N, "seed": S, "code": HEX}, ...]}
 *
 * Page i of a content holds the output of xorshift64 started with S + i (see fill_page), and over
 * it, at the very start of the content, the bytes of "code". Pages of [A, A + L) that no content
 * lists were never written. A line is written after the call it is about, in one write(2), so the
 * order of one thread's lines is the order of its calls.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES 4096UL
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define READ_EXEC (PROT_READ | PROT_EXEC)

/* Code at the start of a content: a function that returns a number. */
struct code {
	unsigned char bytes[16];
	size_t length;
};

struct content {
	unsigned char *address;
	size_t pages;
	uint64_t seed; /* not 0 */
	struct code code;
};

static inline void fail(const char *what)
{
	perror(what);
	exit(2);
}

/* Print one line. The format is that of the line's own fields, which follow step, pid and tid. */
__attribute__((format(printf, 2, 3))) static inline void say(const char *step, const char *format, ...)
{
	char line[4096];
	va_list arguments;
	int length = snprintf(line, sizeof(line), "{\"step\": \"%s\", \"pid\": %d, \"tid\": %d", step,
			      getpid(), (int)syscall(SYS_gettid));

	va_start(arguments, format);
	length += vsnprintf(line + length, sizeof(line) - length, format, arguments);
	va_end(arguments);
	length += snprintf(line + length, sizeof(line) - length, "}\n");
	if (write(STDOUT_FILENO, line, length) != length)
		fail("write");
}

/* 512 words of Marsaglia's xorshift64 with shifts 13, 7, 17 (Journal of Statistical Software 8:14, 2003). */
static inline void fill_page(unsigned char *page, uint64_t seed)
{
	uint64_t *words = (uint64_t *)page;

	for (size_t i = 0; i < PAGE_BYTES / sizeof(*words); i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		words[i] = seed;
	}
}

static inline void fill(const struct content *content)
{
	for (size_t i = 0; i < content->pages; i++)
		fill_page(content->address + i * PAGE_BYTES, content->seed + i);
	memcpy(content->address, content->code.bytes, content->code.length);
	__builtin___clear_cache((char *)content->address,
				(char *)content->address + content->pages * PAGE_BYTES);
}

/* Machine code of a function that returns `number`, below 65536. */
static inline struct code code_returning(unsigned int number)
{
#if defined(__x86_64__)
	/* mov eax, number; ret */
	return (struct code){.bytes = {0xb8, number & 0xff, number >> 8 & 0xff, 0, 0, 0xc3}, .length = 6};
#elif defined(__aarch64__)
	/* mov w0, number; ret */
	uint32_t instructions[] = {0x52800000 | number << 5, 0xd65f03c0};
	struct code code = {.length = sizeof(instructions)};

	memcpy(code.bytes, instructions, sizeof(instructions));
	return code;
#else
#error "code_returning exists for x86-64 and AArch64 only"
#endif
}

static inline void call_and_expect(const unsigned char *code, unsigned int number)
{
	if (((unsigned int (*)(void))code)() != number) {
		fprintf(stderr, "the code at %p did not return %u\n", (const void *)code, number);
		exit(3);
	}
}

static inline unsigned char *map(size_t pages, int protection)
{
	unsigned char *address = mmap(NULL, pages * PAGE_BYTES, protection,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (address == MAP_FAILED)
		fail("mmap");
	return address;
}

static inline void protect(void *address, size_t pages, int protection)
{
	if (mprotect(address, pages * PAGE_BYTES, protection))
		fail("mprotect");
}

static inline void unmap(void *address, size_t pages)
{
	if (munmap(address, pages * PAGE_BYTES))
		fail("munmap");
}

/* Say that [address, address + pages) is executable now, with what it holds where it was written. */
static inline void say_executable(const char *call, const void *address, size_t pages,
				  const struct content *contents, size_t count)
{
	char list[2048] = "";
	size_t used = 0;

	for (size_t i = 0; i < count; i++) {
		const struct content *content = &contents[i];

		used += snprintf(list + used, sizeof(list) - used,
				 "%s{\"address\": %lu, \"pages\": %zu, \"seed\": %lu, \"code\": \"",
				 i ? ", " : "", (unsigned long)content->address, content->pages,
				 (unsigned long)content->seed);
		for (size_t j = 0; j < content->code.length; j++)
			used += snprintf(list + used, sizeof(list) - used, "%02x", content->code.bytes[j]);
		used += snprintf(list + used, sizeof(list) - used, "\"}");
	}
	say("executable", ", \"call\": \"%s\", \"address\": %lu, \"length\": %lu, \"contents\": [%s]", call,
	    (unsigned long)address, pages * PAGE_BYTES, list);
}

/* Make a writable content executable with one mprotect, and say so. */
static inline void flip(const struct content *content)
{
	protect(content->address, content->pages, READ_EXEC);
	say_executable("mprotect", content->address, content->pages, content, 1);
}

/* The number in argv[index], or `otherwise` where there is none. */
static inline unsigned long argument(int argc, char **argv, int index, unsigned long otherwise)
{
	return argc > index ? strtoul(argv[index], NULL, 0) : otherwise;
}

#endif
