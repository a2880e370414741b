/* SPDX-License-Identifier: GPL-2.0-only */
/* Sending records: every one is written whole, every one that does not fit is counted. */
#ifndef EMIT_BPF_H
#define EMIT_BPF_H

#include "state.bpf.h"

/* Puts these types into the object's BTF, where a test compares them with user space's. */
const struct page_record *unused_page_record __attribute__((unused));
const struct missing_record *unused_missing_record __attribute__((unused));
const struct repeat_record *unused_repeat_record __attribute__((unused));
const struct user_stack_record *unused_stack_record __attribute__((unused));

/*
 * Waking the reader costs more than copying a page, so it is woken once, when pending data
 * crosses the mark; for less it looks by itself every few milliseconds.
 */
static __always_inline __u64 submit_flags(void)
{
	__u64 pending = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	if (pending - configured.wakeup_bytes < 2 * sizeof(struct page_record))
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

/*
 * Waiting for room. These programs cannot sleep, so a CPU that waits does nothing else: it reads the
 * clock and now and then asks how far the reader is, while the recorder drains on another CPU. Loops of
 * loops, because the verifier goes through every turn of a loop, but through each function once.
 */

/* In all some seconds: half a microsecond, of which 64, of which 512, of which 200. */
#define CLOCK_READINGS 16
#define POLLS 64
#define POLL_GROUPS 512
#define POLL_ROUNDS 200

/* So long without a sign of the reader (it writes 4 MiB at once) means that it does not run. */
#define STALL_NS 2000000000ULL

/* CPUs that wait at this moment, and how far the reader was when somebody gave it up. */
__u64 cpus_waiting = 0;
__u64 stalled_at = ~0ULL;

/* Room for `bytes` more in the part of the ring that pages may use. */
static __always_inline bool has_room(__u64 bytes)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) + bytes <= configured.page_room;
}

/* A record that was given back wakes the reader all the same. */
static __always_inline void wake_reader(void)
{
	void *nothing = bpf_ringbuf_reserve(&events, sizeof(__u64), 0);

	if (nothing)
		bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

/* Nonzero: there is room. */
__noinline int poll_room(__u64 bytes)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < POLLS; i++) {
#pragma clang loop unroll(full)
		for (int j = 0; j < CLOCK_READINGS; j++)
			bpf_ktime_get_ns();
		if (has_room(bytes))
			return 1;
	}
	return 0;
}

/* The same for longer, with the reader woken before. */
__noinline int wake_and_poll(__u64 bytes)
{
	wake_reader();
	if (kernel_has_iterators()) {
		bpf_repeat(POLL_GROUPS)
		{
			if (poll_room(bytes))
				return 1;
		}
		return 0;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < POLL_GROUPS; i++) {
		if (poll_room(bytes))
			return 1;
	}
	return 0;
}

/* How far the reader was when, during one wait. */
struct ring_wait {
	__u64 start_ns;
	__u64 position;
	__u64 moved_ns;
};

/* Poll for room; nonzero when the wait is over, with *full saying whether in vain. */
static __always_inline int wait_on(struct page_job *job, struct ring_wait *wait, __u64 bytes, int *full)
{
	__u64 now, reached;

	if (wake_and_poll(bytes)) {
		*full = 0;
		return 1;
	}
	now = bpf_ktime_get_ns();
	reached = bpf_ringbuf_query(&events, BPF_RB_CONS_POS);
	if (reached != wait->position) {
		wait->position = reached;
		wait->moved_ns = now;
	} else if (now - wait->moved_ns > STALL_NS) {
		stalled_at = reached;
		return 1;
	}
	return job->waited_ns + (now - wait->start_ns) >= configured.wait_ns;
}

/*
 * Make sure that a page record of `bytes` fits, or (0) that records without pages do; if the job may
 * wait, with patience. Returns nonzero when there is no room.
 */
__noinline int await_room(__u64 bytes)
{
	struct page_job *job = this_job();
	struct ring_wait wait;
	int full = 1;

	if (has_room(bytes))
		return 0;
	if (!job || !job->may_wait || job->waited_ns >= configured.wait_ns || !configured.waiters)
		return 1;
	wait.position = bpf_ringbuf_query(&events, BPF_RB_CONS_POS);
	if (wait.position == stalled_at)
		return 1;
	__sync_fetch_and_add(&cpus_waiting, 1);
	wait.start_ns = wait.moved_ns = bpf_ktime_get_ns();
	if (cpus_waiting <= configured.waiters) {
		count(COUNTER_WAITS, 1);
		if (kernel_has_iterators()) {
			bpf_repeat(POLL_ROUNDS)
			{
				if (wait_on(job, &wait, bytes, &full))
					break;
			}
		} else {
#pragma clang loop unroll(disable)
			for (int i = 0; i < POLL_ROUNDS; i++) {
				if (wait_on(job, &wait, bytes, &full))
					break;
			}
		}
		job->waited_ns += bpf_ktime_get_ns() - wait.start_ns;
	}
	__sync_fetch_and_add(&cpus_waiting, -1);
	return full;
}

/* Whether there is room for a page. What pages leave free is for the records that say what became of them. */
static __always_inline bool may_send_page(const struct page_job *job)
{
	return !job->overflowed && !await_room(sizeof(struct page_record));
}

/* There is no room for a page. Returns the reason why it is missing: lost, or to be fetched when there is. */
static __always_inline __u32 overflow(struct page_job *job)
{
	if (job->may_fetch && configured.wait_ns) {
		job->overflowed = 1;
		return MISSING_NOT_PRESENT;
	}
	next_sequence();
	return MISSING_RING_FULL;
}

static __always_inline void fill_header(struct record_header *header, const struct record_header *of,
					__u8 type, __u32 size)
{
	header->version = WIRE_VERSION;
	header->type = type;
	header->flags = 0;
	header->size = size;
	header->sequence = next_sequence();
	header->timestamp_ns = of->timestamp_ns;
	header->start_time_ns = of->start_time_ns;
	header->pid = of->pid;
	header->tid = of->tid;
	header->cause = of->sequence;
	header->address = of->address;
}

static __always_inline void fill_page_header(struct page_record *record, const struct record_header *of,
					     __u64 address, __u16 flags)
{
	fill_header(&record->header, of, RECORD_PAGE, sizeof(*record));
	record->header.address = address;
	record->header.flags = flags;
}

/*
 * Functions that are not static are global to the verifier: it looks at each once, by itself, and
 * not again at every call or in every turn of a loop. That is why some here take their job from
 * the map and not as an argument.
 */

/* Whether the user stack of the current thread is the one of the event's process. */
static __always_inline bool has_stack(const struct page_job *job)
{
	/* After execve it is the new program's, which has not run yet. */
	return !job->remote && job->event.kind != EVENT_EXEC && job->event.kind != EVENT_EXEC_MAPPING;
}

/* Frames further away from the stack pointer are no frames: the register holds something else. */
#define STACK_REACH (16ULL << 20)

/* Follow a frame pointer, noting where the function whose it is returns to; zero at the end. */
__noinline int note_frame(void)
{
	struct {
		__u64 next;
		__u64 return_address;
	} frame = {};
	struct page_job *job = this_job();
	__u64 at;
	__u32 i;

	if (!job)
		return 0;
	at = job->frame;
	i = job->stack.count;
	if (at < job->frame_above || at - job->event.caller_sp >= STACK_REACH || i >= STACK_FRAMES ||
	    bpf_probe_read_user(&frame, job->is_32bit ? sizeof(frame) / 2 : sizeof(frame), (void *)at))
		return 0;
	if (job->is_32bit) {
		frame.return_address = frame.next >> 32;
		frame.next = (__u32)frame.next;
	}
	if (!frame.return_address)
		return 0;
	job->stack.frames[i] = frame.return_address;
	job->stack.count = i + 1;
	job->frame_above = at + 1;
	job->frame = frame.next;
	return 1;
}

/*
 * Send from where in the target the event came, following frame pointers. The kernel would do that, too,
 * but reads wherever a register points to, and a fault costs as much as all the rest. A function without
 * a frame pointer, such as the C library's wrapper of a system call, has its return address on top of the
 * stack.
 */
static __always_inline void send_stack(struct page_job *job)
{
	struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct user_stack_record *record = &job->stack;
	const __u64 top = job->event.caller_sp;

	__builtin_memset(record, 0, sizeof(*record));
	record->frames[0] = job->event.caller_ip;
	record->count = 1;
	job->frame = PT_REGS_FP(registers);
	job->frame_above = top;
	job->is_32bit = runs_32bit_code(registers);
#pragma clang loop unroll(disable)
	for (int i = 1; i < STACK_FRAMES; i++) {
		if (!note_frame())
			break;
	}
	fill_header(&record->header, &job->event.header, RECORD_STACK, sizeof(*record));
	record->header.address = 0;
	bpf_probe_read_user(&record->header.address, sizeof(__u64), (void *)top);
	if (bpf_ringbuf_output(&events, record, sizeof(*record), BPF_RB_NO_WAKEUP))
		count(COUNTER_LOST_STACKS, 1);
}

/* Send the event being prepared, once. Its pages name it by the sequence given here. */
__noinline int send_event(void)
{
	struct page_job *job = this_job();
	struct event_record *event;

	if (!job || job->event_sent)
		return 0;
	event = &job->event;
	job->event_sent = 1;
	event->header.sequence = next_sequence();
	if (bpf_ringbuf_output(&events, event, sizeof(*event), submit_flags())) {
		count(COUNTER_LOST_EVENTS, 1);
		return 0;
	}
	count(COUNTER_EVENTS, 1);
	if (kernel_has_task_pt_regs() && has_stack(job))
		send_stack(job);
	return 0;
}

/* Whether the open run of missing pages shall be fetched before the call returns. Notes it then. */
static __always_inline bool is_fetched(struct page_job *job)
{
	struct fetch_request *request = &job->request;
	__u32 run = request->runs;

	if (!job->may_fetch || job->mapping.waits || run >= FETCH_RUNS ||
	    (request->pages + job->missing_pages > FETCH_PAGES && !job->overflowed))
		return false;
	if (job->missing_reason != MISSING_NOT_PRESENT && job->missing_reason != MISSING_SWAPPED)
		return false;
	request->start[run] = job->missing_start;
	request->count[run] = job->missing_pages;
	request->runs++;
	request->pages += job->missing_pages;
	return true;
}

/* Close the run of missing pages, if one is open. */
static __always_inline void flush_missing(struct page_job *job)
{
	struct missing_record *record;

	if (!job->missing_reason)
		return;
	send_event();
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (!record) {
		next_sequence();
		count(COUNTER_LOST_MISSING, 1);
	} else {
		__builtin_memset(record, 0, sizeof(*record));
		fill_header(&record->header, &job->event.header, RECORD_MISSING, sizeof(*record));
		record->header.address = job->missing_start;
		record->pages = job->missing_pages;
		record->reason = job->missing_reason;
		if (is_fetched(job))
			record->header.flags = FLAG_FOLLOWS;
		bpf_ringbuf_submit(record, submit_flags());
	}
	job->missing_reason = 0;
}

static __always_inline void count_missing(struct outcome_record *outcome, __u64 pages, __u32 reason)
{
	switch (reason) {
	case MISSING_RING_FULL:
		outcome->lost += pages;
		count(COUNTER_LOST_PAGES, pages);
		break;
	case MISSING_UNREADABLE:
		outcome->unreadable += pages;
		count(COUNTER_UNREADABLE, pages);
		break;
	case MISSING_SWAPPED:
		outcome->swapped += pages;
		count(COUNTER_SWAPPED, pages);
		break;
	case MISSING_DEFERRED:
		outcome->deferred += pages;
		count(COUNTER_DEFERRED, pages);
		break;
	case MISSING_ABSENT:
		outcome->absent += pages;
		count(COUNTER_ABSENT, pages);
		break;
	default:
		outcome->not_present += pages;
		count(COUNTER_NOT_PRESENT, pages);
		break;
	}
}

/* Note `pages` pages from `address` on whose bytes are not sent. */
static __always_inline void note_missing(struct page_job *job, __u64 address, __u64 pages, __u32 reason)
{
	if (!job->listing)
		count_missing(&job->outcome, pages, reason);
	if (job->missing_reason == reason &&
	    job->missing_start + job->missing_pages * PAGE_BYTES == address) {
		job->missing_pages += pages;
		return;
	}
	flush_missing(job);
	job->missing_start = address;
	job->missing_pages = pages;
	job->missing_reason = reason;
}

__noinline int add_missing(__u64 address, __u64 pages, __u32 reason)
{
	struct page_job *job = this_job();

	if (job)
		note_missing(job, address, pages, reason);
	return 0;
}

/* A run is not longer: if it does not fit the ring, its hashes have to be forgotten one by one. */
#define REPEAT_GROUPS 64

/* Send the run of pages that hold the same bytes as the last one sent, if one is open. */
__noinline int flush_repeat(void)
{
	struct page_job *job = this_job();
	struct repeat_record *record;
	struct region_key key = {};

	if (!job || !job->repeat_pages)
		return 0;
	record = bpf_ringbuf_reserve(&events, sizeof(*record), 0);
	if (record) {
		__builtin_memset(record, 0, sizeof(*record));
		fill_header(&record->header, &job->event.header, RECORD_REPEAT, sizeof(*record));
		record->header.address = job->repeat_start;
		record->header.flags = job->sent_flags;
		record->pages = job->repeat_pages;
		record->source = job->sent_sequence;
		bpf_ringbuf_submit(record, submit_flags());
		job->outcome.captured += job->repeat_pages;
		count(COUNTER_PAGES, job->repeat_pages);
		job->repeat_pages = 0;
		return 0;
	}
	next_sequence();
	key = key_of(&job->event.header, group_of(job->repeat_start));
#pragma clang loop unroll(disable)
	for (int i = 0; i <= REPEAT_GROUPS; i++) {
		bpf_map_delete_elem(&page_hashes, &key);
		key.address += GROUP_BYTES;
		if (key.address >= job->repeat_start + job->repeat_pages * PAGE_BYTES)
			break;
	}
	/* Not by add_missing: there may be eight functions on the way to note_frame, and no more. */
	note_missing(job, job->repeat_start, job->repeat_pages, MISSING_RING_FULL);
	job->repeat_pages = 0;
	return 0;
}

/* Note that the page at `address` holds the same bytes as the last one sent. */
static __always_inline void add_repeat(struct page_job *job, __u64 address)
{
	if (job->repeat_start + job->repeat_pages * PAGE_BYTES != address ||
	    job->repeat_pages >= REPEAT_GROUPS * GROUP_PAGES)
		flush_repeat();
	if (!job->repeat_pages)
		job->repeat_start = address;
	job->repeat_pages++;
}

/* Say what became of the pages, unless the page records alone say it. */
static __always_inline void send_outcome(struct page_job *job)
{
	struct outcome_record *outcome = &job->outcome;

	flush_repeat();
	flush_missing(job);
	if (!job->event_sent || outcome->captured == job->event.page_count)
		return;
	fill_header(&outcome->header, &job->event.header, RECORD_OUTCOME, sizeof(*outcome));
	if (bpf_ringbuf_output(&events, outcome, sizeof(*outcome), submit_flags()))
		count(COUNTER_LOST_OUTCOMES, 1);
}

#endif
