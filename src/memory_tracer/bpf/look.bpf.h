/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Looking once more: at executable memory right before it goes away, and right after execve made it.
 *
 * Memory that is writable and executable at once changes without any call. What it held can still
 * be seen when it is unmapped, loses execute permission, or its process executes another program
 * or ends. Pages are compared with what was last sent, so a look costs a record only where something
 * is new.
 */
#ifndef LOOK_BPF_H
#define LOOK_BPF_H

#include "process.bpf.h"

/* Mappings looked at per occasion; a JVM has some dozens that are executable. */
#define LOOK_MAPPINGS 4096

/* One program for all occasions, called at the end of others: it is a page loop of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} look_program SEC(".maps");

/* Whether the mapping can hold bytes that nobody has seen yet. */
static __always_inline bool can_hide_bytes(const struct mapping_info *mapping)
{
	if (!(mapping->flags & VM_EXEC))
		return false;
	/* Of the kernel's own (the vDSO) and of files a process has copies of the pages it wrote to. */
	if (mapping->touched)
		return true;
	return mapping->device ? mapping->by_value : mapping->flags & VM_SHARED && !mapping->special;
}

/* Look at job->mapping, as far as it lies within the range asked for. */
__noinline int look_at_mapping(void)
{
	struct page_job *job = this_job();
	struct event_record *event;
	struct mapping_info *mapping;
	__u64 start, end;

	if (!job)
		return 0;
	mapping = &job->mapping;
	event = &job->event;
	start = mapping->start > job->look_start ? mapping->start : job->look_start;
	end = mapping->end < job->look_end ? mapping->end : job->look_end;
	if (start >= end)
		return 0;
	event->kind = EVENT_LOOK;
	event->header.address = start;
	event->length = end - start;
	event->page_count = event->length / PAGE_BYTES;
	event->protection = event->previous_protection = mapping->flags & PROT_ALL;
	event->status = STATUS_HOT;
	event->inode = 0;
	event->device = 0;
	event->file_offset = 0;
	event->arguments[LOOK_BEFORE] = job->look_before;
	event->arguments[LOOK_NUMBER] = job->look_call;
	event->arguments[LOOK_COMPAT] = job->look_compat;
	event->arguments[LOOK_CALLER] = bpf_get_current_pid_tgid() >> 32;
	describe_backing(event, mapping);
	if (!event_matters(event))
		return 0;
	if (event->device)
		send_path(mapping->file, event->inode, event->device);
	job->cursor = start;
	job->end = end;
	job->event_sent = 0;
	job->missing_reason = 0;
	__builtin_memset(&job->outcome, 0, sizeof(job->outcome));
	take_pages(job, ENGINE_ITERATOR);
	if (job->event_sent)
		list_absent(job, 0, ENGINE_ITERATOR);
	send_outcome(job);
	return 0;
}

/*
 * Look at everything executable in [job->look_start, job->look_end). Then send job->closing, the
 * event this look comes before, if there is one; the end of a process also ends its tracing.
 */
static __always_inline int look(void)
{
	struct bpf_iter_task_vma___open it;
	struct page_job *job = this_job();
	struct trace_target *target;
	struct vm_area_struct *vma;
	struct task_struct *task;
	struct mm_struct *mm;
	bool remote;
	__u32 pid;

	if (!job)
		return 0;
	pid = job->look_pid;
	remote = pid != bpf_get_current_pid_tgid() >> 32;
	target = bpf_map_lookup_elem(&targets, &pid);
	if (!target)
		return 0;
	if (configured.flags & CONFIG_OTHERS)
		task = remote ? bpf_task_from_pid(job->look_tid)
			      : bpf_task_acquire(bpf_get_current_task_btf());
	else
		task = bpf_get_current_task_btf();
	if (!task)
		return 0;
	if (!target->start_time_ns)
		target->start_time_ns = start_time_of(task);
	begin_event(job, target, EVENT_LOOK);
	note_caller(&job->event);
	job->remote = remote;
	if (remote)
		describe_other(&job->event, task);
	mm = BPF_CORE_READ(task, mm);
	job->page_tables = mm ? (__u64)BPF_CORE_READ(mm, pgd) : 0;
	job->hot = 1;
	job->epoch = 0; /* no call has just flushed the translations */
	job->pages_left = configured.page_limit;
	job->mappings_left = LOOK_MAPPINGS;
	bpf_iter_task_vma_new(&it, task, job->look_start);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		struct mapping_info mapping = {};

		if (vma->vm_start >= job->look_end)
			break;
		if (!(vma->vm_flags & VM_EXEC))
			continue;
		if (!job->mappings_left) {
			count(COUNTER_UNLISTED, 1);
			break;
		}
		job->mappings_left--;
		read_mapping(vma, &mapping);
		if (!can_hide_bytes(&mapping))
			continue;
		job->mapping = mapping;
		look_at_mapping();
	}
	bpf_iter_task_vma_destroy(&it);
	if (configured.flags & CONFIG_OTHERS)
		bpf_task_release(task);
	if (!job->has_closing)
		return 0;
	job->event = job->closing;
	job->event.header.timestamp_ns = bpf_ktime_get_ns(); /* it happens after the look */
	job->event_sent = 0;
	if (event_matters(&job->event))
		send_event();
	if (job->closing.kind == EVENT_EXIT)
		bpf_map_delete_elem(&targets, &pid);
	return 0;
}

/* Say what the program that is called next shall look at: the caller's [start, end). */
static __always_inline void ask_for_look(struct page_job *job, __u64 start, __u64 end, __u32 before)
{
	job->look_start = start;
	job->look_end = end;
	job->look_before = before;
	job->look_call = 0;
	job->look_compat = 0;
	job->look_pid = bpf_get_current_pid_tgid() >> 32;
	job->has_closing = 0;
}

/* Ask for a look at [start, end) before `before`. The program that calls this ends here. */
static __always_inline void look_before(void *ctx, struct page_job *job, __u64 start, __u64 end, __u32 before)
{
	ask_for_look(job, start, end, before);
	bpf_tail_call(ctx, &look_program, 0);
}

/* The same, with the event in preparation sent after it; at once, if this kernel cannot look. */
static __always_inline void look_then_send(void *ctx, struct page_job *job, __u64 start, __u64 end)
{
	ask_for_look(job, start, end, job->event.kind);
	job->closing = job->event;
	job->has_closing = 1;
	bpf_tail_call(ctx, &look_program, 0);
	if (event_matters(&job->event))
		send_event();
}

#endif
