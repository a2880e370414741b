/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a program may not wait for, but work of the thread itself may: pages that are not in memory, room in
 * the ring, the result of the call.
 *
 * What a call could not read at once is noted, and fetched by work that the kernel runs when the call is
 * done and before the thread executes another instruction (Linux 6.18). Other threads run meanwhile. Pages
 * whose fault would have to be served by user space are left alone: the thread itself might serve it.
 *
 * The work can be interrupted by our other programs, so it does not use the job of its CPU, and counts
 * only while it cannot be.
 */
#ifndef FETCH_BPF_H
#define FETCH_BPF_H

#include "process.bpf.h"

/* Send the page at `address`, which is in fetch->page if `read`. */
static __always_inline void send_fetched(struct fetch *fetch, __u64 address, bool read)
{
	struct page_record *page = &fetch->page;
	struct missing_record *missing;

	if (read) {
		fill_page_header(page, &fetch->request.owner, address, FLAG_FETCHED);
		if (!bpf_ringbuf_output(&events, page, sizeof(*page), submit_flags())) {
			count(COUNTER_PAGES, 1);
			return;
		}
		count(COUNTER_LOST_PAGES, 1);
	}
	missing = bpf_ringbuf_reserve(&events, sizeof(*missing), 0);
	if (!missing) {
		next_sequence();
		count(COUNTER_LOST_MISSING, 1);
		return;
	}
	__builtin_memset(missing, 0, sizeof(*missing));
	fill_header(&missing->header, &fetch->request.owner, RECORD_MISSING, sizeof(*missing));
	missing->header.address = address;
	missing->pages = 1;
	missing->reason = read ? MISSING_RING_FULL : MISSING_NOT_PRESENT;
	bpf_ringbuf_submit(missing, submit_flags());
}

/* Whether programs of this variant leave what they would have to wait for to the thread. */
static __always_inline bool leaves_work(const enum loop_engine engine)
{
	return engine == ENGINE_ITERATOR && configured.flags & CONFIG_FETCH && have_page_tables();
}

/*
 * Let a microsecond or two pass, and let others have the CPU, such as the recorder. A kernel need not be one
 * that interrupts its own work, so this reads in a way that asks (__get_user_pages, mm/gup.c).
 */
static __always_inline void pause_briefly(void)
{
	struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	__u8 byte;

	bpf_copy_from_user_task(&byte, sizeof(byte), (void *)PT_REGS_SP(registers),
				bpf_get_current_task_btf(), 0);
}

/* Whether to wait for room once more; then a moment has passed. */
static __always_inline bool waits_for_room(struct fetch_request *request)
{
	__u64 now;

	if (request->waits_no_more || has_room(sizeof(struct page_record))) {
		request->waits_since_ns = 0;
		return false;
	}
	now = bpf_ktime_get_ns();
	if (!request->waits_since_ns) {
		request->waits_since_ns = now;
		bpf_preempt_disable();
		count(COUNTER_WAITS, 1);
		wake_reader();
		bpf_preempt_enable();
	}
	if (now - request->waits_since_ns > configured.wait_ns)
		request->waits_no_more = 1;
	pause_briefly();
	return true;
}

/* Fetch the next page; nonzero when all are done. */
static __always_inline int fetch_next(struct fetch *fetch)
{
	struct fetch_request *request = &fetch->request;
	__u32 run = request->run;
	__u64 address;
	bool read;

	if (run >= FETCH_RUNS || run >= request->runs)
		return 1;
	if (request->page >= request->count[run]) {
		request->run++;
		request->page = 0;
		return 0;
	}
	if (configured.wait_ns && waits_for_room(request))
		return 0;
	address = request->start[run] + request->page * PAGE_BYTES;
	request->page++;
	read = !bpf_copy_from_user(fetch->page.content, PAGE_BYTES, (void *)address);
	bpf_preempt_disable();
	send_fetched(fetch, address, read);
	bpf_preempt_enable();
	return 0;
}

/* Send the event of a call that failed, with the error that it returns. */
static __always_inline void send_failed(struct event_record *event)
{
	struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());

	event->result = PT_REGS_RC(registers);
	event->header.sequence = next_sequence();
	if (bpf_ringbuf_output(&events, event, sizeof(*event), 0))
		count(COUNTER_LOST_EVENTS, 1);
	else
		count(COUNTER_EVENTS, 1);
	event->kind = 0;
}

/* Attaching takes a fraction of a millisecond; longer only where the recorder is kept from running. */
#define CALLS_WAIT_NS 200000000ULL
#define CALLS_POLLS (1 << 18)

static __always_inline void await_calls(void)
{
	__u64 start = bpf_ktime_get_ns();

	bpf_repeat(CALLS_POLLS)
	{
		if (all_calls.seen || bpf_ktime_get_ns() - start > CALLS_WAIT_NS)
			break;
		pause_briefly();
	}
}

/* The same for programs that cannot sleep: for some 20 ms at most, while this CPU does nothing else. */
__noinline int poll_calls(void)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < POLLS; i++) {
#pragma clang loop unroll(full)
		for (int j = 0; j < CLOCK_READINGS; j++)
			bpf_ktime_get_ns();
		if (all_calls.seen)
			return 1;
	}
	return 0;
}

__noinline int hold_until_calls(void)
{
	__sync_fetch_and_add(&cpus_waiting, 1);
	if (cpus_waiting <= configured.waiters) {
#pragma clang loop unroll(disable)
		for (int i = 0; i < POLL_GROUPS; i++) {
			if (poll_calls())
				break;
		}
	}
	__sync_fetch_and_add(&cpus_waiting, -1);
	return 0;
}

/* Pages and moments of waiting for room: more than enough for 1 GiB, and for 5 seconds. */
#define FETCH_STEPS (7 << 20)

static int fetch_pages(struct bpf_map *map, void *key, void *value)
{
	struct fetch *fetch = value;

	if (fetch->failed.kind) {
		bpf_preempt_disable();
		send_failed(&fetch->failed);
		bpf_preempt_enable();
	}
	bpf_repeat(FETCH_STEPS)
	{
		if (fetch_next(fetch))
			break;
	}
	if (fetch->request.awaits_calls)
		await_calls();
	return 0;
}

/* What the current thread leaves to its work, made when missing. */
static __always_inline struct fetch *find_fetch(struct page_job *job)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct fetch *fetch = bpf_map_lookup_elem(&fetches, &thread);

	if (fetch)
		return fetch;
	bpf_map_update_elem(&fetches, &thread, job->no_fetch, BPF_NOEXIST);
	return bpf_map_lookup_elem(&fetches, &thread);
}

static __always_inline bool schedule(struct fetch *fetch)
{
	if (!(configured.flags & CONFIG_FETCH))
		return false; /* this kernel lacks the function */
	return !bpf_task_work_schedule_resume_impl(bpf_get_current_task_btf(), &fetch->work, &fetches,
						   fetch_pages, NULL);
}

static __always_inline void begin_request(struct page_job *job, struct fetch *fetch)
{
	job->request.owner = job->event.header;
	job->request.run = 0;
	job->request.page = 0;
	job->request.waits_since_ns = 0;
	job->request.waits_no_more = 0;
	job->request.awaits_calls = job->awaits_calls;
	fetch->request = job->request;
}

/* Have the thread fetch pages. Returns false if it cannot. */
static __always_inline bool schedule_fetch(struct page_job *job)
{
	struct fetch *fetch = find_fetch(job);

	if (!fetch)
		return false;
	begin_request(job, fetch);
	return schedule(fetch);
}

/* The call failed, with which error is not known yet: have the thread send the event when it is. */
static __always_inline void leave_event(struct page_job *job)
{
	struct fetch *fetch = find_fetch(job);

	if (!fetch)
		return;
	begin_request(job, fetch);
	fetch->failed = job->event;
	schedule(fetch);
}

/* Have the thread wait until all system calls are seen. */
static __always_inline void leave_wait(struct page_job *job)
{
	struct fetch *fetch;

	if (!(configured.flags & CONFIG_FETCH)) {
		hold_until_calls();
		return;
	}
	fetch = find_fetch(job);
	job->request.runs = 0;
	if (!fetch)
		return;
	begin_request(job, fetch);
	schedule(fetch);
}

/* Have fetched what was noted; or, if that cannot be, have it read by user space. */
static __always_inline void fetch_missing(struct page_job *job)
{
	job->may_fetch = 0;
	if ((!job->request.runs && !job->awaits_calls) || schedule_fetch(job))
		return;
	job->listing = 1; /* they are counted already */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < FETCH_RUNS && i < job->request.runs; i++)
		add_missing(job->request.start[i], job->request.count[i], MISSING_NOT_PRESENT);
	flush_missing(job);
	job->listing = 0;
}

#endif
