/* SPDX-License-Identifier: GPL-2.0-only */
/* Page by page through a region: what is present is sent, what is not is accounted for. */
#ifndef PAGES_BPF_H
#define PAGES_BPF_H

#include "content.bpf.h"

/* Groups looked at per call: with bounded loops 1 GiB, else 16 GiB. The rest is deferred. */
#define BOUNDED_STEPS 4096
#define LOOP_STEPS 65536

/* Absent pages of a file may have bytes all the same, and their cache tells. */
static __always_inline bool needs_page_cache(const struct mapping_info *mapping)
{
	return mapping->known && mapping->by_value &&
	       (!(mapping->flags & VM_HUGETLB) || configured.flags & CONFIG_HUGETLB_CACHE);
}

static __always_inline bool is_private_memory(const struct mapping_info *mapping)
{
	return mapping->known && !mapping->device && !mapping->special && !(mapping->flags & VM_SHARED);
}

/*
 * Account for pages that are not in the page tables. Of a linked file, the file has the bytes; so it has
 * beyond its end, where there are none.
 */
static __always_inline void add_absent(struct page_job *job, __u64 address, __u64 pages, bool cached)
{
	struct mapping_info *mapping = &job->mapping;

	if (is_private_memory(mapping) || (needs_page_cache(mapping) && mapping->memory_file && !cached)) {
		if (!job->hot || job->listing) {
			add_missing(address, pages, MISSING_ABSENT);
		} else {
			job->outcome.absent += pages;
			count(COUNTER_ABSENT, pages);
		}
	} else if (job->listing) {
		return;
	} else if (comes_again(job)) {
		job->outcome.deferred += pages;
	} else if (mapping->special ||
		   (mapping->known && mapping->device &&
		    (!mapping->by_value || file_page(mapping, address) >= mapping->file_pages))) {
		job->outcome.in_file += pages;
		count(COUNTER_IN_FILE, pages);
	} else {
		add_missing(address, pages, MISSING_NOT_PRESENT);
	}
}

/* Move the job's mapping on to the one at its cursor. */
static __always_inline void enter_mapping(struct page_job *job, const enum loop_engine engine)
{
	find_mapping(job, job->cursor, engine);
	if (!job->mapping.known)
		job->mapping.end = job->end; /* a hole (another thread unmaps), or not to be known */
}

/*
 * Set job->untouched: a bit for each page of the current group that nobody used since it was last
 * compared. Ruby's YJIT flips 128 MiB, all of it present, for a few bytes; reading it all takes
 * 30 ms.
 *
 * User space cleared the accessed bits of the process (/proc/PID/clear_refs) and then raised its
 * epoch. At the first call after that all pages are compared; the call itself changed their
 * protection and so flushed their translations, and from then on no access goes without setting
 * the bit again (Intel SDM vol. 3A 4.8). It holds for private memory that changes by its owner's
 * instructions, and is not writable at this moment: a call that leaves it writable need not have
 * flushed anything. What can hide a write (the page reclaim clearing bits, another process writing
 * through ptrace) is made good at the next epoch, a few seconds later: docs/limitations.md.
 *
 * Before user space clears the bits it takes the old epoch back. The entries were read before the
 * epoch is looked at here, so bits that are gone are never taken for pages that were not used.
 */
__noinline int find_untouched_pages(void)
{
	struct page_job *job = this_job();
	struct region_key key = {};
	struct group_hashes *hashes;
	struct trace_target *target;
	__u64 untouched = 0;

	if (!job)
		return 0;
	job->untouched = 0;
	target = current_target();
	if (!target || !job->epoch || target->epoch != job->epoch)
		return 0;
	key = key_of(&job->event.header, job->group);
	hashes = find_hashes(&key);
	if (!hashes)
		return 0;
	if (hashes->epoch != job->epoch) {
		hashes->epoch = job->epoch; /* all of them are about to be compared */
		return 0;
	}
#pragma clang loop unroll(disable)
	for (int i = 0; i < GROUP_PAGES; i++) {
		__u64 used = (job->entries[i] & (ENTRY_PRESENT | ENTRY_ACCESSED)) ^ ENTRY_PRESENT;

		untouched |= (is_nonzero(hashes->pages[i].lanes[0]) & ~is_nonzero(used)) << i;
	}
	job->untouched = untouched;
	return 0;
}

/* Take page `index` of the current group, if it belongs to the region. */
__noinline int take_page(__u64 index)
{
	struct page_job *job = this_job();
	__u64 address, entry = 0;
	bool cached;
	char probe;

	if (!job)
		return 0;
	index %= GROUP_PAGES; /* known to be so, but not to the verifier */
	address = job->group + index * PAGE_BYTES;
	if (job->present)
		entry = job->entries[index];
	cached = job->cached >> index & 1;
	if (job->listing && (entry || cached))
		return 0;
	if (job->untouched >> index & 1) {
		job->outcome.unchanged++;
		count(COUNTER_UNCHANGED, 1);
		return 0;
	}
	if (have_page_tables() && !entry && !(cached && page_array_base)) {
		if (job->listing)
			forget_page(address);
		add_absent(job, address, 1, cached);
		return 0;
	}
	if (entry && !(entry & (ENTRY_PRESENT | ENTRY_PROTNONE))) {
		add_unread(job, address, MISSING_SWAPPED);
		return 0;
	}
	if (!entry && !cached && bpf_probe_read_user(&probe, 1, (void *)address)) {
		add_unread(job, address, MISSING_NOT_PRESENT);
		return 0;
	}
	if (!job->pages_left) {
		add_unread(job, address, MISSING_DEFERRED);
		return 0;
	}
	job->pages_left--;
	if (job->hot)
		compare_page(address, entry);
	else
		copy_page(address, entry);
	return 0;
}

/* Where in the current group the next page is. */
static __always_inline __u64 first_page(const struct page_job *job)
{
	return (job->cursor - job->group) / PAGE_BYTES % GROUP_PAGES;
}

/* A bit for each page of the current group that belongs to the region. */
static __always_inline __u64 pages_in_region(const struct page_job *job)
{
	__u64 left = job->limit - job->group;
	__u64 pages = ~0ULL << first_page(job);

	if (left < GROUP_BYTES)
		pages &= (1ULL << left / PAGE_BYTES % GROUP_PAGES) - 1;
	return pages;
}

/*
 * Pages are sent without comparing: what was sent before is not what was last sent. (A page may
 * lie in a hot region and, by itself, in one that is not.)
 */
static __always_inline void forget_hashes(struct page_job *job)
{
	struct region_key key = key_of(&job->event.header, job->group);

	bpf_map_delete_elem(&page_hashes, &key);
}

/*
 * Take the next page if it is the only one and can be read: that says that it is there, for less than its
 * tables do. Returns whether it was so.
 */
static __always_inline bool take_single(struct page_job *job)
{
	__u64 index = first_page(job);
	char probe;

	if (job->limit - job->cursor != PAGE_BYTES || job->remote || job->listing ||
	    bpf_probe_read_user(&probe, sizeof(probe), (void *)job->cursor))
		return false;
	job->present = 1;
	job->entries[index] = ENTRY_PROTNONE; /* there, where is not known */
	take_page(index);
	job->cursor = job->limit;
	return true;
}

/*
 * Take one group of up to 64 pages, or skip one larger stretch with nothing in it. Returns nonzero
 * at the end of the region.
 */
static __always_inline int step(const enum loop_engine engine)
{
	struct page_job *job = this_job();
	struct mapping_info *mapping;
	bool look_up_cache;
	__u64 next, wanted;

	if (!job || job->cursor >= job->end)
		return 1;
	mapping = &job->mapping;
	await_room(0); /* a group's missing and repeat records fit what pages leave free */
	if (job->cursor >= mapping->end)
		enter_mapping(job, engine);
	job->limit = mapping->end < job->end ? mapping->end : job->end;
	if (is_private_memory(mapping) && !mapping->touched && !job->listing) {
		add_absent(job, job->cursor, (job->limit - job->cursor) / PAGE_BYTES, false);
		job->cursor = job->limit;
		return 0;
	}
	job->group = group_of(job->cursor);
	if (!job->hot)
		forget_hashes(job);
	job->cached = 0;
	job->untouched = 0;
	job->leave_no_trace = 0;
	job->present = 0;
	if (take_single(job))
		return 0;
	look_up_cache = needs_page_cache(mapping);
	if (have_page_tables())
		job->present = read_entries(job->group);
	if (look_up_cache)
		find_cached_pages(mapping->inode_address, file_page(mapping, job->group));
	if (have_page_tables() && !job->present &&
	    (!look_up_cache || (mapping->memory_file && !job->cached))) {
		if (job->listing)
			forget_hashes(job);
		if (job->listing || look_up_cache)
			job->span = GROUP_BYTES;
		next = after_span(job, job->cursor);
		next = next < job->limit ? next : job->limit;
		add_absent(job, job->cursor, (next - job->cursor) / PAGE_BYTES, false);
		job->cursor = next;
		return 0;
	}
	if (!look_up_cache && job->hot && job->epoch && job->present && is_private_memory(mapping) &&
	    !(mapping->flags & VM_WRITE) && job->cursor == job->group &&
	    job->limit - job->group >= GROUP_BYTES) {
		job->leave_no_trace = 1;
		find_untouched_pages();
	}
	if (job->untouched == ~0ULL) {
		job->outcome.unchanged += GROUP_PAGES;
		count(COUNTER_UNCHANGED, GROUP_PAGES);
	} else {
		wanted = pages_in_region(job);
#pragma clang loop unroll(disable)
		for (__u64 i = first_page(job); i < GROUP_PAGES && wanted >> i; i++)
			take_page(i);
	}
	next = job->group + GROUP_BYTES;
	job->cursor = next < job->limit ? next : job->limit;
	return 0;
}

__noinline int step_with_tree(void)
{
	return step(ENGINE_BOUNDED);
}

/* By itself, so that the verifier goes through its thousands of turns once. */
__noinline int walk_with_tree(void)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < BOUNDED_STEPS; i++) {
		if (step_with_tree())
			break;
	}
	return 0;
}

__noinline int step_with_lookup(void)
{
	return step(ENGINE_CALLBACK);
}

static long step_callback(__u32 index, void *context)
{
	int done = step_with_lookup();

	/* A compiler that sees that it is 0 or 1 anyway does not say so to the verifier. */
	barrier_var(done);
	return done != 0;
}

/* Take all pages of the prepared job, with the loop this variant's kernels have. */
static __always_inline void take_pages(struct page_job *job, const enum loop_engine engine)
{
	if (engine == ENGINE_ITERATOR) {
		bpf_repeat(LOOP_STEPS)
		{
			if (step_with_lookup())
				break;
		}
	} else if (engine == ENGINE_CALLBACK) {
		bpf_loop(LOOP_STEPS, step_callback, NULL, 0);
	} else {
		walk_with_tree();
	}
	if (job->cursor < job->end && !job->listing)
		add_missing(job->cursor, (job->end - job->cursor) / PAGE_BYTES, MISSING_DEFERRED);
}

/*
 * Of regions that are compared, absent pages are only counted: a runtime's 128 MiB have few others.
 * When the count says that some were discarded since (they were `absent_before`, less those that
 * came), walk once more and name them: what was captured of them is no longer there.
 */
static __always_inline void list_absent(struct page_job *job, __u64 absent_before,
					const enum loop_engine engine)
{
	__u64 absent = job->outcome.absent;

	if (!have_page_tables() || absent + job->discovered == absent_before)
		return;
	job->cursor = job->first;
	job->mapping.end = 0; /* look it up anew */
	job->listing = 1;
	take_pages(job, engine);
	flush_missing(job);
	job->listing = 0;
}

#endif
