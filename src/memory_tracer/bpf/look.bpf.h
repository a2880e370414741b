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

#include "fetch.bpf.h"

/* Mappings looked at per occasion; a JVM has some dozens that are executable. */
#define LOOK_MAPPINGS 4096

/* One program for all occasions, called at the end of others: it is a page loop of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} look_program SEC(".maps");

/* The same for looks at another process, from the hook mm-lock: they are of another type of program. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} look_at_others SEC(".maps");

/* Whether the mapping can hold bytes that nobody has seen yet. */
static __always_inline bool can_hide_bytes(const struct mapping_info *mapping)
{
	if (!(mapping->flags & VM_EXEC))
		return false;
	/* Of the kernel's own (the vDSO) and of files a process has copies of the pages it wrote to. */
	if (mapping->touched)
		return true;
	if (!mapping->device)
		return mapping->flags & VM_SHARED && !mapping->special;
	return mapping->unlinked || mapping->memory_file || mapping->changed;
}

/* Whether bytes of the executable mapping may change without a call: it can be written to, here or elsewhere. */
static __always_inline bool changes_silently(const struct mapping_info *mapping)
{
	return mapping->flags & (VM_WRITE | VM_SHARED) || mapping->unlinked || mapping->memory_file ||
	       mapping->changed;
}

/* The target has memory that can change without a call. Its own thread waits until calls are seen. */
static __always_inline void note_silent(struct page_job *job, struct trace_target *target)
{
	target->flags |= TARGET_CHANGES;
	if (!(configured.flags & CONFIG_ALL_CALLS) || all_calls.seen)
		return;
	all_calls.wanted = 1;
	wake_reader();
	job->awaits_calls = configured.wait_ns && !job->remote && !job->passing;
}

/* What is left of a recent file's bytes after so many pages is left to user space: the file is there. */
#define RECENT_PAGES 4096

static __always_inline void limit_recent(struct page_job *job)
{
	const struct mapping_info *mapping = &job->mapping;

	if (mapping->recent && !mapping->unlinked && !mapping->memory_file && job->pages_left > RECENT_PAGES)
		job->pages_left = RECENT_PAGES;
}

/* Look at job->mapping, as far as it lies within the range asked for. */
__noinline int look_at_mapping(void)
{
	struct page_job *job = this_job();
	struct event_record *event;
	struct mapping_info *mapping;
	__u32 left, allowed;
	__u64 start, end;

	if (!job)
		return 0;
	mapping = &job->mapping;
	event = &job->event;
	await_room(0);
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
	job->cursor = job->first = start;
	job->end = end;
	job->event_sent = 0;
	job->missing_reason = 0;
	job->sent_sequence = 0;
	__builtin_memset(&job->outcome, 0, sizeof(job->outcome));
	left = job->pages_left;
	limit_recent(job);
	allowed = job->pages_left;
	take_pages(job, ENGINE_ITERATOR);
	job->pages_left = left - (allowed - job->pages_left);
	job->look_captured += job->outcome.captured;
	if (job->event_sent && !job->passing)
		list_absent(job, 0, ENGINE_ITERATOR);
	send_outcome(job);
	return 0;
}

/* Pages compared in one step of a pass, while which nothing else runs on this CPU. */
#define PASS_PAGES 512
#define PASS_SKIPS 64

/*
 * Pages that passes and looks before just any call may send: so many per millisecond, and saved up to
 * so many. A heap that changes all the time shall not flood the capture.
 */
#define PASS_RATE 8
#define PASS_CREDIT 4096

static __always_inline bool may_pass(struct trace_target *target)
{
	__u64 elapsed = (bpf_ktime_get_ns() - target->pass_ns) / 1000000;

	target->pass_credit += elapsed * PASS_RATE;
	if (target->pass_credit > PASS_CREDIT)
		target->pass_credit = PASS_CREDIT;
	target->pass_ns += elapsed * 1000000; /* the rest counts the next time */
	return target->pass_credit > 0;
}

/* A look before just any system call compares so many pages; of a larger heap, passes see the rest. */
#define CALL_PAGES 4096

/* So much time can be saved up for them: 5 ms. */
#define CALL_CREDIT_NS 5000000

/* What to do about a mapping. */
enum choice {
	CHOICE_LOOK = 1 << 0,
	CHOICE_STOP = 1 << 1,
};

/* Narrow the look down to the next pages of job->mapping, and note where the pass goes on. */
__noinline int choose_pages(void)
{
	struct page_job *job = this_job();
	struct trace_target *target;
	__u64 end, start;
	__u32 pid;

	if (!job)
		return CHOICE_STOP;
	pid = job->look_pid;
	target = bpf_map_lookup_elem(&targets, &pid);
	if (!target)
		return CHOICE_STOP;
	end = job->mapping.end;
	start = job->look_start > job->mapping.start ? job->look_start : job->mapping.start;
	if (!needs_page_cache(&job->mapping)) {
#pragma clang loop unroll(disable)
		for (int i = 0; i < PASS_SKIPS && start < end; i++) {
			if (read_entries(group_of(start)))
				break;
			start = after_span(job, start);
		}
	}
	job->look_start = start;
	job->look_end = start + PASS_PAGES * PAGE_BYTES;
	target->pass_cursor = job->look_end < end ? job->look_end : end;
	return start < end ? CHOICE_LOOK | CHOICE_STOP : CHOICE_STOP;
}

/* Decide about the mapping of job->vma, and make it job->mapping. */
__noinline int choose_mapping(void)
{
	struct page_job *job = this_job();
	struct mapping_info *mapping;

	if (!job)
		return CHOICE_STOP;
	mapping = &job->mapping;
	note_mapping();
	if (!job->mappings_left) {
		count(COUNTER_UNLISTED, 1);
		return CHOICE_STOP;
	}
	job->mappings_left--;
	if (changes_silently(mapping))
		job->found_silent = 1;
	else if (job->silent)
		return 0;
	if (!can_hide_bytes(mapping) && !(job->look_before == EVENT_EXEC_MAPPING && mapping->recent))
		return 0;
	return job->passing ? choose_pages() : CHOICE_LOOK;
}

/*
 * How often the lock is looked at: some 300 microseconds in all. Longer would not help: who holds the lock
 * then may be waiting for this CPU.
 */
#define LOCK_TRIES 16
#define LOCK_ROUNDS 1024
#define WRITER_LOCKED 1 /* RWSEM_WRITER_LOCKED, kernel/locking/rwsem.c */

/* Returns zero when nobody changes the mappings. */
__noinline int is_locked(void)
{
	struct page_job *job = this_job();
	struct mm_struct *mm;

	if (!job)
		return 0;
	mm = (void *)job->address_space;
#pragma clang loop unroll(disable)
	for (int i = 0; i < LOCK_TRIES; i++) {
		if (!(BPF_CORE_READ(mm, mmap_lock.count.counter) & WRITER_LOCKED))
			return 0;
	}
	return 1;
}

/* Mappings are walked only while nobody changes them: give another thread time to be done. */
static __always_inline void await_lock(void)
{
	bpf_repeat(LOCK_ROUNDS)
	{
		if (!is_locked())
			break;
	}
}

/*
 * Look (at `others`, too, if this type of program may) at everything executable in [job->look_start, job->look_end). Then send job->closing, the
 * event this look comes before, if there is one; the end of a process also ends its tracing.
 */
static __always_inline int look(const bool others)
{
	struct bpf_iter_task_vma___open it;
	struct page_job *job = this_job();
	struct trace_target *target;
	struct vm_area_struct *vma;
	struct task_struct *task;
	struct mm_struct *mm;
	bool remote, passing, silent;
	__u32 pid;
	bool missed;
	int choice, error;

	if (!job)
		return 0;
	pid = job->look_pid;
	remote = pid != bpf_get_current_pid_tgid() >> 32;
	target = bpf_map_lookup_elem(&targets, &pid);
	if (!target)
		return 0;
	if (others && configured.flags & CONFIG_OTHERS)
		task = remote ? bpf_task_from_pid(job->look_tid)
			      : bpf_task_acquire(bpf_get_current_task_btf());
	else
		task = bpf_get_current_task_btf();
	if (!task)
		return 0;
	if (!target->start_time_ns)
		target->start_time_ns = start_time_of(task);
	job->tree = 0;
	passing = job->passing;
	silent = job->silent;
	begin_event(job, target, EVENT_LOOK);
	note_caller(&job->event);
	job->remote = remote;
	job->passing = passing;
	job->may_wait = !remote && !passing;
	job->silent = silent;
	job->found_silent = 0;
	job->look_captured = 0;
	if (remote)
		describe_other(&job->event, task);
	mm = BPF_CORE_READ(task, mm);
	job->page_tables = mm ? (__u64)BPF_CORE_READ(mm, pgd) : 0;
	job->address_space = (__u64)mm;
	if (mm)
		await_lock();
	job->hot = 1;
	job->epoch = 0; /* no call has just flushed the translations */
	job->pages_left = silent ? CALL_PAGES : configured.page_limit;
	job->mappings_left = LOOK_MAPPINGS;
	if (passing)
		target->pass_cursor = 0; /* unless something is left */
	error = walk_mappings(job, &it, task, job->look_start);
	missed = error && error != -ENOENT; /* there is no memory */
	if (missed && !comes_again(job))
		count(COUNTER_MISSED_LOOKS, 1);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		if (vma->vm_start >= job->look_end)
			break;
		if (!(vma->vm_flags & VM_EXEC))
			continue;
		if (job->look_writes)
			target->written = 1;
		job->vma = (__u64)vma;
		choice = choose_mapping();
		if (choice & CHOICE_LOOK)
			look_at_mapping();
		if (choice & CHOICE_STOP)
			break;
	}
	bpf_iter_task_vma_destroy(&it);
	if (passing || silent)
		target->pass_credit -= job->look_captured;
	if (silent)
		target->call_credit -= bpf_ktime_get_ns() - target->call_ns;
	if (job->found_silent)
		note_silent(job, target);
	else if (silent && !missed)
		target->flags &= ~TARGET_CHANGES;
	if (others && configured.flags & CONFIG_OTHERS)
		bpf_task_release(task);
	/* What this kernel has no function for must not be reachable, even where it is never reached. */
	if (leaves_work(ENGINE_ITERATOR) && job->awaits_calls)
		leave_wait(job);
	if (!job->has_closing)
		return 0;
	job->event = job->closing;
	job->event.header.timestamp_ns = bpf_ktime_get_ns(); /* it happens after the look */
	job->event_sent = 0;
	await_room(0);
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
	job->look_writes = 0;
	job->passing = 0;
	job->silent = 0;
	job->look_pid = bpf_get_current_pid_tgid() >> 32;
	job->has_closing = 0;
}

/* Whether there is something to look at before each system call of the target, and time left for it. */
static __always_inline bool may_look_before_call(struct trace_target *target)
{
	__u64 now;

	if (!(target->flags & TARGET_CHANGES))
		return false;
	now = bpf_ktime_get_ns();
	target->call_credit += (now - target->call_ns) * configured.call_share / 100;
	if (target->call_credit > CALL_CREDIT_NS || configured.call_share >= 100)
		target->call_credit = CALL_CREDIT_NS;
	target->call_ns = now;
	return target->call_credit > 0 && may_pass(target);
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
