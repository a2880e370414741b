/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hook fexit: calls begin where the lock of the address space is asked for, as with the hook mm-lock, and
 * end where the kernel's function for them returns, with the result.
 *
 * Programs are attached to such functions by trampolines, which cost only those who make these calls. They
 * run with preemption on: this hook is for kernels that do not preempt themselves, because a job belongs to
 * its CPU.
 */
#ifndef FUNCTIONS_BPF_H
#define FUNCTIONS_BPF_H

#include "locks.bpf.h"

/* Since Linux 6.16 sched_process_exit has a type of its own, and comes before the memory is given up. */
struct trace_event_raw_sched_process_exit___any {
	bool group_dead;
} __attribute__((preserve_access_index));

/* Before Linux 6.14 or so this tracepoint was given the name of a memory group as well. */
struct trace_event_raw_mmap_lock___named {
	__u32 __data_loc_memcg_path;
} __attribute__((preserve_access_index));

/* Whether the lock that is asked for is to be had to write. */
static __always_inline bool asks_to_write(const struct bpf_raw_tracepoint_args *ctx)
{
	struct trace_event_raw_mmap_lock___named *named = NULL;
	__u64 write;

	if (bpf_core_field_exists(named->__data_loc_memcg_path)) {
		write = ctx->args[2];
		barrier_var(write); /* the verifier wants two loads, each from a fixed place */
		return (__u8)write;
	}
	return (__u8)ctx->args[1];
}

/* Whether the last thread of a process asks for the lock in order to give the memory up, and no event follows. */
static __always_inline bool gives_up_memory(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (bpf_core_type_exists(struct trace_event_raw_sched_process_exit___any))
		return false;
	return task->flags & PF_EXITING && !task->signal->live.counter;
}

static __always_inline int exit_function(__s64 result, const enum loop_engine engine)
{
	struct call call = {};

	read_call(&call);
	return exit_call(call.number, result, engine);
}

#endif
