/* SPDX-License-Identifier: GPL-2.0-only */
/* What a finished call did to a region: an event, and its pages; all of them, or those that changed. */
#ifndef REGION_BPF_H
#define REGION_BPF_H

#include "look.bpf.h"

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

/* What is known of the caller's region that starts at `address`. */
static __always_inline const struct region_state *region_at(const struct trace_target *target, __u64 address)
{
	const struct record_header owner = {
		.start_time_ns = target->start_time_ns,
		.pid = bpf_get_current_pid_tgid() >> 32,
	};
	struct region_key key = key_of(&owner, address);

	return bpf_map_lookup_elem(&regions, &key);
}

/*
 * Whether a call on a region of the caller that starts at `address` was seen, and with it all bytes:
 * what was in swap then has been read into memory since, if it was executed.
 */
static __always_inline bool knows_region(const struct trace_target *target, __u64 address)
{
	const struct region_state *state = region_at(target, address);

	return state && !state->unread;
}

/* A region of this size is worth comparing from the first time on; 16 MiB. */
#define LARGE_REGION (16ULL << 20)

/*
 * Count the call on this region. Regions flipped often are hot: their pages are compared with what
 * was last sent. NULL when the region is new, or there is no room to remember it.
 */
static __always_inline struct region_state *note_region(struct page_job *job)
{
	static const struct region_state first = {.calls = 1}; /* the stack is full */
	struct event_record *event = &job->event;
	struct region_key key = key_of(&event->header, event->header.address);
	struct region_state *state = bpf_map_lookup_elem(&regions, &key);

	job->hot = event->length >= LARGE_REGION;
	if (!state) {
		bpf_map_update_elem(&regions, &key, &first, BPF_NOEXIST);
		return NULL;
	}
	state->calls++;
	if (state->calls > configured.hot_calls)
		job->hot = 1;
	return state;
}

static __always_inline struct region_state *find_region(const struct page_job *job)
{
	const struct event_record *event = &job->event;
	struct region_key key = key_of(&event->header, event->header.address);

	return bpf_map_lookup_elem(&regions, &key);
}

/* Note what a call found of its region. */
static __always_inline void note_outcome(struct page_job *job, struct region_state *state)
{
	const struct outcome_record *outcome = &job->outcome;

	state->absent = outcome->absent;
	state->unread = outcome->swapped + outcome->not_present + outcome->unreadable;
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

/*
 * While another thread changes the address space no mapping can be looked up. What an mmap has made
 * can be known from its arguments: without a file, what nobody has touched yet is zeros.
 */
static __always_inline void assume_mapping(struct mapping_info *mapping, const struct event_record *event)
{
	mapping->end = event->header.address + event->length;
	if (event->kind != EVENT_MMAP || !(event->arguments[3] & MAP_ANONYMOUS) ||
	    event->arguments[3] & MAP_SHARED)
		return;
	mapping->known = 1;
	mapping->touched = 1;
	mapping->start = event->header.address;
	mapping->flags = event->protection;
}

/* Mappings that one failing mprotect is believed to have changed; what is beyond is counted. */
#define PARTIAL_MAPPINGS 512

/* Fewer pages are compared in a few microseconds. */
#define MANY_PAGES 256

/*
 * Where every page has changed in so many calls in a row, as many are believed to change everything, too:
 * comparing costs more than sending.
 */
#define CALLS_COMPARED 8
#define CALLS_BELIEVED 64

static __always_inline bool changes_always(struct region_state *state)
{
	if (state->changing < CALLS_COMPARED)
		return false;
	if (state->changing++ < CALLS_COMPARED + CALLS_BELIEVED)
		return true;
	state->changing = CALLS_COMPARED - 1;
	return false;
}

/*
 * All pages are compared once in so many times as that takes: somebody may have discarded a page, or filled one
 * that was never there.
 */
#define WHOLE_EVERY 64

/*
 * Where a region was compared as a whole, and most of it was executable and not writable when the call was made
 * (Ruby's YJIT protects 128 MiB anew for one page), only the rest can have changed.
 */
static __always_inline bool is_narrow(const struct page_job *job, const struct trace_target *target,
				      const struct region_state *state)
{
	const struct event_record *event = &job->event;

	return job->changed_start <= job->changed_end && state->whole && !state->unread && !target->written &&
	       event->length <= state->length &&
	       event->header.timestamp_ns - state->last_end_ns < WHOLE_EVERY * state->last_cost_ns;
}

/* The call is an event if it found anything changed; else it is left out. */
static __always_inline void end_comparison(struct page_job *job, struct region_state *state)
{
	if (job->event_sent)
		state->coalesced = 0;
	else
		coalesce(job, state);
}

/* Compare what can have changed of a region. Nothing else was written to since it was sent. */
static __always_inline void compare_changed(struct page_job *job, struct region_state *state,
					    const enum loop_engine engine)
{
	struct outcome_record *outcome = &job->outcome;
	__u64 others, absent;

	job->event.status |= STATUS_HOT;
	job->cursor = job->first = job->changed_start;
	job->end = job->changed_end;
	others = job->event.page_count - (job->end - job->cursor) / PAGE_BYTES;
	take_pages(job, engine);
	/* How many pages were absent is known of the whole only: those of a part are named each time. */
	list_absent(job, !others ? state->absent : outcome->absent ? ~0ULL : job->discovered, engine);
	absent = state->absent < others ? state->absent : others;
	if (!others)
		state->absent = outcome->absent;
	state->unread = outcome->swapped + outcome->not_present + outcome->unreadable;
	outcome->absent += absent;
	outcome->unchanged += others - absent;
	count(COUNTER_UNCHANGED, others - absent);
	send_outcome(job);
	end_comparison(job, state);
}

/* All pages of the region were looked at, and are known now; or some are not. */
static __always_inline void note_whole(struct page_job *job, struct region_state *state)
{
	const struct outcome_record *outcome = &job->outcome;

	state->last_end_ns = bpf_ktime_get_ns();
	state->last_cost_ns = state->last_end_ns - job->event.header.timestamp_ns - job->waited_ns;
	state->length = job->event.length;
	state->whole = !outcome->lost && !outcome->deferred;
}

/* Compare the pages of a region that is flipped again and again; send what changed. */
static __always_inline void compare_region(struct page_job *job, struct trace_target *target,
					   struct region_state *state, const enum loop_engine engine)
{
	struct event_record *event = &job->event;

	if (is_narrow(job, target, state)) {
		compare_changed(job, state, engine);
		return;
	}
	if (took_too_long(job, state)) {
		state->whole = 0;
		count(COUNTER_SKIPPED, 1);
		coalesce(job, state);
		return;
	}
	event->status |= STATUS_HOT;
	take_pages(job, engine);
	list_absent(job, state->absent, engine);
	send_outcome(job);
	note_outcome(job, state);
	end_comparison(job, state);
	state->changing = job->compared && job->outcome.captured == event->page_count ? state->changing + 1
										      : 0;
	/* In a new epoch everything is compared once; after that, much means that it has worn off. */
	if (job->compared >= MANY_PAGES && state->epoch == job->epoch && !(configured.flags & CONFIG_EXACT))
		target->flags |= TARGET_COMPARES_MUCH;
	state->epoch = job->epoch;
	note_whole(job, state);
}

/* Take all pages of the event's region that are there, and account for the others. */
static __always_inline void capture_region(struct page_job *job, struct trace_target *target,
					   const enum loop_engine engine)
{
	struct event_record *event = &job->event;
	struct region_state *state;

	job->page_tables = (__u64)READ_CURRENT(mm, pgd);
	job->cursor = job->first = event->header.address;
	job->end = event->header.address + event->length;
	job->pages_left = configured.page_limit;
	limit_recent(job);
	event->page_count = event->length / PAGE_BYTES;
	/* Only where it is known that there are bytes to be fetched: nobody shall grow by being looked at. */
	job->may_fetch = leaves_work(engine);
	state = note_region(job);
	if (state) {
		event->coalesced = state->coalesced;
		event->coalesced_since_ns = state->coalesced_since_ns;
		if (job->hot && !changes_always(state)) {
			compare_region(job, target, state, engine);
			return;
		}
		state->coalesced = 0;
		job->hot = 0;
	}
	send_event();
	take_pages(job, engine);
	if (job->hot)
		list_absent(job, 0, engine);
	send_outcome(job);
	if (!state)
		state = find_region(job);
	if (state)
		note_outcome(job, state);
	if (state && job->hot)
		note_whole(job, state);
	if (event->length >= LARGE_REGION && job->outcome.captured >= MANY_PAGES &&
	    !(configured.flags & CONFIG_EXACT))
		target->flags |= TARGET_COMPARES_MUCH;
}

/* Move job->cursor past its mapping, if that is executable; returns false where there is no more to do. */
static __always_inline bool pass_executable(struct page_job *job, const enum loop_engine engine)
{
	if (job->cursor >= job->end)
		return false;
	find_mapping(job, job->cursor, engine);
	if (!job->mapping.known || !(job->mapping.flags & VM_EXEC)) {
		job->end = job->cursor;
		return false;
	}
	job->cursor = job->mapping.end;
	return true;
}

/*
 * An mprotect that fails has changed all mappings before the one it failed at. Returns where the
 * executable ones from `start` on end, at the latest at `end`.
 */
static __always_inline __u64 end_of_executable(struct page_job *job, __u64 start, __u64 end,
					       const enum loop_engine engine)
{
	job->cursor = start;
	job->end = end;
	if (engine == ENGINE_ITERATOR) {
		bpf_repeat(PARTIAL_MAPPINGS)
		{
			if (!pass_executable(job, engine))
				break;
		}
	} else {
#pragma clang loop unroll(disable)
		for (int i = 0; i < PARTIAL_MAPPINGS; i++) {
			if (!pass_executable(job, engine))
				break;
		}
	}
	if (job->cursor >= job->end)
		return job->end;
	count(COUNTER_UNLISTED, 1);
	return job->cursor;
}

/* A call changed nothing. Where its result was read off the mappings, it is not known which error it was. */
static __always_inline void send_unchanged(struct page_job *job, const enum loop_engine engine)
{
	if (engine == ENGINE_ITERATOR && configured.flags & CONFIG_FETCH && job->tree)
		leave_event(job);
	else
		send_event();
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

	event->length = page_align(event->length);
	if ((failed(event->result) && !stopped) || !event->length ||
	    event->header.address + event->length < event->header.address) {
		send_unchanged(job, engine);
		return;
	}
	find_mapping(job, event->header.address, engine);
	if (!mapping->known) {
		if (stopped) {
			send_unchanged(job, engine);
			return;
		}
		event->status |= STATUS_MAPPING_UNKNOWN;
		assume_mapping(mapping, event);
	}
	if (stopped) {
		if (!(mapping->flags & VM_EXEC)) {
			send_unchanged(job, engine);
			return;
		}
		event->status |= STATUS_PARTIAL;
		event->length = end_of_executable(job, event->header.address,
						  event->header.address + event->length, engine) -
				event->header.address;
		find_mapping(job, event->header.address, engine);
	}
	if (changes_silently(mapping) || !mapping->known)
		note_silent(job, target);
	if (mapping->known && !(event->status & STATUS_MAPPING_UNKNOWN)) {
		describe_backing(event, mapping);
		if (event->device && !mapping->unlinked && configured.flags & CONFIG_EXCLUDE_FILE_BACKED)
			return;
		if (event->device)
			send_path(mapping->file, event->inode, event->device);
	}
	capture_region(job, target, engine);
	if (engine == ENGINE_ITERATOR && configured.flags & CONFIG_FETCH)
		fetch_missing(job);
	else if (engine == ENGINE_ITERATOR && job->awaits_calls)
		leave_wait(job);
}

#endif
