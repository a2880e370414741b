/* SPDX-License-Identifier: GPL-2.0-only */
/* Who is traced, and the steps of a process's life. */
#ifndef PROCESS_BPF_H
#define PROCESS_BPF_H

#include "pages.bpf.h"
#include "scope.bpf.h"

static __always_inline __u64 start_time_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline bool comm_matters(const char *comm)
{
	if (configured.flags & CONFIG_ANY_COMM)
		return true;
	for (int i = 0; i < COMM_BYTES; i++) {
		if (comm[i] != configured.comm[i])
			return false;
		if (!comm[i])
			break;
	}
	return true;
}

/* The filters that are about who calls and which kind of event. */
static __always_inline bool event_matters(const struct event_record *event)
{
	if (!(configured.event_mask >> event->kind & 1))
		return false;
	if (!(configured.flags & CONFIG_ANY_UID) && event->uid != configured.uid)
		return false;
	return comm_matters(event->comm);
}

/* What a request for `protection` gives the current process (READ_IMPLIES_EXEC, personality(2)). */
static __always_inline __u64 effective_protection(__u64 protection)
{
	if (protection & PROT_READ && READ_CURRENT(personality) & READ_IMPLIES_EXEC)
		protection |= PROT_EXEC;
	return protection;
}

/* arch/x86/include/asm/thread_info.h */
#define TS_COMPAT 0x2
struct thread_info___x86 {
	__u32 status;
} __attribute__((preserve_access_index));
struct task_struct___x86 {
	struct thread_info___x86 thread_info;
} __attribute__((preserve_access_index));

/* Whether the system call that the current thread is in came by the 32-bit ABI. */
static __always_inline bool is_compat_call(void)
{
	struct task_struct___x86 *x86 = NULL;

	if (!bpf_core_field_exists(x86->thread_info.status))
		return false;
	if (kernel_has_task_btf()) {
		x86 = (void *)this_task();
		return x86->thread_info.status & TS_COMPAT;
	}
	x86 = (void *)bpf_get_current_task();
	return BPF_CORE_READ(x86, thread_info.status) & TS_COMPAT;
}

static __always_inline bool protection_matters(__u64 protection)
{
	return (protection & configured.protection_mask) == configured.protection_value;
}

/* A thread's id as its process itself sees it, in the innermost PID namespace; `outer` in ours. */
static __always_inline __u32 inner_id(struct task_struct *task, const bool known, __u32 outer)
{
	__u32 level = READ_BY(known, task, thread_pid, level);
	struct upid inner = {};
	struct pid *pid;

	if (!level)
		return outer;
	pid = BPF_CORE_READ(task, thread_pid);
	bpf_core_read(&inner, sizeof(inner), &pid->numbers[level]);
	return inner.nr;
}

/* Of the thread that the event's header names. */
static __always_inline void note_inner_ids(struct event_record *event, struct task_struct *task,
					   const bool known)
{
	event->namespace_pid = inner_id(READ_BY(known, task, group_leader), known, event->header.pid);
	event->namespace_tid = inner_id(task, known, event->header.tid);
}

/* Start the current thread's event over: everything but what `kind` itself is about. */
static __always_inline void begin_event(struct page_job *job, struct trace_target *target, __u32 kind)
{
	struct event_record *event = &job->event;
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	__builtin_memset(event, 0, sizeof(*event));
	__builtin_memset(&job->outcome, 0, sizeof(job->outcome));
	job->event_sent = 0;
	job->missing_reason = 0;
	job->hot = 0;
	job->epoch = target->epoch;
	job->compared = 0;
	job->discovered = 0;
	job->listing = 0;
	job->may_wait = 0;
	job->waited_ns = 0;
	job->remote = 0;
	job->passing = 0;
	job->silent = 0;
	job->may_fetch = 0;
	job->overflowed = 0;
	job->changed_start = ~0ULL;
	job->changed_end = 0;
	job->awaits_calls = 0;
	job->request.runs = 0;
	job->request.pages = 0;
	job->repeat_pages = 0;
	job->sent_sequence = 0;
	event->header.version = WIRE_VERSION;
	event->header.type = RECORD_EVENT;
	event->header.size = sizeof(*event);
	event->header.timestamp_ns = bpf_ktime_get_ns();
	if (!target->start_time_ns)
		target->start_time_ns = READ_CURRENT(group_leader, start_boottime);
	event->header.start_time_ns = target->start_time_ns;
	event->header.pid = pid_tgid >> 32;
	event->header.tid = pid_tgid;
	event->kind = kind;
	event->uid = bpf_get_current_uid_gid();
	event->cgroup_id = bpf_get_current_cgroup_id();
	if (kernel_has_task_btf())
		note_inner_ids(event, this_task(), true);
	else
		note_inner_ids(event, (void *)bpf_get_current_task(), false);
	bpf_get_current_comm(event->comm, sizeof(event->comm));
}

/* The event is about the process of `task`, and not about the caller. */
static __always_inline void describe_other(struct event_record *event, struct task_struct *task)
{
	event->header.pid = BPF_CORE_READ(task, tgid);
	event->header.tid = BPF_CORE_READ(task, pid);
	event->uid = BPF_CORE_READ(task, cred, uid.val);
	event->cgroup_id = 0;
	note_inner_ids(event, task, false);
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), &task->comm);
}

/* Where in the target's code the call came from. */
static __always_inline void note_caller(struct event_record *event)
{
	struct pt_regs *registers;

	if (!kernel_has_task_pt_regs())
		return;
	registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	event->caller_ip = PT_REGS_IP(registers);
	event->caller_sp = PT_REGS_SP(registers);
}

/* Whether process `pid` is the recorder, or a child of it that has not executed a program. */
static __always_inline bool is_own(const struct trace_target *target, __u32 pid)
{
	return configured.flags & CONFIG_SCOPE && (target->flags & TARGET_OWN || pid == configured.recorder);
}

static __always_inline void on_fork(struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_pid = BPF_CORE_READ(parent, tgid), pid = BPF_CORE_READ(child, tgid);
	struct trace_target *target = decided_target();
	struct trace_target new_target = {};
	struct page_job *job = this_job();
	struct event_record *event;

	if (!target || !job)
		return;
	if (parent_pid != pid && is_own(target, parent_pid)) {
		new_target.flags = TARGET_OUTSIDE | TARGET_OWN;
		bpf_map_update_elem(&targets, &pid, &new_target, BPF_ANY);
	}
	if (target->flags & TARGET_OUTSIDE)
		return;
	if (parent_pid != pid) {
		if (!(configured.flags & (CONFIG_FOLLOW | CONFIG_SCOPE)))
			return;
		new_target.start_time_ns = BPF_CORE_READ(child, start_boottime);
		new_target.flags = target->flags;
		new_target.cgroup_id = target->cgroup_id;
		new_target.uid = target->uid;
		new_target.generation = target->generation;
		if (bpf_map_update_elem(&targets, &pid, &new_target, BPF_ANY)) {
			count(COUNTER_TARGETS_FULL, 1);
			return;
		}
		target = &new_target;
	}
	if (target->flags & TARGET_WAITS_FOR_EXEC)
		return;
	begin_event(job, target, parent_pid != pid ? EVENT_FORK : EVENT_THREAD);
	event = &job->event;
	event->header.pid = pid;
	event->header.tid = BPF_CORE_READ(child, pid);
	event->parent_pid = parent_pid;
	note_inner_ids(event, child, false);
	if (event_matters(event))
		send_event();
}

/* Send the new program's arguments, as far as they fit. */
static __always_inline void send_command_line(const struct record_header *owner, struct mm_struct *mm)
{
	__u64 start = BPF_CORE_READ(mm, arg_start), length = BPF_CORE_READ(mm, arg_end) - start;
	struct text_record *record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);

	if (!record) {
		next_sequence();
		count(COUNTER_LOST_TEXTS, 1);
		return;
	}
	__builtin_memset(record, 0, sizeof(*record));
	fill_header(&record->header, owner, RECORD_TEXT, sizeof(*record));
	record->kind = TEXT_COMMAND_LINE;
	if (length > TEXT_BYTES)
		length = TEXT_BYTES;
	if (!bpf_probe_read_user(record->text, length, (void *)start))
		record->length = length;
	bpf_ringbuf_submit(record, submit_flags());
}

/*
 * job->mapping is one that execve made. Its pages come with the file (the vDSO's with the kernel),
 * by reference; those of a memfd, a deleted file or an executable stack are looked at afterwards.
 */
__noinline int send_exec_mapping(void)
{
	struct page_job *job = this_job();
	struct mapping_info *mapping;
	struct event_record *event;

	if (!job)
		return 0;
	mapping = &job->mapping;
	event = &job->event;
	event->kind = EVENT_EXEC_MAPPING;
	event->header.address = mapping->start;
	event->length = mapping->end - mapping->start;
	event->page_count = event->length / PAGE_BYTES;
	event->protection = mapping->flags & PROT_ALL;
	event->status = STATUS_PREVIOUS_UNKNOWN;
	event->inode = 0;
	event->device = 0;
	event->file_offset = 0;
	describe_backing(event, mapping);
	if (!protection_matters(event->protection) || !event_matters(event))
		return 0;
	if (event->device && !mapping->unlinked && configured.flags & CONFIG_EXCLUDE_FILE_BACKED)
		return 0;
	if (event->device)
		send_path(mapping->file, event->inode, event->device);
	job->event_sent = 0;
	job->missing_reason = 0;
	__builtin_memset(&job->outcome, 0, sizeof(job->outcome));
	if (mapping->special || (event->device && !mapping->by_value))
		job->outcome.in_file = event->page_count;
	else if (!event->device && !mapping->touched)
		job->outcome.absent = event->page_count;
	else
		event->page_count = 0; /* a look follows; see process_exec__vmas */
	send_event();
	send_outcome(job);
	return 0;
}

/* An address space after execve holds about ten mappings; this bounds hostile ELF files. */
#define EXEC_MAPPINGS 512

static __always_inline void send_exec_mappings(struct page_job *job, struct task_struct *task)
{
	struct bpf_iter_task_vma___open it;
	struct vm_area_struct *vma;

	job->mappings_left = EXEC_MAPPINGS; /* not on the stack: each value would be a state to verify */
	if (walk_mappings(job, &it, task, 0))
		count(COUNTER_UNLISTED, 1);
	while ((vma = bpf_iter_task_vma_next(&it))) {
		if (!(vma->vm_flags & VM_EXEC))
			continue;
		if (!job->mappings_left) {
			count(COUNTER_UNLISTED, 1);
			break;
		}
		job->mappings_left--;
		job->vma = (__u64)vma;
		note_mapping();
		send_exec_mapping();
	}
	bpf_iter_task_vma_destroy(&it);
}

/* Without a VMA iterator user space lists the mappings, when it sees STATUS_MAPPINGS_INCOMPLETE. */
static __always_inline void on_exec(struct task_struct *task, const bool has_vma_iterator)
{
	struct page_job *job = this_job();
	struct trace_target *target;
	struct event_record *event;
	struct mm_struct *mm;
	struct file *file;

	if (configured.flags & CONFIG_SCOPE)
		decide(bpf_get_current_task(), OCCASION_EXEC);
	target = current_target();
	if (!target || target->flags & TARGET_OUTSIDE || !job)
		return;
	target->flags &= ~TARGET_WAITS_FOR_EXEC;
	begin_event(job, target, EVENT_EXEC);
	event = &job->event;
	mm = BPF_CORE_READ(task, mm);
	file = BPF_CORE_READ(mm, exe_file);
	event->inode = BPF_CORE_READ(file, f_inode, i_ino);
	event->device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
	if (!BPF_CORE_READ(file, f_inode, i_nlink))
		event->status |= STATUS_UNLINKED;
	if (!has_vma_iterator)
		event->status |= STATUS_MAPPINGS_INCOMPLETE;
	event->parent_pid = BPF_CORE_READ(task, real_parent, tgid);
	send_path((__u64)file, event->inode, event->device);
	if (event_matters(event)) {
		send_event();
		send_command_line(&event->header, mm);
	}
	if (has_vma_iterator)
		send_exec_mappings(job, task);
}

#endif
