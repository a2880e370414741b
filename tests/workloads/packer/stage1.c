// SPDX-License-Identifier: MIT
/*
 * Stage 1: what the kernel does in execve, in user space, without libc. It is linked into one section
 * (stage1.lds), whose bytes run at any address; so there is no data that is written or relocated.
 */
#include "packer.h"

#include <elf.h>
#include <stdbool.h>

#define FAILED 120 /* the status of a packed program that could not be loaded */

static long must(long result)
{
	if (result < 0 && result > -4096)
		raw_call(SYS_exit_group, FAILED, 0, 0, 0, 0, 0);
	return result;
}

static unsigned char *map_pages(uintptr_t address, size_t length, int protection, int flags, int fd)
{
	return (void *)must(raw_call(SYS_mmap, address, length, protection, MAP_PRIVATE | flags, fd, 0));
}

static uintptr_t page_start(uintptr_t address)
{
	return address & ~(PAGE_BYTES - 1);
}

static uintptr_t page_end(uintptr_t address)
{
	return page_start(address + PAGE_BYTES - 1);
}

static const Elf64_Phdr *first_header(const unsigned char *file)
{
	return (const Elf64_Phdr *)(file + ((const Elf64_Ehdr *)file)->e_phoff);
}

static const Elf64_Phdr *end_of_headers(const unsigned char *file)
{
	return first_header(file) + ((const Elf64_Ehdr *)file)->e_phnum;
}

struct loaded {
	uintptr_t start, base, entry;
};

/* Map the segments of an ELF file, as anonymous memory. */
static struct loaded load(const unsigned char *file)
{
	const Elf64_Ehdr *elf = (const Elf64_Ehdr *)file;
	const Elf64_Phdr *headers_end = end_of_headers(file);
	uintptr_t low = UINTPTR_MAX, high = 0, base;
	bool fixed = elf->e_type == ET_EXEC;
	unsigned char *start;

	for (const Elf64_Phdr *header = first_header(file); header < headers_end; header++) {
		if (header->p_type != PT_LOAD)
			continue;
		if (low > header->p_vaddr)
			low = page_start(header->p_vaddr);
		high = page_end(header->p_vaddr + header->p_memsz);
	}
	start = map_pages(fixed ? low : 0, high - low, READ_WRITE,
			  MAP_ANONYMOUS | (fixed ? MAP_FIXED_NOREPLACE : 0), -1);
	base = (uintptr_t)start - low;
	for (const Elf64_Phdr *header = first_header(file); header < headers_end; header++) {
		uintptr_t segment = base + header->p_vaddr;
		int protection = (header->p_flags & PF_R ? PROT_READ : 0) |
				 (header->p_flags & PF_W ? PROT_WRITE : 0) |
				 (header->p_flags & PF_X ? PROT_EXEC : 0);

		if (header->p_type != PT_LOAD)
			continue;
		raw_copy((void *)segment, file + header->p_offset, header->p_filesz);
		must(raw_call(SYS_mprotect, page_start(segment),
			      page_end(segment + header->p_memsz) - page_start(segment), protection, 0, 0,
			      0));
	}
	return (struct loaded){(uintptr_t)start, base, base + elf->e_entry};
}

/* Load the dynamic loader that a program names; nothing for a program that names none. */
static struct loaded load_interpreter(const unsigned char *file)
{
	struct loaded loaded = {0, 0, 0};

	for (const Elf64_Phdr *header = first_header(file); header < end_of_headers(file); header++) {
		unsigned char *interpreter;
		long fd, length;

		if (header->p_type != PT_INTERP)
			continue;
		fd = must(raw_call(SYS_openat, AT_FDCWD, (long)(file + header->p_offset), O_RDONLY, 0, 0, 0));
		length = must(raw_call(SYS_lseek, fd, 0, SEEK_END, 0, 0, 0));
		interpreter = map_pages(0, length, PROT_READ, 0, fd);
		loaded = load(interpreter);
		raw_call(SYS_munmap, (long)interpreter, length, 0, 0, 0, 0);
		raw_call(SYS_close, fd, 0, 0, 0, 0, 0);
	}
	return loaded;
}

/* Let the auxiliary vector, which the kernel wrote for stage 0, describe the original program. */
static void complete_stack(uintptr_t *stack, const unsigned char *file, struct loaded program,
			   uintptr_t interpreter)
{
	const Elf64_Ehdr *elf = (const Elf64_Ehdr *)file;
	uintptr_t *place = stack + 1 + stack[0] + 1; /* after argc, the arguments and their NULL */

	while (*place++) /* the environment */
		;
	for (Elf64_auxv_t *entry = (Elf64_auxv_t *)place; entry->a_type != AT_NULL; entry++) {
		switch (entry->a_type) {
		case AT_PHDR:
			entry->a_un.a_val = program.start + elf->e_phoff;
			break;
		case AT_PHNUM:
			entry->a_un.a_val = elf->e_phnum;
			break;
		case AT_ENTRY:
			entry->a_un.a_val = program.entry;
			break;
		case AT_BASE:
			entry->a_un.a_val = interpreter;
			break;
		}
	}
}

uintptr_t load_original(uintptr_t *stack, const unsigned char *encrypted, size_t pages, uint64_t key)
{
	unsigned char *file = map_pages(0, pages * PAGE_BYTES, READ_WRITE, MAP_ANONYMOUS, -1);
	struct loaded program, interpreter;

	raw_copy(file, encrypted, pages * PAGE_BYTES);
	decrypt(file, pages, key);
	program = load(file);
	interpreter = load_interpreter(file);
	complete_stack(stack, file, program, interpreter.base);
	raw_call(SYS_munmap, (long)file, pages * PAGE_BYTES, 0, 0, 0, 0);
	return interpreter.entry ? interpreter.entry : program.entry;
}
