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
#include "functions.bpf.h"
#include "sample.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* ---- entries that need no loop ------------------------------------------------------------ */

/* Moving executable memory makes it executable at another address; its bytes go with it. */
SEC("?tracepoint/syscalls/sys_enter_mremap")
int enter_mremap(struct trace_event_raw_sys_enter *ctx)
{
	return enter_placing((struct placing_args_t){
		.arguments = {ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3], ctx->args[4]},
		.kind = EVENT_MREMAP});
}

SEC("?tracepoint/syscalls/sys_enter_shmat")
int enter_shmat(struct trace_event_raw_sys_enter *ctx)
{
	return enter_placing((struct placing_args_t){.arguments = {ctx->args[0], ctx->args[1], ctx->args[2]},
						     .kind = EVENT_SHMAT});
}

/* ---- madvise: discarding contents ------------------------------------------------------------ */

/*
 * The recorder wants the next step of a pass over process `pid`, of which `tid` is a thread: what can
 * change without a call is compared, and what did is sent.
 */
static __always_inline int pass(void *ctx, void *program, __u32 pid, __u32 tid)
{
	struct trace_target *target = traced_process(pid);
	struct page_job *job = this_job();

	if (bpf_get_current_pid_tgid() >> 32 != configured.recorder || !(configured.flags & CONFIG_OTHERS) ||
	    !have_page_tables())
		return 0;
	if (!target || !job || !may_pass(target))
		return 0;
	ask_for_look(job, target->pass_cursor, ~0ULL, 0);
	job->passing = 1;
	job->look_pid = pid;
	job->look_tid = tid;
	bpf_tail_call(ctx, program, 0);
	return 0;
}

SEC("?tracepoint/syscalls/sys_enter_madvise")
int enter_madvise__iterator(struct trace_event_raw_sys_enter *ctx)
{
	__u64 start = ctx->args[0], length = page_align(ctx->args[1]), advice = ctx->args[2];
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();
	struct mapping_info *mapping;

	if (advice == ADVICE_PASS)
		return pass(ctx, &look_program, start, ctx->args[1]);
	if (!target || !job)
		return 0;
	if (advice != MADV_DONTNEED && advice != MADV_FREE && advice != MADV_REMOVE &&
	    advice != MADV_DONTNEED_LOCKED && advice != MADV_GUARD_INSTALL)
		return 0;
	find_mapping(job, start, ENGINE_ITERATOR); /* allocators do this to their data all the time */
	mapping = &job->mapping;
	if (mapping->known && !(mapping->flags & VM_EXEC) && mapping->end - start >= length)
		return 0;
	look_before(ctx, job, start, start + length, EVENT_MADVISE);
	return 0;
}

/*
 * Attached to process_madvise, which may discard memory of any kind, and to the calls that cut a file
 * or make holes in it, wherever it is mapped.
 */
SEC("?tracepoint/syscalls/sys_enter_ftruncate")
int enter_discard__iterator(struct trace_event_raw_sys_enter *ctx)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (!target || !job)
		return 0;
	ask_for_look(job, 0, ~0ULL, 0);
	job->look_call = (__u32)ctx->id;
	bpf_tail_call(ctx, &look_program, 0);
	return 0;
}

/* io_uring does the same without a system call for each. */
static __always_inline int before_request(void *ctx, __u8 what)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (!target || !job)
		return 0;
	if (what == IORING_OP_FALLOCATE || what == IORING_OP_MADVISE || what == IORING_OP_FTRUNCATE)
		look_before(ctx, job, 0, ~0ULL, what == IORING_OP_MADVISE ? EVENT_MADVISE : 0);
	return 0;
}

SEC("?tracepoint/io_uring/io_uring_submit_req")
int submit_request__iterator(struct trace_event_raw_io_uring_submit_req___any *ctx)
{
	return before_request(ctx, ctx->opcode);
}

/* ---- any system call ------------------------------------------------------------------------- */

/*
 * Code that was written without a call may have run since the last one, and be gone after this one's
 * return. So what can change silently is looked at, as long as that does not slow the target too much.
 */
static __always_inline int look_before_call(void *ctx, __u64 number)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (!target || !job || !may_look_before_call(target))
		return 0;
	ask_for_look(job, 0, ~0ULL, 0);
	job->silent = 1;
	job->look_call = number;
	job->look_compat = is_compat_call();
	bpf_tail_call(ctx, &look_program, 0);
	return 0;
}

/* The same, and before that what the tracepoints of single calls do not see. */
static __always_inline int before_call(struct trace_event_raw_sys_enter *ctx, const enum loop_engine engine)
{
	if (!traced_target())
		return 0;
	if (is_compat_call()) {
		const __u64 arguments[6] = {ctx->args[0], ctx->args[1], ctx->args[2],
					    ctx->args[3], ctx->args[4], ctx->args[5]};

		enter_compat(ctx, ctx->id, arguments, engine);
	}
	return engine == ENGINE_ITERATOR ? look_before_call(ctx, ctx->id) : 0;
}

/* ---- before an address space changes ------------------------------------------------------- */

SEC("?tracepoint/mmap_lock/mmap_lock_start_locking")
int before_lock__iterator(struct trace_event_raw_mmap_lock___any *ctx)
{
	struct mm_struct *mm = ctx->mm;
	struct call call = {};

	read_call(&call);
	if (this_task()->mm == mm)
		look_at_own_change(ctx, mm, ctx->write, &call);
	else
		look_at_reached_change(ctx, &look_program, mm, &call);
	return 0;
}

/* ---- the end of an address space ------------------------------------------------------------- */

/* Attached to the entries of execve and execveat. If the call fails, we have looked for nothing. */
SEC("?tracepoint/syscalls/sys_enter_execve")
int enter_execve__iterator(struct trace_event_raw_sys_enter *ctx)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (target && job)
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
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();

	if (target && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXIT);
	return 0;
}

/* Never attached: the others end by calling it. */
SEC("?tracepoint")
int look__iterator(void *ctx)
{
	return look(true);
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
	__u64 thread = bpf_get_current_pid_tgid();
	struct event_record *event;

	if (!target || !job)
		return 0;
	bpf_map_delete_elem(&fetches, &thread);
	if (is_traced(target)) {
		begin_event(job, target, last ? EVENT_EXIT : EVENT_THREAD_EXIT);
		event = &job->event;
		event->result = BPF_CORE_READ(task, exit_code);
		if (last)
			event->result = BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT
						? BPF_CORE_READ(task, signal, group_exit_code)
						: BPF_CORE_READ(task, group_leader, exit_code);
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
		return enter_mmap(ctx,                                                                       \
				  mmap_call(ctx->args[0], ctx->args[1], ctx->args[2], ctx->args[3],          \
					    ctx->args[4], ctx->args[5]),                                     \
				  engine);                                                                   \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_mprotect")                                                       \
	int enter_mprotect__##suffix(struct trace_event_raw_sys_enter *ctx)                                  \
	{                                                                                                    \
		return enter_mprotect(                                                                       \
			ctx, mprotect_call(EVENT_MPROTECT, ctx->args[0], ctx->args[1], ctx->args[2], -1),    \
			engine);                                                                             \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_pkey_mprotect")                                                  \
	int enter_pkey_mprotect__##suffix(struct trace_event_raw_sys_enter *ctx)                             \
	{                                                                                                    \
		return enter_mprotect(ctx,                                                                   \
				      mprotect_call(EVENT_PKEY_MPROTECT, ctx->args[0], ctx->args[1],         \
						    ctx->args[2], ctx->args[3]),                             \
				      engine);                                                               \
	}                                                                                                    \
	SEC("?tracepoint/syscalls/sys_enter_munmap")                                                         \
	int enter_munmap__##suffix(struct trace_event_raw_sys_enter *ctx)                                    \
	{                                                                                                    \
		return enter_munmap(ctx, ctx->args[0], ctx->args[1], engine);                                \
	}                                                                                                    \
	SEC("?tracepoint/raw_syscalls/sys_enter")                                                            \
	int before_call__##suffix(struct trace_event_raw_sys_enter *ctx)                                     \
	{                                                                                                    \
		return before_call(ctx, engine);                                                             \
	}                                                                                                    \
	SEC("?tracepoint/sched/sched_process_exit")                                                          \
	int process_exit__##suffix(void *ctx)                                                                \
	{                                                                                                    \
		return exit_thread(ctx, engine);                                                             \
	}                                                                                                    \
	/* Attached to the exits of all calls above, or of all there are. */                                 \
	SEC("?tracepoint/syscalls/sys_exit_mmap")                                                            \
	int exit_call__##suffix(struct trace_event_raw_sys_exit *ctx)                                        \
	{                                                                                                    \
		/* of a single call's tracepoint the rest of the number is anything */                       \
		return exit_call((__s32)ctx->id, ctx->ret, engine);                                          \
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

static __always_inline int after_exec(void *ctx)
{
	struct page_job *job = this_job();

	on_exec(bpf_get_current_task_btf(), true);
	if (traced_target() && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXEC_MAPPING);
	return 0;
}

/* A tracepoint and not a raw one, to end in look__iterator. */
SEC("?tracepoint/sched/sched_process_exec")
int process_exec__vmas(void *ctx)
{
	return after_exec(ctx);
}

/* ---- the hook mm-lock: raw tracepoints only, so that all can end in one program ---------------- */

/* Never attached: the others end by calling it. */
SEC("?raw_tp")
int look__lock(void *ctx)
{
	return look(false);
}

SEC("?raw_tp/mmap_lock_start_locking")
int lock_started__lock(struct bpf_raw_tracepoint_args *ctx)
{
	struct mm_struct *mm = (void *)ctx->args[0];
	struct page_job *job = this_job();
	bool write = asks_to_write(ctx);
	struct call call = {};

	if (this_task()->mm != mm || !job || job->locking || !traced_target())
		return 0;
	if (!write && gives_up_memory())
		look_before(ctx, job, 0, ~0ULL, EVENT_EXIT);
	read_call(&call);
	if (write) {
		use_tree(job, mm);
		enter_call(ctx, &call);
		job->tree = 0;
	}
	look_at_own_change(ctx, mm, write, &call);
	return 0;
}

/* Tasks by PID are only for programs of this type. The recorder asks for a pass by a call of its own. */
SEC("?tp_btf/mmap_lock_start_locking")
int lock_of_other__lock(__u64 *ctx)
{
	struct mm_struct *mm = (void *)ctx[0];
	struct page_job *job = this_job();
	struct task_struct *owner;
	struct call call = {};

	if (!job || job->locking || this_task()->mm == mm)
		return 0;
	read_call(&call);
	if (asks_for_pass(&call)) {
		owner = owner_of(mm);
		pass(ctx, &look_at_others, BPF_CORE_READ(owner, tgid), BPF_CORE_READ(owner, pid));
	} else {
		look_at_reached_change(ctx, &look_at_others, mm, &call);
	}
	return 0;
}

SEC("?tp_btf/mmap_lock_start_locking")
int look_at_other__lock(__u64 *ctx)
{
	return look(true);
}

SEC("?raw_tp/vm_unmapped_area")
int area_found__lock(struct bpf_raw_tracepoint_args *ctx)
{
	return area_found(ctx->args[0]);
}

SEC("?raw_tp/mmap_lock_released")
int lock_released__lock(struct bpf_raw_tracepoint_args *ctx)
{
	struct mm_struct *mm = (void *)ctx->args[0];

	return ctx->args[1] && this_task()->mm == mm ? lock_released(mm) : 0;
}

SEC("?raw_tp/sys_enter")
int before_call__lock(struct bpf_raw_tracepoint_args *ctx)
{
	return look_before_call(ctx, ctx->args[1]);
}

SEC("?raw_tp/sched_prepare_exec")
int prepare_exec__lock(struct bpf_raw_tracepoint_args *ctx)
{
	struct page_job *job = this_job();

	if (traced_target() && job)
		look_before(ctx, job, 0, ~0ULL, EVENT_EXEC);
	return 0;
}

SEC("?raw_tp/sched_process_exec")
int process_exec__lock(struct bpf_raw_tracepoint_args *ctx)
{
	return after_exec(ctx);
}

SEC("?raw_tp/sched_process_exit")
int process_exit__lock(struct bpf_raw_tracepoint_args *ctx)
{
	return exit_thread(ctx, ENGINE_ITERATOR);
}

SEC("?raw_tp/io_uring_submit_req")
int submit_request__lock(struct bpf_raw_tracepoint_args *ctx)
{
	struct io_kiocb___any *request = (void *)ctx->args[0];

	return before_request(ctx, BPF_CORE_READ(request, opcode));
}

/* ---- the scope --------------------------------------------------------------------------------- */

/* The name is about to change; what that means is found out when it has. */
SEC("?raw_tp/task_rename")
int task_renamed(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 pid = BPF_CORE_READ(task, tgid);
	struct trace_target *target;

	if ((__u32)BPF_CORE_READ(task, pid) != pid)
		return 0;
	target = bpf_map_lookup_elem(&targets, &pid);
	if (target)
		target->flags |= TARGET_RENAMED;
	return 0;
}

/* User space reads this to its end when there are new rules; it has nothing to say. */
SEC("?iter/task")
int decide_all(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct trace_target *target;
	__u64 address = 0;
	__u32 pid;

	if (!task || !BPF_CORE_READ(task, mm) || !BPF_CORE_READ(task, signal, live.counter))
		return 0;
	pid = BPF_CORE_READ(task, tgid);
	target = bpf_map_lookup_elem(&targets, &pid);
	if (target && (target->flags & TARGET_OWN || target->generation == scope_generation))
		return 0;
	bpf_probe_read_kernel(&address, sizeof(address), &task); /* global functions take numbers only */
	decide(address, OCCASION_RUNNING);
	/* If its end was missed meanwhile, nobody else would take it out again. */
	target = bpf_map_lookup_elem(&targets, &pid);
	if (target && !BPF_CORE_READ(task, signal, live.counter) &&
	    target->start_time_ns == BPF_CORE_READ(task, group_leader, start_boottime))
		bpf_map_delete_elem(&targets, &pid);
	return 0;
}
/* ---- the hook fexit: the same, but results come from the functions of the calls ---------------- */

/*
 * Programs that capture. They are two because a program can only end in one whose function has the same
 * prototype, and some functions have that of kernel/sys_ni.c, where the argument has another name.
 */
#define EXITS(engine_name, engine)                                                                           \
	SEC("?fexit/__x64_sys_mmap")                                                                         \
	int exit_mmap__fexit_##engine_name(__u64 *ctx)                                                       \
	{                                                                                                    \
		return exit_function(ctx[1], engine);                                                        \
	}                                                                                                    \
	/* Never attached; user space may choose another function. */                                        \
	SEC("?fexit/__ia32_compat_sys_ipc")                                                                  \
	int exit_other__fexit_##engine_name(__u64 *ctx)                                                      \
	{                                                                                                    \
		return exit_function(ctx[1], engine);                                                        \
	}

EXITS(callback, ENGINE_CALLBACK)
EXITS(iterator, ENGINE_ITERATOR)

/* The programs of all others end in one of them: most of the load time is the verifier's work on the page loop. */
#define ENDS_IN_ANOTHER(name, function)                                                                      \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                       \
		__uint(max_entries, 1);                                                                      \
		__type(key, __u32);                                                                          \
		__type(value, __u32);                                                                        \
	} name##_to SEC(".maps");                                                                            \
	SEC("?fexit/" function)                                                                              \
	int name##__fexit(void *ctx)                                                                         \
	{                                                                                                    \
		if (traced_target())                                                                         \
			bpf_tail_call(ctx, &name##_to, 0);                                                   \
		return 0;                                                                                    \
	}

ENDS_IN_ANOTHER(exit_mprotect, "__x64_sys_mprotect")
ENDS_IN_ANOTHER(exit_pkey_mprotect, "__x64_sys_pkey_mprotect")
ENDS_IN_ANOTHER(exit_mremap, "__x64_sys_mremap")
ENDS_IN_ANOTHER(exit_shmat, "__x64_sys_shmat")
/* The 32-bit ABI. */
ENDS_IN_ANOTHER(exit_compat_old_mmap, "__ia32_compat_sys_ia32_mmap")
ENDS_IN_ANOTHER(exit_compat_mmap, "__ia32_sys_mmap_pgoff")
ENDS_IN_ANOTHER(exit_compat_mprotect, "__ia32_sys_mprotect")
ENDS_IN_ANOTHER(exit_compat_pkey_mprotect, "__ia32_sys_pkey_mprotect")
ENDS_IN_ANOTHER(exit_compat_mremap, "__ia32_sys_mremap")
ENDS_IN_ANOTHER(exit_compat_shmat, "__ia32_compat_sys_shmat")
ENDS_IN_ANOTHER(exit_compat_ipc, "__ia32_compat_sys_ipc")

/* ---- sampling --------------------------------------------------------------------------------- */

/* The event excludes the kernel, so this never interrupts another of our programs. */
SEC("?perf_event")
int sample__iterator(struct bpf_perf_event_data *ctx)
{
	sample(PT_REGS_IP(&ctx->regs), PT_REGS_SP(&ctx->regs));
	return 0;
}

/* ---- run once by user space after load, before anything is attached ------------------------ */

/* Guessing stops at 4 TiB; the configuration says how far it need go. */
#define DIRECT_MAP_GIB 4096

/* Guesses are tried in loops of loops: the verifier walks the turns of each only once. */
#define GUESSES_TOGETHER 32

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

/* The same for some pages from `first` on. */
__noinline int page_array_fits_any(__u64 inode_address, __u64 first, __u64 entry)
{
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < GUESSES_TOGETHER; i++) {
		if (page_array_fits(inode_address, first + i, entry))
			return 1;
	}
	return 0;
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
	for (__u64 first = 0; first < CODE_START_PAGES; first += GUESSES_TOGETHER) {
		if (page_array_fits_any(inode, first, job->entries[address / PAGE_BYTES % GROUP_PAGES]))
			break;
	}
}

/* Try bases from `highest` down, with each of the two numbers of levels that page tables have. */
__noinline int find_direct_map_below(__u64 highest, __u64 top)
{
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < 2 * GUESSES_TOGETHER; i++) {
		__u64 base = highest - i / 2 * GIB;
		__u32 levels = i & 1 ? 5 : 4;

		if (direct_map_is_at(base, levels, top)) {
			page_table_levels = levels;
			direct_map_base = base;
			return 1;
		}
	}
	return 0;
}

SEC("?raw_tp")
int find_direct_map(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 top = (__u64)BPF_CORE_READ(task, mm, pgd);

	if (!configured.physical_mask)
		return 0;
#pragma clang loop unroll(disable)
	for (__u64 gib = 0; gib < DIRECT_MAP_GIB && gib <= configured.physical_gib; gib += GUESSES_TOGETHER) {
		if (find_direct_map_below((top & ~(GIB - 1)) - gib * GIB, top))
			break;
	}
	if (have_page_tables())
		find_page_array(task);
	return have_page_tables();
}
