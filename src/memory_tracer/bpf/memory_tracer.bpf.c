// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures the calls that make memory executable, and the bytes they make executable.
 *
 * Entry of a call saves its arguments, exit joins them with the result, then the pages of the
 * range go to user space one by one through the `events` ring buffer. docs/ebpf.md tells the
 * whole story; the headers beside this file hold the parts in the order they are included.
 *
 * Programs whose names end in __bounded, __callback or __iterator exist once for each way to
 * repeat work that some kernel has (see enum loop_engine); the loader loads one of the three.
 */
#include "sample.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Round to whole pages as the kernel does, without wrapping. 0: nothing to look at. */
static __always_inline __u64 page_align(__u64 length)
{
	__u64 aligned = (length + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1ULL);

	return aligned < length ? 0 : aligned;
}

static __always_inline bool failed(__s64 result)
{
	return result < 0 && result >= -MAX_ERRNO;
}

/* A region of this size is worth comparing the second time; 16 MiB. */
#define LARGE_REGION (16ULL << 20)

/*
 * Count the call on this region. Regions flipped often are hot: their pages are compared with what
 * was last sent. NULL when the region is new, or there is no room to remember it.
 */
static __always_inline struct region_state *note_region(struct page_job *job)
{
	struct event_record *event = &job->event;
	struct region_key key = {
		.start_time_ns = event->header.start_time_ns,
		.address = event->header.address,
		.pid = event->header.pid,
	};
	struct region_state *state = bpf_map_lookup_elem(&regions, &key);
	struct region_state first = {.calls = 1};

	if (!state) {
		bpf_map_update_elem(&regions, &key, &first, BPF_NOEXIST);
		return NULL;
	}
	state->calls++;
	job->hot = state->calls > configured.hot_calls || event->length >= LARGE_REGION;
	return state;
}

/* Leave a call on a hot region out: nothing changed. It is counted with the region's next event. */
static __always_inline void coalesce(struct page_job *job, struct region_state *state)
{
	if (!state->coalesced)
		state->coalesced_since_ns = job->event.header.timestamp_ns;
	state->coalesced++;
	count(COUNTER_COALESCED, 1);
}

/* Comparing a hot region may take half of the target's time, and no more. */
#define LONG_COMPARISON_NS 5000000ULL

static __always_inline bool took_too_long(const struct page_job *job, const struct region_state *state)
{
	if (configured.flags & CONFIG_EXACT || state->last_cost_ns < LONG_COMPARISON_NS)
		return false;
	return job->event.header.timestamp_ns - state->last_end_ns < state->last_cost_ns;
}

/* Fewer pages are compared in a few microseconds. */
#define MANY_PAGES 256

/* Compare the pages of a region that is flipped again and again; send what changed. */
static __always_inline void compare_region(struct page_job *job, struct trace_target *target,
					   struct region_state *state, const enum loop_engine engine)
{
	struct event_record *event = &job->event;

	if (took_too_long(job, state)) {
		count(COUNTER_SKIPPED, 1);
		coalesce(job, state);
		return;
	}
	event->status |= STATUS_HOT;
	event->coalesced = state->coalesced;
	event->coalesced_since_ns = state->coalesced_since_ns;
	take_pages(job, engine);
	send_outcome(job);
	if (job->event_sent)
		state->coalesced = 0;
	else
		coalesce(job, state);
	/* In a new epoch everything is compared once; after that, much means that it has worn off. */
	if (job->compared >= MANY_PAGES && state->epoch == job->epoch && !(configured.flags & CONFIG_EXACT))
		target->flags |= TARGET_COMPARES_MUCH;
	state->epoch = job->epoch;
	state->last_end_ns = bpf_ktime_get_ns();
	state->last_cost_ns = state->last_end_ns - event->header.timestamp_ns;
}

/* Take all pages of the event's region that are there, and account for the others. */
static __always_inline void capture_region(struct page_job *job, struct trace_target *target,
					   const enum loop_engine engine)
{
	struct event_record *event = &job->event;
	struct region_state *state;
	struct mm_struct *mm;

	mm = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), mm);
	job->page_tables = (__u64)BPF_CORE_READ(mm, pgd);
	job->cursor = event->header.address;
	job->end = event->header.address + event->length;
	job->pages_left = configured.page_limit;
	event->page_count = event->length / PAGE_BYTES;
	state = note_region(job);
	if (state && job->hot) {
		compare_region(job, target, state, engine);
		return;
	}
	send_event();
	take_pages(job, engine);
	send_outcome(job);
	if (event->length >= LARGE_REGION && job->outcome.captured >= MANY_PAGES &&
	    !(configured.flags & CONFIG_EXACT))
		target->flags |= TARGET_COMPARES_MUCH;
}

/*
 * The call is over and may have made [address, address + length) executable: say so, with bytes.
 * A failed call changed nothing, except an mprotect that stopped half-way.
 */
static __always_inline void finish_call(struct page_job *job, struct trace_target *target,
					const enum loop_engine engine)
{
	struct event_record *event = &job->event;
	bool stopped = event->kind != EVENT_MMAP && (event->result == -ENOMEM || event->result == -EACCES);
	struct mapping_info *mapping = &job->mapping;
	__u64 end;

	event->length = page_align(event->length);
	if ((failed(event->result) && !stopped) || !event->length ||
	    event->header.address + event->length < event->header.address) {
		send_event();
		return;
	}
	find_mapping(job, event->header.address, engine);
	if (!mapping->known) {
		if (stopped) {
			send_event();
			return;
		}
		event->status |= STATUS_MAPPING_UNKNOWN;
		mapping->end = event->header.address + event->length;
	}
	if (stopped) {
		if (!(mapping->flags & VM_EXEC)) {
			send_event();
			return;
		}
		event->status |= STATUS_PARTIAL;
		end = event->header.address + event->length;
		if (mapping->end < end)
			event->length = mapping->end - event->header.address;
	}
	if (mapping->known) {
		describe_backing(event, mapping);
		if (event->device && !mapping->unlinked && configured.flags & CONFIG_EXCLUDE_FILE_BACKED)
			return;
		if (event->device)
			send_path(mapping->file, event->inode, event->device);
	}
	capture_region(job, target, engine);
}

/* ---- mmap -------------------------------------------------------------------------------- */

static __always_inline int enter_mmap(struct trace_event_raw_sys_enter *ctx, const enum loop_engine engine)
{
	struct trace_target *target = current_target();
	__u64 thread = bpf_get_current_pid_tgid();
	struct mmap_args_t arguments = {
		.address = ctx->args[0],
		.length = ctx->args[1],
		.protection = effective_protection(ctx->args[2]),
		.flags = ctx->args[3],
		.fd = ctx->args[4],
		.offset = ctx->args[5],
	};
	struct page_job *job = this_job();

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC)
		return 0;
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

static __always_inline int enter_mprotect(struct trace_event_raw_sys_enter *ctx, __u32 kind,
					  const enum loop_engine engine)
{
	struct trace_target *target = current_target();
	__u64 thread = bpf_get_current_pid_tgid();
	struct mprotect_args_t arguments = {
		.address = ctx->args[0],
		.length = ctx->args[1],
		.protection = effective_protection(ctx->args[2]),
		.key = kind == EVENT_PKEY_MPROTECT ? ctx->args[3] : -1,
		.kind = kind,
		.status = STATUS_PREVIOUS_UNKNOWN,
	};
	struct page_job *job = this_job();
	struct mapping_info *mapping;

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC || !job)
		return 0;
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
	if ((protection_matters(arguments.protection) || arguments.previous_protection & PROT_EXEC) &&
	    bpf_map_update_elem(&mprotect_args, &thread, &arguments, BPF_ANY))
		count(COUNTER_ARGUMENTS_FULL, 1);
	/* What was written while it was writable and executable, or through another mapping. */
	if (engine == ENGINE_ITERATOR && !(arguments.protection & PROT_EXEC) &&
	    (arguments.status & STATUS_SEVERAL_MAPPINGS ||
	     (arguments.previous_protection & PROT_EXEC &&
	      (arguments.previous_protection & PROT_WRITE || mapping->flags & VM_SHARED))))
		look_before(ctx, job, arguments.address, arguments.address + page_align(arguments.length),
			    kind);
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
	bpf_map_delete_elem(&mprotect_args, &thread);
	return true;
}

/* ---- mremap, shmat ------------------------------------------------------------------------- */

static __always_inline int enter_placing(struct trace_event_raw_sys_enter *ctx, __u32 kind)
{
	struct trace_target *target = current_target();
	__u64 thread = bpf_get_current_pid_tgid();
	struct placing_args_t arguments = {
		.arguments = {ctx->args[0], ctx->args[1], ctx->args[2]},
		.kind = kind,
	};

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC)
		return 0;
	if (kind == EVENT_MREMAP) { /* shmat has no more, and the kernel would not let us look */
		arguments.arguments[3] = ctx->args[3];
		arguments.arguments[4] = ctx->args[4];
	}
	if (bpf_map_update_elem(&placing_args, &thread, &arguments, BPF_ANY))
		count(COUNTER_ARGUMENTS_FULL, 1);
	return 0;
}

/* Moving executable memory makes it executable at another address; its bytes go with it. */
SEC("?tracepoint/syscalls/sys_enter_mremap")
int enter_mremap(struct trace_event_raw_sys_enter *ctx)
{
	return enter_placing(ctx, EVENT_MREMAP);
}

SEC("?tracepoint/syscalls/sys_enter_shmat")
int enter_shmat(struct trace_event_raw_sys_enter *ctx)
{
	return enter_placing(ctx, EVENT_SHMAT);
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

	if (!kernel_has_task_pt_regs())
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

/*
 * Exit of all calls. One program for all, because most of its load time is the verifier's
 * work on the page loop; a thread is inside at most one call, so the saved arguments say which.
 */
static __always_inline int exit_call(struct trace_event_raw_sys_exit *ctx, const enum loop_engine engine)
{
	struct trace_target *target = current_target();
	struct page_job *job = this_job();
	__s64 number = ctx->id;
	__s64 result = ctx->ret;

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC || !job)
		return 0;
	if (!join_mprotect(job, target, result) && !join_mmap(job, target, result) &&
	    !join_placing(job, target, result, engine) && !join_unpaired(job, target, number, result))
		return 0;
	note_caller(&job->event);
	if (!event_matters(&job->event))
		return 0;
	if (protection_matters(job->event.protection))
		finish_call(job, target, engine);
	else
		lost_execute(job);
	return 0;
}

/* ---- munmap ------------------------------------------------------------------------------- */

/* At entry: the mapping is still there to be looked at. Plain data is no business of ours. */
static __always_inline int enter_munmap(struct trace_event_raw_sys_enter *ctx, const enum loop_engine engine)
{
	struct trace_target *target = current_target();
	struct page_job *job = this_job();
	struct event_record *event;
	struct mapping_info *mapping;

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC || !job)
		return 0;
	find_mapping(job, ctx->args[0], engine);
	mapping = &job->mapping;
	if (mapping->known && !(mapping->flags & VM_EXEC) && mapping->end - ctx->args[0] >= ctx->args[1])
		return 0;
	begin_event(job, target, EVENT_MUNMAP);
	event = &job->event;
	event->header.address = ctx->args[0];
	event->length = page_align(ctx->args[1]);
	event->arguments[0] = ctx->args[0];
	event->arguments[1] = ctx->args[1];
	event->status = STATUS_MAPPING_UNKNOWN | STATUS_PREVIOUS_UNKNOWN;
	if (mapping->known) {
		event->previous_protection = mapping->flags & PROT_ALL;
		event->status = 0;
		describe_backing(event, mapping);
		if (mapping->end - ctx->args[0] < ctx->args[1])
			event->status |= STATUS_SEVERAL_MAPPINGS;
	}
	note_caller(event);
	if (!event_matters(event))
		return 0;
	if (engine == ENGINE_ITERATOR)
		look_then_send(ctx, job, event->header.address, event->header.address + event->length);
	else
		send_event();
	return 0;
}

/* ---- madvise: discarding contents ------------------------------------------------------------ */

SEC("?tracepoint/syscalls/sys_enter_madvise")
int enter_madvise__iterator(struct trace_event_raw_sys_enter *ctx)
{
	__u64 start = ctx->args[0], length = page_align(ctx->args[1]), advice = ctx->args[2];
	struct trace_target *target = current_target();
	struct page_job *job = this_job();
	struct mapping_info *mapping;

	if (!target || target->flags & TARGET_WAITS_FOR_EXEC || !job)
		return 0;
	if (advice != MADV_DONTNEED && advice != MADV_FREE && advice != MADV_REMOVE &&
	    advice != MADV_DONTNEED_LOCKED)
		return 0;
	find_mapping(job, start, ENGINE_ITERATOR); /* allocators do this to their data all the time */
	mapping = &job->mapping;
	if (mapping->known && !(mapping->flags & VM_EXEC) && mapping->end - start >= length)
		return 0;
	look_before(ctx, job, start, start + length, EVENT_MADVISE);
	return 0;
}

/* ---- the end of an address space ------------------------------------------------------------- */

/* Attached to the entries of execve and execveat. If the call fails, we have looked for nothing. */
SEC("?tracepoint/syscalls/sys_enter_execve")
int enter_execve__iterator(struct trace_event_raw_sys_enter *ctx)
{
	struct trace_target *target = current_target();
	struct page_job *job = this_job();

	if (target && !(target->flags & TARGET_WAITS_FOR_EXEC) && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXEC);
	return 0;
}

/*
 * Where sched_process_exit comes after the address space is gone (before Linux 6.16), this comes
 * in time for processes that end by themselves.
 */
SEC("?tracepoint/syscalls/sys_enter_exit_group")
int enter_exit_group__iterator(struct trace_event_raw_sys_enter *ctx)
{
	struct trace_target *target = current_target();
	struct page_job *job = this_job();

	if (target && !(target->flags & TARGET_WAITS_FOR_EXEC) && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXIT);
	return 0;
}

/* Never attached: the others end by calling it. */
SEC("?tracepoint")
int look__iterator(void *ctx)
{
	return look();
}

/* ---- the end of a process -------------------------------------------------------------------- */

/* Called for every thread; the process ends with the last of them. */
static __always_inline int exit_thread(void *ctx, const enum loop_engine engine)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct trace_target *target = bpf_map_lookup_elem(&targets, &pid);
	struct page_job *job = this_job();
	bool last = BPF_CORE_READ(task, signal, live.counter) == 0;
	struct event_record *event;

	if (!target || !job)
		return 0;
	if (!(target->flags & TARGET_WAITS_FOR_EXEC)) {
		begin_event(job, target, last ? EVENT_EXIT : EVENT_THREAD_EXIT);
		event = &job->event;
		event->result = BPF_CORE_READ(task, exit_code);
		if (last && BPF_CORE_READ(task, signal, group_exit_code))
			event->result = BPF_CORE_READ(task, signal, group_exit_code);
		if (last && engine == ENGINE_ITERATOR)
			look_then_send(ctx, job, 0, ~0ULL);
		else if (event_matters(event))
			send_event();
	}
	if (last)
		bpf_map_delete_elem(&targets, &pid);
	return 0;
}

/* ---- the same for each engine ------------------------------------------------------------- */

#define PROGRAMS(suffix, engine)                                                                             \
	SEC("?tracepoint/syscalls/sys_enter_mmap")                                                           \
	int enter_mmap__##suffix(struct trace_event_raw_sys_enter *ctx)                                      \
	{                                                                                                    \
		return enter_mmap(ctx, engine);                                                              \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_mprotect")                                                       \
	int enter_mprotect__##suffix(struct trace_event_raw_sys_enter *ctx)                                  \
	{                                                                                                    \
		return enter_mprotect(ctx, EVENT_MPROTECT, engine);                                          \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_pkey_mprotect")                                                  \
	int enter_pkey_mprotect__##suffix(struct trace_event_raw_sys_enter *ctx)                             \
	{                                                                                                    \
		return enter_mprotect(ctx, EVENT_PKEY_MPROTECT, engine);                                     \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_munmap")                                                         \
	int enter_munmap__##suffix(struct trace_event_raw_sys_enter *ctx)                                    \
	{                                                                                                    \
		return enter_munmap(ctx, engine);                                                            \
	}                                                                                                    \
	SEC("?tracepoint/sched/sched_process_exit")                                                          \
	int process_exit__##suffix(void *ctx)                                                                \
	{                                                                                                    \
		return exit_thread(ctx, engine);                                                             \
	}                                                                                                    \
	/* Attached to the exits of all calls above. */                                                      \
	SEC("?tracepoint/syscalls/sys_exit_mmap")                                                            \
	int exit_call__##suffix(struct trace_event_raw_sys_exit *ctx)                                        \
	{                                                                                                    \
		return exit_call(ctx, engine);                                                               \
	}

PROGRAMS(bounded, ENGINE_BOUNDED)
PROGRAMS(callback, ENGINE_CALLBACK)
PROGRAMS(iterator, ENGINE_ITERATOR)

/* ---- life cycle --------------------------------------------------------------------------- */

SEC("?raw_tp/sched_process_fork")
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	on_fork((struct task_struct *)ctx->args[0], (struct task_struct *)ctx->args[1]);
	return 0;
}

SEC("?raw_tp/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	on_exec((struct task_struct *)ctx->args[0], false);
	return 0;
}

/* A tracepoint and not a raw one, to end in look__iterator. */
SEC("?tracepoint/sched/sched_process_exec")
int process_exec__vmas(void *ctx)
{
	struct page_job *job = this_job();

	on_exec(bpf_get_current_task_btf(), true);
	if (current_target() && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXEC_MAPPING);
	return 0;
}

/* ---- sampling --------------------------------------------------------------------------------- */

/* The event excludes the kernel, so this never interrupts another of our programs. */
SEC("?perf_event")
int sample__iterator(struct bpf_perf_event_data *ctx)
{
	sample(PT_REGS_IP(&ctx->regs), PT_REGS_SP(&ctx->regs));
	return 0;
}

/* ---- run once by user space after load, before anything is attached ------------------------ */

/* Two levels of page tables to try per GiB, up to 4 TiB; the configuration says how far. */
#define DIRECT_MAP_GUESSES 8192

/* The code of an executable starts within this many pages of its file. */
#define CODE_START_PAGES 1024

/* Whether `entry` maps page `index` of the file: then the two tell where struct pages start. */
__noinline int page_array_fits(__u64 inode_address, __u64 index, __u64 entry)
{
	__u64 base = find_cached_page(inode_address, index) -
		     entry_address(entry) / PAGE_BYTES * bpf_core_type_size(struct page);

	if (!(entry & ENTRY_PRESENT) || !(base >> 63) || base & (GIB - 1))
		return 0;
	page_array_base = base;
	return 1;
}

/*
 * Where the array of struct page starts: the process that loads us has its own first page of code
 * both in its page tables (as a physical address) and in a page cache (as a struct page). The
 * array's base is aligned to 1 GiB, so a pair that does not belong together is not believed.
 */
static __always_inline void find_page_array(struct task_struct *task)
{
	struct page_job *job = this_job();
	__u64 address, inode;

	if (!job)
		return;
	address = BPF_CORE_READ(task, mm, start_code);
	inode = (__u64)BPF_CORE_READ(task, mm, exe_file, f_inode);
	job->page_tables = (__u64)BPF_CORE_READ(task, mm, pgd);
	if (!read_entries(address & ~(GROUP_BYTES - 1ULL)))
		return;
#pragma clang loop unroll(disable)
	for (__u64 index = 0; index < CODE_START_PAGES; index++) {
		if (page_array_fits(inode, index, job->entries[address / PAGE_BYTES % GROUP_PAGES]))
			break;
	}
}

SEC("?raw_tp")
int find_direct_map(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 top = (__u64)BPF_CORE_READ(task, mm, pgd);

	if (!configured.physical_mask)
		return 0;
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < DIRECT_MAP_GUESSES; i++) {
		__u64 base = (top & ~(GIB - 1)) - i / 2 * GIB;
		__u32 levels = i & 1 ? 5 : 4;

		if (i / 2 > configured.physical_gib)
			break;
		if (direct_map_is_at(base, levels, top)) {
			page_table_levels = levels;
			direct_map_base = base;
			break;
		}
	}
	if (have_page_tables())
		find_page_array(task);
	return have_page_tables();
}
