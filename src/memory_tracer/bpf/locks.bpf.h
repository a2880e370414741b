/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The hook mm-lock: calls are seen by the lock of the address space that they change.
 *
 * A tracepoint of a system call puts every process of the machine on a slower way into the kernel. Those of
 * the lock cost nothing where no mapping changes, and see the calls of each ABI. Before the lock is asked
 * for, the arguments are saved and what the call is going to take away is looked at; when it is given back,
 * and still held, the call has done its work, and its pages are copied before any instruction of the process
 * can change them.
 *
 * The result is not known yet. What it says is read off the mappings, and where they are, off the search for
 * room.
 */
#ifndef LOCKS_BPF_H
#define LOCKS_BPF_H

#include "changes.bpf.h"

/* Where a search found room is not yet where a mapping begins that shall start at a huge page. */
#define HUGE_BYTES (2ULL << 20)

/* ---- the lock is asked for ------------------------------------------------------------------- */

static __always_inline bool is_mapped(__u64 address)
{
	struct page_job *job = this_job();

	if (!job)
		return false;
	find_mapping(job, address, ENGINE_ITERATOR);
	return job->mapping.known;
}

/*
 * What a call without an address to itself, or one that replaces what is there, finds is not an answer yet; but
 * where something is already mapped, a call that must not replace it fails. Afterwards both look the same.
 */
static __always_inline __u64 found_before(__u64 address, bool replaces)
{
	return address && !replaces && is_mapped(address) ? -EEXIST : 0;
}

/* Save the arguments of a call on the caller's own memory. Ends in a look, where one is due at once. */
static __always_inline void enter_call(void *ctx, const struct call *call)
{
	const __u64 *arguments = call->arguments;
	struct mmap_args_t mapping;

	if (call->compat) {
		enter_compat(ctx, call->number, arguments, ENGINE_ITERATOR);
		return;
	}
	switch (call->number) {
	case NR_MMAP:
		mapping = mmap_call(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
				    arguments[5]);
		if (arguments[3] & MAP_FIXED_NOREPLACE && arguments[2] & PROT_EXEC)
			mapping.found = found_before(arguments[0], false);
		enter_mmap(ctx, mapping, ENGINE_ITERATOR);
		break;
	case NR_MPROTECT:
		enter_mprotect(ctx,
			       mprotect_call(EVENT_MPROTECT, arguments[0], arguments[1], arguments[2], -1),
			       ENGINE_ITERATOR);
		break;
	case NR_PKEY_MPROTECT:
		enter_mprotect(ctx,
			       mprotect_call(EVENT_PKEY_MPROTECT, arguments[0], arguments[1], arguments[2],
					     arguments[3]),
			       ENGINE_ITERATOR);
		break;
	case NATIVE_MUNMAP:
		enter_munmap(ctx, arguments[0], arguments[1], ENGINE_ITERATOR);
		break;
	case NR_MREMAP:
		enter_placing((struct placing_args_t){
			.arguments = {arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]},
			.kind = EVENT_MREMAP});
		break;
	case NR_SHMAT:
		enter_placing((struct placing_args_t){
			.arguments = {arguments[0], arguments[1], arguments[2]},
			.kind = EVENT_SHMAT,
			.found = found_before(arguments[1], arguments[2] & SHM_REMAP)});
		break;
	}
}

/*
 * Whether the recorder asks for a step of a pass over the process whose lock is asked for: that is what it
 * reads from into so many pieces.
 */
static __always_inline bool asks_for_pass(const struct call *call)
{
	return bpf_get_current_pid_tgid() >> 32 == configured.recorder && !call->compat &&
	       call->number == NATIVE_PROCESS_VM_READV && call->arguments[2] == PASS_PIECES;
}

/* ---- room was found --------------------------------------------------------------------------- */

static __always_inline int area_found(__u64 address)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct placing_args_t *placing;
	struct mmap_args_t *mapping;

	if (!traced_target())
		return 0;
	mapping = bpf_map_lookup_elem(&mmap_args, &thread);
	if (mapping)
		mapping->found = address;
	placing = bpf_map_lookup_elem(&placing_args, &thread);
	if (placing)
		placing->found = address;
	return 0;
}

/* ---- the lock is given back ------------------------------------------------------------------- */

static __always_inline bool is_executable_at(struct page_job *job, __u64 address)
{
	find_mapping(job, address, ENGINE_ITERATOR);
	return job->mapping.known && job->mapping.flags & VM_EXEC;
}

/*
 * Where a call placed memory for which room was found at `found` (0: nobody searched, it is at `wanted`).
 * The room for what shall be aligned to huge pages is larger, and free where it begins (mm/huge_memory.c,
 * __thp_get_unmapped_area).
 */
static __always_inline __s64 placed_at(struct page_job *job, __u64 wanted, __u64 found, __u64 offset)
{
	__u64 moved = found + ((offset - found) & (HUGE_BYTES - 1));

	if (failed(found))
		return found;
	if (!found)
		return is_executable_at(job, wanted) ? wanted : -ENOMEM;
	if (is_executable_at(job, found))
		return found;
	if (job->mapping.known)
		return -ENOMEM; /* it is there, and not executable: what lies beyond is something else */
	if (is_executable_at(job, moved))
		return moved;
	return is_executable_at(job, found + HUGE_BYTES) ? found + HUGE_BYTES : -ENOMEM;
}

/*
 * What an mprotect returns, judged by the first mapping that is not as it was to be: there is none (ENOMEM),
 * or it could not be made so (EACCES).
 */
static __always_inline __s64 protected_as(struct page_job *job, __u64 address, __u64 length, __u64 protection)
{
	__s64 result = 0;

	job->cursor = address;
	job->end = address + page_align(length);
	find_mapping(job, address, ENGINE_ITERATOR); /* most calls are on one */
	if (job->mapping.known && job->end <= job->mapping.end)
		return (job->mapping.flags ^ protection) & PROT_ALL ? -EACCES : 0;
	bpf_repeat(PARTIAL_MAPPINGS)
	{
		if (job->cursor >= job->end)
			break;
		find_mapping(job, job->cursor, ENGINE_ITERATOR);
		if (!job->mapping.known) {
			result = -ENOMEM;
			break;
		}
		if ((job->mapping.flags ^ protection) & PROT_ALL) {
			result = -EACCES;
			break;
		}
		job->cursor = job->mapping.end;
	}
	return result;
}

/* The result of the current thread's call, as far as its mappings tell; 0 when it is none of interest. */
static __always_inline __s64 read_result(struct page_job *job)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct mprotect_args_t *protecting = bpf_map_lookup_elem(&mprotect_args, &thread);
	struct placing_args_t *placing;
	struct mmap_args_t *mapping;
	__s64 result;

	if (protecting)
		return protected_as(job, protecting->address, protecting->length, protecting->protection);
	mapping = bpf_map_lookup_elem(&mmap_args, &thread);
	if (mapping)
		return placed_at(job, page_align(mapping->address),
				 mapping->flags & MAP_FIXED ? 0 : mapping->found, mapping->offset);
	placing = bpf_map_lookup_elem(&placing_args, &thread);
	if (!placing)
		return 0;
	if (placing->kind == EVENT_SHMAT)
		return placed_at(job, placing->arguments[1], placing->found, 0);
	result = placed_at(
		job, placing->arguments[3] & MREMAP_FIXED ? placing->arguments[4] : placing->arguments[0],
		placing->found, 0);
	/* What could not grow is still there. */
	if (!failed(result) && job->mapping.end - result < page_align(placing->arguments[2]))
		return -ENOMEM;
	return result;
}

static __always_inline int lock_released(struct mm_struct *mm)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();
	struct call call = {};
	__s64 result;

	if (!target || !job)
		return 0;
	read_call(&call);
	if (!places_memory(call.number))
		return 0;
	use_tree(job, mm);
	result = read_result(job);
	if (join_mprotect(job, target, result) || join_mmap(job, target, result) ||
	    join_placing(job, target, result, ENGINE_ITERATOR))
		end_call(job, target, ENGINE_ITERATOR);
	job->tree = 0;
	return 0;
}

#endif
