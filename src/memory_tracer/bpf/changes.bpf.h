/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Before an address space changes: the look that comes when somebody asks for its lock.
 *
 * Whoever maps, moves, cuts off or protects memory takes the lock of the address space to write;
 * whoever reaches into another process's memory takes it to read. Asking for it is a tracepoint of
 * its own, so it sees what tracepoints of system calls do not: calls of the 32-bit ABI (int $0x80),
 * which works in 64-bit programs, and writes from outside. What is about to happen stands in the
 * registers with which the thread entered the kernel.
 */
#ifndef CHANGES_BPF_H
#define CHANGES_BPF_H

#include "calls.bpf.h"

/* A system call in progress, with the numbers and arguments of whichever ABI it came by. */
struct call {
	__u64 number;
	__u64 arguments[6];
	bool compat;
};

/* What a call may do to [start, end) of an address space. */
struct change {
	__u64 start;
	__u64 end;
};

#define EVERYTHING ((struct change){0, ~0ULL})
#define NOTHING ((struct change){0, 0})

/* Pages of one write from outside that are looked at first; it asks for the lock once for each. */
#define WRITTEN_PAGES 1024

/* asm/unistd_64.h; those of the 32-bit ABI are in calls.bpf.h */
enum {
	NATIVE_WRITE = 1,
	NATIVE_MUNMAP = 11,
	NATIVE_BRK = 12,
	NATIVE_PWRITE = 18,
	NATIVE_WRITEV = 20,
	NATIVE_SHMDT = 67,
	NATIVE_PTRACE = 101,
	NATIVE_REMAP_FILE_PAGES = 216,
	NATIVE_PWRITEV = 296,
	NATIVE_PROCESS_VM_READV = 310,
	NATIVE_PROCESS_VM_WRITEV = 311,
	NATIVE_PWRITEV2 = 328,
	NATIVE_PROCESS_MADVISE = 440,
};

#define MREMAP_FIXED 2
#define PTRACE_POKETEXT 4
#define PTRACE_POKEDATA 5

static __always_inline void read_call(struct call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers = (void *)bpf_task_pt_regs(task);

	call->compat = is_compat_call();
#if defined(__TARGET_ARCH_x86)
	call->number = registers->orig_ax;
	if (call->compat) {
		call->arguments[0] = (__u32)registers->bx;
		call->arguments[1] = (__u32)registers->cx;
		call->arguments[2] = (__u32)registers->dx;
		call->arguments[3] = (__u32)registers->si;
		call->arguments[4] = (__u32)registers->di;
		call->arguments[5] = (__u32)registers->bp;
		return;
	}
	call->arguments[5] = registers->r9;
#else
	call->number = ~0ULL; /* the numbers above are not this machine's */
#endif
	call->arguments[0] = PT_REGS_PARM1_SYSCALL(registers);
	call->arguments[1] = PT_REGS_PARM2_SYSCALL(registers);
	call->arguments[2] = PT_REGS_PARM3_SYSCALL(registers);
	call->arguments[3] = PT_REGS_PARM4_SYSCALL(registers);
	call->arguments[4] = PT_REGS_PARM5_SYSCALL(registers);
}

static __always_inline struct change pages_at(__u64 address, __u64 length)
{
	__u64 start = address & ~(PAGE_BYTES - 1ULL);

	if (address + length < address)
		return (struct change){start, ~0ULL};
	return (struct change){start, start + page_align(address + length - start)};
}

/* mremap takes away the old range, and with MREMAP_FIXED what is at the new one. */
static __always_inline struct change moved_pages(const __u64 *arguments)
{
	struct change old = pages_at(arguments[0], arguments[1]);
	struct change new = pages_at(arguments[4], arguments[2]);

	if (!(arguments[3] & MREMAP_FIXED))
		return old;
	return (struct change){old.start < new.start ? old.start : new.start,
			       old.end > new.end ? old.end : new.end};
}

/* The heap ends at mm->brk; a smaller end cuts off what is above. */
static __always_inline struct change cut_heap(const struct mm_struct *mm, __u64 end)
{
	return (struct change){end & ~(PAGE_BYTES - 1ULL), BPF_CORE_READ(mm, brk)};
}

/* What the caller may take away from its own memory, beyond what calls.bpf.h sees. */
static __always_inline struct change own_change(const struct call *call, const struct mm_struct *mm)
{
	const __u64 *arguments = call->arguments;

	if (!call->compat) {
		switch (call->number) {
		case NR_MREMAP:
			return moved_pages(arguments);
		case NATIVE_BRK:
			return cut_heap(mm, arguments[0]);
		case NR_SHMAT:
		case NATIVE_SHMDT:
		case NATIVE_REMAP_FILE_PAGES:
			return EVERYTHING;
		}
		return NOTHING;
	}
	switch (call->number) {
	case COMPAT_MPROTECT:
	case COMPAT_PKEY_MPROTECT:
	case COMPAT_MUNMAP:
	case COMPAT_MADVISE:
		return pages_at(arguments[0], arguments[1]);
	case COMPAT_MMAP:
		return arguments[3] & MAP_FIXED ? pages_at(arguments[0], arguments[1]) : NOTHING;
	case COMPAT_MREMAP:
		return moved_pages(arguments);
	case COMPAT_BRK:
		return cut_heap(mm, arguments[0]);
	case COMPAT_OLD_MMAP: /* its arguments are in memory */
	case COMPAT_IPC:
	case COMPAT_SHMDT:
	case COMPAT_REMAP_FILE_PAGES:
		return EVERYTHING;
	}
	return NOTHING;
}

/* Where the open file `descriptor` of the current process stands. */
static __always_inline __u64 file_position(__u64 descriptor)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file **files = BPF_CORE_READ(task, files, fdt, fd), *file = NULL;

	bpf_probe_read_kernel(&file, sizeof(file), &files[descriptor]);
	return BPF_CORE_READ(file, f_pos);
}

static __always_inline struct change written_pages(__u64 address, __u64 length)
{
	return pages_at(address, length < WRITTEN_PAGES * PAGE_BYTES ? length : WRITTEN_PAGES * PAGE_BYTES);
}

/* What a process_vm_writev writes to: its first piece, or anything if it has several. */
static __always_inline struct change written_vectors(const __u64 *arguments)
{
	struct {
		__u64 address;
		__u64 length;
	} piece = {};

	if (arguments[4] != 1 || bpf_probe_read_user(&piece, sizeof(piece), (void *)arguments[3]))
		return EVERYTHING;
	return pages_at(piece.address, piece.length);
}

/* What a call that reaches into memory through /proc/PID/mem, ptrace or the like may change there. */
static __always_inline struct change reached_change(const struct call *call)
{
	const __u64 *arguments = call->arguments;

	if (call->compat)
		return call->number == COMPAT_PTRACE && arguments[0] != PTRACE_POKETEXT &&
				       arguments[0] != PTRACE_POKEDATA
			       ? NOTHING
			       : EVERYTHING;
	switch (call->number) {
	case NATIVE_PTRACE:
		if (arguments[0] == PTRACE_POKETEXT || arguments[0] == PTRACE_POKEDATA)
			return pages_at(arguments[2], sizeof(__u64));
		return NOTHING;
	case NATIVE_PROCESS_VM_WRITEV:
		return written_vectors(arguments);
	case NATIVE_PWRITE:
		return written_pages(arguments[3], arguments[2]);
	case NATIVE_WRITE:
		return written_pages(file_position(arguments[0]), arguments[2]);
	case NATIVE_WRITEV:
	case NATIVE_PWRITEV:
	case NATIVE_PWRITEV2:
	case NATIVE_PROCESS_MADVISE:
		return EVERYTHING;
	}
	return NOTHING;
}

/* The kernel knows who owns an address space where it counts memory by groups (CONFIG_MEMCG). */
struct mm_struct___owned {
	struct task_struct *owner;
} __attribute__((preserve_access_index));

static __always_inline struct task_struct *owner_of(struct mm_struct *mm)
{
	struct mm_struct___owned *owned = (void *)mm;
	struct task_struct *owner;

	if (!bpf_core_field_exists(owned->owner))
		return NULL;
	owner = BPF_CORE_READ(owned, owner);
	/* An address space that execve is still building is not yet what its owner has. */
	return BPF_CORE_READ(owner, mm) == mm ? owner : NULL;
}

/* Have `program` look at what a call is about to change in a process, of which `tid` is a thread. */
static __always_inline void look_at_change(void *ctx, void *program, const struct call *call,
					   struct change change, __u32 pid, __u32 tid, bool writes)
{
	struct page_job *job = this_job();

	if (change.start >= change.end || !traced_process(pid) || !job)
		return;
	ask_for_look(job, change.start, change.end, 0);
	job->look_call = call->number;
	job->look_compat = call->compat;
	job->look_pid = pid;
	job->look_tid = tid;
	job->look_writes = writes;
	bpf_tail_call(ctx, program, 0);
}

/* The current thread asks for the lock of its own memory. */
static __always_inline void look_at_own_change(void *ctx, struct mm_struct *mm, bool write,
					       const struct call *call)
{
	struct change change = NOTHING;

	if (write)
		change = own_change(call, mm);
	else if (!call->compat) /* through /proc/self/mem */
		change = reached_change(call);
	look_at_change(ctx, &look_program, call, change, bpf_get_current_pid_tgid() >> 32,
		       bpf_get_current_pid_tgid(), !write);
}

/* It asks for the lock of another process's memory. */
static __always_inline void look_at_reached_change(void *ctx, void *program, struct mm_struct *mm,
						   const struct call *call)
{
	struct task_struct *owner;

	if (!(configured.flags & CONFIG_OTHERS) || !have_page_tables())
		return;
	owner = owner_of(mm);
	look_at_change(ctx, program, call, reached_change(call), BPF_CORE_READ(owner, tgid),
		       BPF_CORE_READ(owner, pid), true);
}

#endif
