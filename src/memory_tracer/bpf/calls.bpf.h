/* SPDX-License-Identifier: GPL-2.0-only */
/* The calls that make memory executable or take it away: their entries saved, joined with results. */
#ifndef CALLS_BPF_H
#define CALLS_BPF_H

#include "region.bpf.h"

/* arch/x86/entry/syscalls/syscall_32.tbl */
enum {
	COMPAT_PTRACE = 26,
	COMPAT_BRK = 45,
	COMPAT_OLD_MMAP = 90,
	COMPAT_MUNMAP = 91,
	COMPAT_IPC = 117,
	COMPAT_MPROTECT = 125,
	COMPAT_MREMAP = 163,
	COMPAT_MMAP = 192,
	COMPAT_MADVISE = 219,
	COMPAT_REMAP_FILE_PAGES = 257,
	COMPAT_PKEY_MPROTECT = 380,
	COMPAT_SHMAT = 397,
	COMPAT_SHMDT = 398,
};

/* ---- mmap -------------------------------------------------------------------------------- */

static __always_inline struct mmap_args_t mmap_call(__u64 address, __u64 length, __u64 protection,
						    __u64 flags, __u64 fd, __u64 offset)
{
	return (struct mmap_args_t){
		.address = address,
		.length = length,
		.protection = protection,
		.flags = flags,
		.fd = fd,
		.offset = offset,
	};
}

static __always_inline int enter_mmap(void *ctx, struct mmap_args_t arguments, const enum loop_engine engine)
{
	struct trace_target *target = traced_target();
	__u64 thread = bpf_get_current_pid_tgid();
	struct page_job *job = this_job();

	if (!target)
		return 0;
	arguments.protection = effective_protection(arguments.protection);
	if (protection_matters(arguments.protection) &&
	    bpf_map_update_elem(&mmap_args, &thread, &arguments, BPF_ANY))
		count(COUNTER_ARGUMENTS_FULL, 1);
	/* What it replaces. */
	if (engine == ENGINE_ITERATOR && job && arguments.flags & MAP_FIXED)
		look_before(ctx, job, arguments.address, arguments.address + page_align(arguments.length),
			    EVENT_MMAP);
	return 0;
}

/* Put a finished mmap into the job's event. False when its entry was not of interest. */
static __always_inline bool join_mmap(struct page_job *job, struct trace_target *target, __s64 result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct mmap_args_t *arguments = bpf_map_lookup_elem(&mmap_args, &thread);
	struct event_record *event = &job->event;

	if (!arguments)
		return false;
	begin_event(job, target, EVENT_MMAP);
	event->result = result;
	event->header.address = failed(result) ? arguments->address : result;
	event->length = arguments->length;
	event->protection = arguments->protection & PROT_ALL;
	event->arguments[0] = arguments->address;
	event->arguments[1] = arguments->length;
	event->arguments[2] = arguments->protection;
	event->arguments[3] = arguments->flags;
	event->arguments[4] = arguments->fd;
	event->arguments[5] = arguments->offset;
	bpf_map_delete_elem(&mmap_args, &thread);
	return true;
}

/* ---- mprotect, pkey_mprotect -------------------------------------------------------------- */

static __always_inline struct mprotect_args_t mprotect_call(__u32 kind, __u64 address, __u64 length,
							    __u64 protection, __s64 key)
{
	return (struct mprotect_args_t){
		.address = address,
		.length = length,
		.protection = protection,
		.key = key,
		.kind = kind,
		.status = STATUS_PREVIOUS_UNKNOWN,
		.sequence = 1,
	};
}

/* Mappings of one call that are looked through for what can have changed. */
#define STABLE_MAPPINGS 16

/* Widen what can have changed by [start, end), which lies behind it. */
static __always_inline void add_changed(struct page_job *job, __u64 start, __u64 end)
{
	if (start < job->changed_start)
		job->changed_start = start;
	job->changed_end = end;
}

/*
 * Set job->changed_start and job->changed_end around the mappings in [start, end) that were writable, or not
 * executable: what lies outside of them was sent when it became executable, and is the same still.
 */
__noinline int find_changed(__u64 start, __u64 end)
{
	const struct mapping_info *mapping;
	struct page_job *job = this_job();
	__u64 cursor = start, next;

	if (!job || !kernel_has_iterators())
		return 0;
	mapping = &job->mapping;
	job->changed_start = end;
	job->changed_end = start;
	bpf_repeat(STABLE_MAPPINGS)
	{
		if (cursor >= end)
			break;
		find_mapping(job, cursor, ENGINE_ITERATOR);
		next = mapping->known && mapping->end < end ? mapping->end : end;
		if (!mapping->known || !(mapping->flags & VM_EXEC) || changes_silently(mapping))
			add_changed(job, cursor, next);
		cursor = next;
	}
	if (cursor < end)
		add_changed(job, cursor, end);
	if (job->changed_start > job->changed_end)
		job->changed_start = job->changed_end;
	return 0;
}

/*
 * Note what of a known region a call that is about to protect it can find changed. Writes from outside have to be
 * seen for that.
 */
static __always_inline void note_changed(struct page_job *job, const struct trace_target *target,
					 struct mprotect_args_t *arguments)
{
	__u64 length = page_align(arguments->length);
	const struct region_state *state;

	if (configured.flags & CONFIG_EXACT || !(configured.flags & CONFIG_OTHERS))
		return;
	state = region_at(target, arguments->address);
	if (!state || !state->whole || length > state->length)
		return;
	arguments->sequence = count_of_changes();
	find_changed(arguments->address, arguments->address + length);
	arguments->changed_start = job->changed_start;
	arguments->changed_end = job->changed_end;
}

static __always_inline int enter_mprotect(void *ctx, struct mprotect_args_t arguments,
					  const enum loop_engine engine)
{
	struct trace_target *target = traced_target();
	__u64 thread = bpf_get_current_pid_tgid();
	struct page_job *job = this_job();
	struct mapping_info *mapping;

	if (!target || !job)
		return 0;
	arguments.protection = effective_protection(arguments.protection);
	if (configured.flags & CONFIG_DEBUG)
		bpf_printk("PROT: 0x%llx | PID: %d", arguments.protection, (__u32)(thread >> 32));
	find_mapping(job, arguments.address, engine);
	mapping = &job->mapping;
	if (mapping->known) {
		arguments.previous_protection = mapping->flags & PROT_ALL;
		arguments.status = 0;
		if (mapping->end - arguments.address < arguments.length)
			arguments.status = STATUS_SEVERAL_MAPPINGS;
	}
	if (engine == ENGINE_ITERATOR && arguments.protection & PROT_EXEC)
		note_changed(job, target, &arguments);
	if ((protection_matters(arguments.protection) || arguments.previous_protection & PROT_EXEC) &&
	    bpf_map_update_elem(&mprotect_args, &thread, &arguments, BPF_ANY))
		count(COUNTER_ARGUMENTS_FULL, 1);
	/*
	 * What was written while it was writable and executable, or through another mapping; and what
	 * this process never made executable itself, because it inherited it.
	 */
	if (engine == ENGINE_ITERATOR && !(arguments.protection & PROT_EXEC) &&
	    (arguments.status & STATUS_SEVERAL_MAPPINGS ||
	     (arguments.previous_protection & PROT_EXEC &&
	      (arguments.previous_protection & PROT_WRITE || mapping->flags & VM_SHARED ||
	       !knows_region(target, arguments.address)))))
		look_before(ctx, job, arguments.address, arguments.address + page_align(arguments.length),
			    arguments.kind);
	return 0;
}

/* Execute was taken away. The bytes are those of the last event; hot regions only count it. */
static __always_inline void lost_execute(struct page_job *job)
{
	struct region_state *state;

	job->event.length = page_align(job->event.length);
	state = note_region(job);
	if (state && job->hot)
		coalesce(job, state);
	else
		send_event();
}

/* Put a finished mprotect or pkey_mprotect into the job's event. False: not of interest. */
static __always_inline bool join_mprotect(struct page_job *job, struct trace_target *target, __s64 result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct mprotect_args_t *arguments = bpf_map_lookup_elem(&mprotect_args, &thread);
	struct event_record *event = &job->event;

	if (!arguments)
		return false;
	begin_event(job, target, arguments->kind);
	event->result = result;
	event->header.address = arguments->address;
	event->length = arguments->length;
	event->protection = arguments->protection & PROT_ALL; /* there is PROT_GROWSDOWN, too */
	event->previous_protection = arguments->previous_protection;
	event->status = arguments->status;
	event->arguments[0] = arguments->address;
	event->arguments[1] = arguments->length;
	event->arguments[2] = arguments->protection;
	event->arguments[3] = arguments->key;
	/* Only if nobody else has had the lock since. This call has, and may have given it back. */
	if (!(arguments->sequence & 1) && count_of_changes() - arguments->sequence == (job->tree ? 1 : 2)) {
		job->changed_start = arguments->changed_start;
		job->changed_end = arguments->changed_end;
	}
	bpf_map_delete_elem(&mprotect_args, &thread);
	return true;
}

/* ---- mremap, shmat ------------------------------------------------------------------------- */

static __always_inline int enter_placing(struct placing_args_t arguments)
{
	__u64 thread = bpf_get_current_pid_tgid();

	if (!traced_target())
		return 0;
	if (bpf_map_update_elem(&placing_args, &thread, &arguments, BPF_ANY))
		count(COUNTER_ARGUMENTS_FULL, 1);
	return 0;
}

/* Put a finished mremap or shmat into the job's event, if what it placed is executable. */
static __always_inline bool join_placing(struct page_job *job, struct trace_target *target, __s64 result,
					 const enum loop_engine engine)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct placing_args_t *arguments = bpf_map_lookup_elem(&placing_args, &thread);
	struct event_record *event = &job->event;
	struct mapping_info *mapping = &job->mapping;
	struct placing_args_t taken;

	if (!arguments)
		return false;
	taken = *arguments;
	bpf_map_delete_elem(&placing_args, &thread);
	if (failed(result))
		return false;
	if (taken.result_at && !job->tree &&
	    bpf_probe_read_user(&result, sizeof(__u32), (void *)taken.result_at))
		return false;
	target->epoch = 0; /* pages came here from elsewhere, and bring their accessed bits along */
	find_mapping(job, result, engine);
	if (!mapping->known || !(mapping->flags & VM_EXEC))
		return false;
	begin_event(job, target, taken.kind);
	event->result = result;
	event->header.address = result;
	event->length = taken.kind == EVENT_MREMAP ? taken.arguments[2] : mapping->end - mapping->start;
	event->protection = mapping->flags & PROT_ALL;
	event->status = STATUS_PREVIOUS_UNKNOWN;
#pragma unroll
	for (int i = 0; i < 5; i++)
		event->arguments[i] = taken.arguments[i];
	return true;
}

/* ---- the exit of all these calls -------------------------------------------------------------- */

/*
 * A call whose entry was not noted: it was in flight when we attached, the map was full, or its
 * protection was of no interest. The registers still hold the arguments. False when it was not of
 * interest, or this kernel does not give the registers.
 */
static __always_inline bool join_unpaired(struct page_job *job, struct trace_target *target, __s64 number,
					  __s64 result)
{
	struct event_record *event = &job->event;
	struct pt_regs *registers;
	__u64 protection;

	if (!kernel_has_task_pt_regs() || is_compat_call())
		return false;
	registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	if (number != NR_MMAP && number != NR_MPROTECT && number != NR_PKEY_MPROTECT)
		return false;
	protection = effective_protection(PT_REGS_PARM3_CORE_SYSCALL(registers));
	if (!protection_matters(protection))
		return false;
	begin_event(job, target,
		    number == NR_MMAP       ? EVENT_MMAP
		    : number == NR_MPROTECT ? EVENT_MPROTECT
					    : EVENT_PKEY_MPROTECT);
	event->status = STATUS_PREVIOUS_UNKNOWN;
	event->result = result;
	event->arguments[0] = PT_REGS_PARM1_CORE_SYSCALL(registers);
	event->arguments[1] = PT_REGS_PARM2_CORE_SYSCALL(registers);
	event->arguments[2] = protection;
	event->arguments[3] = PT_REGS_PARM4_CORE_SYSCALL(registers);
	if (event->kind == EVENT_MMAP) {
		event->arguments[4] = PT_REGS_PARM5_CORE_SYSCALL(registers);
		event->status = 0;
	}
	event->header.address = event->kind == EVENT_MMAP && !failed(result) ? (__u64)result
									     : event->arguments[0];
	event->length = event->arguments[1];
	event->protection = protection & PROT_ALL;
	count(COUNTER_UNPAIRED, 1);
	return true;
}

/* Whether the exit of system call `number` can be one of interest. */
static __always_inline bool places_memory(__s64 number)
{
	if (is_compat_call())
		return number == COMPAT_MPROTECT || number == COMPAT_MMAP || number == COMPAT_OLD_MMAP ||
		       number == COMPAT_PKEY_MPROTECT || number == COMPAT_MREMAP || number == COMPAT_IPC ||
		       number == COMPAT_SHMAT;
	return number == NR_MPROTECT || number == NR_MMAP || number == NR_PKEY_MPROTECT ||
	       number == NR_MREMAP || number == NR_SHMAT;
}

/* A call of interest ends, and its event is in preparation: send it, with pages. */
static __always_inline void end_call(struct page_job *job, struct trace_target *target,
				     const enum loop_engine engine)
{
	note_caller(&job->event);
	if (is_compat_call())
		job->event.status |= STATUS_COMPAT;
	if (!event_matters(&job->event))
		return;
	job->may_wait = !leaves_work(engine);
	await_room(0);
	if (protection_matters(job->event.protection))
		finish_call(job, target, engine);
	else
		lost_execute(job);
}

/*
 * Exit of all calls. One program for all, because most of its load time is the verifier's
 * work on the page loop; a thread is inside at most one call, so the saved arguments say which.
 */
static __always_inline int exit_call(__s32 number, __s64 result, const enum loop_engine engine)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (!target || !job || !places_memory(number))
		return 0;
	if (!join_mprotect(job, target, result) && !join_mmap(job, target, result) &&
	    !join_placing(job, target, result, engine) && !join_unpaired(job, target, number, result))
		return 0;
	end_call(job, target, engine);
	return 0;
}

/* ---- munmap ------------------------------------------------------------------------------- */

/* At entry: the mapping is still there to be looked at. Plain data is no business of ours. */
static __always_inline int enter_munmap(void *ctx, __u64 address, __u64 length, const enum loop_engine engine)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();
	struct event_record *event;
	struct mapping_info *mapping;

	if (!target || !job)
		return 0;
	find_mapping(job, address, engine);
	mapping = &job->mapping;
	if (mapping->known && !(mapping->flags & VM_EXEC) && mapping->end - address >= length)
		return 0;
	begin_event(job, target, EVENT_MUNMAP);
	event = &job->event;
	event->header.address = address;
	event->length = page_align(length);
	event->arguments[0] = address;
	event->arguments[1] = length;
	event->status = STATUS_MAPPING_UNKNOWN | STATUS_PREVIOUS_UNKNOWN;
	if (mapping->known) {
		event->previous_protection = mapping->flags & PROT_ALL;
		event->status = 0;
		describe_backing(event, mapping);
		if (mapping->end - address < length)
			event->status |= STATUS_SEVERAL_MAPPINGS;
	}
	if (is_compat_call())
		event->status |= STATUS_COMPAT;
	note_caller(event);
	if (!event_matters(event))
		return 0;
	if (engine == ENGINE_ITERATOR)
		look_then_send(ctx, job, event->header.address, event->header.address + event->length);
	else
		send_event();
	return 0;
}

/* ---- the same by the 32-bit ABI --------------------------------------------------------------- */

#define IPC_SHMAT 21 /* include/uapi/linux/ipc.h; a version may stand in the upper half */

static __always_inline int enter_old_mmap(void *ctx, __u64 arguments_at, const enum loop_engine engine)
{
	__u32 arguments[6] = {};

	if (bpf_probe_read_user(arguments, sizeof(arguments), (void *)arguments_at))
		return 0;
	return enter_mmap(
		ctx,
		mmap_call(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]),
		engine);
}

/* int $0x80, and 32-bit programs: the tracepoints of single system calls do not see them. */
static __always_inline int enter_compat(void *ctx, __u64 number, const __u64 *arguments,
					const enum loop_engine engine)
{
	const __u64 first = arguments[0], second = arguments[1], third = arguments[2], fourth = arguments[3],
		    fifth = arguments[4];

	switch (number) {
	case COMPAT_OLD_MMAP:
		return enter_old_mmap(ctx, first, engine);
	case COMPAT_MMAP:
		return enter_mmap(ctx,
				  mmap_call(first, second, third, fourth, fifth, arguments[5] * PAGE_BYTES),
				  engine);
	case COMPAT_MPROTECT:
		return enter_mprotect(ctx, mprotect_call(EVENT_MPROTECT, first, second, third, -1), engine);
	case COMPAT_PKEY_MPROTECT:
		return enter_mprotect(ctx, mprotect_call(EVENT_PKEY_MPROTECT, first, second, third, fourth),
				      engine);
	case COMPAT_MUNMAP:
		return enter_munmap(ctx, first, second, engine);
	case COMPAT_MREMAP:
		return enter_placing((struct placing_args_t){
			.arguments = {first, second, third, fourth, fifth}, .kind = EVENT_MREMAP});
	case COMPAT_SHMAT:
		return enter_placing(
			(struct placing_args_t){.arguments = {first, second, third}, .kind = EVENT_SHMAT});
	case COMPAT_IPC:
		if ((__u16)first != IPC_SHMAT)
			return 0;
		return enter_placing((struct placing_args_t){
			.arguments = {second, fifth, third}, .kind = EVENT_SHMAT, .result_at = fourth});
	}
	return 0;
}

#endif
