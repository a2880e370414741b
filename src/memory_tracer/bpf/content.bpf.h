/* SPDX-License-Identifier: GPL-2.0-only */
/* One page: reading its bytes, comparing them with what was last sent, sending them. */
#ifndef CONTENT_BPF_H
#define CONTENT_BPF_H

#include "mapping.bpf.h"
#include "pagecache.bpf.h"
#include "pagetable.bpf.h"

/* A page is hashed in so many parts: one is all that the verifier walks through. */
#define HASH_PARTS 8
#define PART_WORDS (PAGE_BYTES / 8 / HASH_PARTS)

/* Add part `part` of the page read to its hash. */
__noinline int hash_part(__u64 part)
{
	struct page_job *job = this_job();
	__u64 first, plain, swapped;

	if (!job)
		return 0;
	first = part % HASH_PARTS * PART_WORDS;
	plain = job->hash.lanes[0];
	swapped = job->hash.lanes[1];
#pragma clang loop unroll_count(8)
	for (__u64 i = 0; i < PART_WORDS; i++) {
		__u64 word = ((const __u64 *)job->outgoing.content)[first + i];

		plain += word * configured.hash_key[first + i];
		swapped += __builtin_bswap64(word) * configured.hash_key[PAGE_BYTES / 8 + first + i];
	}
	job->hash.lanes[0] = plain;
	job->hash.lanes[1] = swapped;
	return 0;
}

/*
 * Two multilinear sums modulo 2^64 with independent keys. If the lowest differing bit of two pages
 * is bit v of its word, one sum misses the difference with probability 2^-(64-v) over the key: too
 * often for high bits. The second sum therefore takes every word byte-swapped, and both together
 * miss any difference, whoever chose it, with probability at most 2^-58. (Halevi and Krawczyk,
 * "MMH", 1997, is the idea; sums of products of pairs share the weakness and cure only half.)
 */
static __always_inline void hash_outgoing(struct page_job *job)
{
	job->hash.lanes[0] = ~0ULL; /* zero means "nothing known", so a page of zeros must not */
	job->hash.lanes[1] = 0;
#pragma clang loop unroll(disable)
	for (__u64 part = 0; part < HASH_PARTS; part++)
		hash_part(part);
}

/* Which page of its file `address` is. May be "negative" for an address before the mapping. */
static __always_inline __u64 file_page(const struct mapping_info *mapping, __u64 address)
{
	return mapping->file_offset / PAGE_BYTES + address / PAGE_BYTES - mapping->start / PAGE_BYTES;
}

/*
 * Read one page of the target: as the target would, else through the direct map. Without an entry
 * in the page tables, from the cache of the file behind it.
 */
static __always_inline long read_page(struct page_job *job, void *to, __u64 address, __u64 entry,
				      __u16 *flags)
{
	__u64 index = address / PAGE_BYTES % GROUP_PAGES;

	*flags = 0;
	if (have_page_tables() && !entry) {
		const struct mapping_info *mapping = &job->mapping;

		if (read_cached_page(mapping->inode_address, file_page(mapping, address)))
			return -1;
		return to == job->outgoing.content
			       ? 0
			       : bpf_probe_read_kernel(to, PAGE_BYTES, job->outgoing.content);
	}
	/*
	 * Another process goes on running: what its mapping did not allow to be written to, and its page
	 * table does, has stopped being executable since the mapping was looked at.
	 */
	if (job->remote && entry & ENTRY_WRITABLE && !(job->mapping.flags & VM_WRITE))
		return -1;
	if ((job->leave_no_trace || job->remote) && entry & ENTRY_PRESENT &&
	    !read_physical(job, to, index, entry))
		return 0;
	if (job->remote)
		return -1;
	if (!bpf_probe_read_user(to, PAGE_BYTES, (void *)address))
		return 0;
	/* Execute-only memory (protection keys) refuses user reads, not us. */
	*flags = FLAG_PHYSICAL;
	return entry & ENTRY_PRESENT ? read_physical(job, to, index, entry) : -1;
}

/* Why reading failed: a page that is mapped should have been readable. */
static __always_inline __u32 unread_reason(__u64 entry)
{
	return entry ? MISSING_UNREADABLE : MISSING_NOT_PRESENT;
}

/* Send the page at `address` straight from the target. */
__noinline int copy_page(__u64 address, __u64 entry)
{
	struct page_job *job = this_job();
	struct page_record *record;
	__u16 flags;

	if (!job)
		return 0;
	record = may_send_page(job) ? bpf_ringbuf_reserve(&events, sizeof(*record), 0) : NULL;
	if (!record) {
		add_missing(address, 1, overflow(job));
		return 0;
	}
	if (read_page(job, record->content, address, entry, &flags)) {
		bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
		add_missing(address, 1, unread_reason(entry));
		return 0;
	}
	fill_page_header(record, &job->event.header, address, flags);
	bpf_ringbuf_submit(record, submit_flags());
	job->outcome.captured++;
	count(COUNTER_PAGES, 1);
	return 0;
}

/*
 * The hashes of a group, made when missing. All zero, no page counts as known: a page whose hash
 * were zero would be sent again each time.
 */
static __always_inline struct group_hashes *find_hashes(const struct region_key *key)
{
	static const struct group_hashes nothing = {};
	struct group_hashes *hashes = bpf_map_lookup_elem(&page_hashes, key);

	if (hashes)
		return hashes;
	bpf_map_update_elem(&page_hashes, key, &nothing, BPF_NOEXIST);
	return bpf_map_lookup_elem(&page_hashes, key);
}

/* This is what was last sent of the page at `address`. */
static __always_inline void remember_page(const struct region_key *key, __u64 address,
					  const struct page_hash *hash)
{
	struct group_hashes *group = find_hashes(key);

	if (group)
		group->pages[address / PAGE_BYTES % GROUP_PAGES] = *hash;
}

/* From now on the page at `address` counts as never sent. */
__noinline int forget_page(__u64 address)
{
	struct page_job *job = this_job();
	struct group_hashes *group;
	struct region_key key = {};

	if (!job)
		return 0;
	key = key_of(&job->event.header, group_of(address));
	group = bpf_map_lookup_elem(&page_hashes, &key);
	if (group)
		group->pages[address / PAGE_BYTES % GROUP_PAGES].lanes[0] = 0;
	return 0;
}

/*
 * Note a page of a region that is compared: what user space finds there later, it finds unseen by us.
 * A pass leaves it to the next, as does a look before just any call.
 */
static __always_inline void add_unread(struct page_job *job, __u64 address, __u32 reason)
{
	if (comes_again(job)) {
		job->outcome.deferred++;
		return;
	}
	forget_page(address);
	add_missing(address, 1, reason);
}

/* Send the page that was read, if there is room for it. */
static __always_inline bool send_outgoing(struct page_job *job, __u64 address, __u16 flags)
{
	struct page_record *record = &job->outgoing;

	if (!may_send_page(job))
		return false;
	fill_page_header(record, &job->event.header, address, flags);
	return !bpf_ringbuf_output(&events, record, sizeof(*record), submit_flags());
}

/* Send the page at `address` if its bytes differ from those last sent. */
__noinline int compare_page(__u64 address, __u64 entry)
{
	struct page_job *job = this_job();
	struct group_hashes *group;
	struct region_key key = {};
	struct page_hash *known;
	__u16 flags;

	if (!job)
		return 0;
	if (read_page(job, job->outgoing.content, address, entry, &flags)) {
		add_unread(job, address, unread_reason(entry));
		return 0;
	}
	hash_outgoing(job);
	job->compared++;
	key = key_of(&job->event.header, group_of(address));
	group = bpf_map_lookup_elem(&page_hashes, &key);
	if (group) {
		known = &group->pages[address / PAGE_BYTES % GROUP_PAGES];
		if (same_hash(known, &job->hash)) {
			job->outcome.unchanged++;
			count(COUNTER_UNCHANGED, 1);
			return 0;
		}
	}
	if (!group || !group->pages[address / PAGE_BYTES % GROUP_PAGES].lanes[0])
		job->discovered++;
	send_event();
	if (job->sent_sequence && job->sent_flags == flags && same_hash(&job->sent_hash, &job->hash)) {
		add_repeat(job, address);
		remember_page(&key, address, &job->hash);
		return 0;
	}
	flush_repeat();
	if (!send_outgoing(job, address, flags)) {
		/* What comes again is not lost yet. */
		add_unread(job, address, comes_again(job) ? MISSING_RING_FULL : overflow(job));
		return 0;
	}
	job->sent_sequence = job->outgoing.header.sequence;
	job->sent_flags = flags;
	job->sent_hash = job->hash;
	job->outcome.captured++;
	count(COUNTER_PAGES, 1);
	remember_page(&key, address, &job->hash);
	return 0;
}

#endif
