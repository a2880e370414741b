/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages of a file are in memory, read from its page cache.
 *
 * Shared memory (a memfd, System V, an anonymous MAP_SHARED such as PHP's JIT buffer) that is not
 * in this process's page tables is either a hole, which reads as zeros, or has bytes that somebody
 * else wrote. Only the second is missing from a capture. The page cache knows: it is an XArray,
 * whose leaves hold 64 pages each (lib/xarray.c, include/linux/xarray.h). Of files on disk it holds
 * what was written or read lately.
 */
#ifndef PAGECACHE_BPF_H
#define PAGECACHE_BPF_H

#include "state.bpf.h"

#define XA_SLOTS 64
#define XA_SHIFT 6
#define XA_MAX_DEPTH 11
#define XA_INTERNAL_MAX 4096 /* smaller "nodes" are markers, such as siblings of a large folio */

/* A large folio stands in its first slot; this one says which that is. */
static __always_inline bool xa_is_sibling(__u64 entry)
{
	return (entry & 3) == 2 && entry >> 2 < XA_SLOTS;
}

static __always_inline bool xa_is_node_entry(__u64 entry)
{
	return (entry & 3) == 2 && entry > XA_INTERNAL_MAX;
}

/* Go from the node job->leaf_entry down to the next on the way to page `index`; zero: no further. */
__noinline int descend(__u64 index, __u32 depth)
{
	struct page_job *job = this_job();
	struct xa_node *node;
	__u64 entry, slot;
	__u8 shift;

	if (!job || !xa_is_node_entry(job->leaf_entry))
		return 0;
	node = (void *)(job->leaf_entry - 2);
	job->leaf_entry = 0;
	shift = BPF_CORE_READ(node, shift);
	if (shift > 57 || (!depth && index >> (shift + XA_SHIFT)))
		return 0; /* beyond what the tree covers */
	if (!shift) {
		job->leaf = (__u64)node;
		return 0;
	}
	job->leaf_shift = shift;
	slot = (index >> shift) % XA_SLOTS;
	bpf_core_read(&entry, sizeof(entry), &node->slots[slot]);
	if (xa_is_sibling(entry)) {
		job->leaf_offset = (slot - (entry >> 2)) << shift;
		bpf_core_read(&entry, sizeof(entry), &node->slots[(entry >> 2) % XA_SLOTS]);
	}
	job->leaf_entry = entry;
	return 1;
}

/*
 * Find the leaf node for page `index` of the file behind `inode_address`. Sets job->leaf to its
 * address, or to 0 with job->leaf_entry saying what covers all of it: 0 for a hole, else a folio
 * larger than a leaf, which begins job->leaf_offset pages before what a leaf would cover.
 */
static __always_inline void find_leaf(struct page_job *job, __u64 inode_address, __u64 index)
{
	struct inode *inode = (void *)inode_address;

	job->leaf = 0;
	job->leaf_entry = (__u64)BPF_CORE_READ(inode, i_mapping, i_pages.xa_head);
	job->leaf_shift = 0;
	job->leaf_offset = 0;
	if (!xa_is_node_entry(job->leaf_entry) && index)
		job->leaf_entry = 0; /* a lone entry is page 0 */
#pragma clang loop unroll(disable)
	for (__u32 depth = 0; depth < XA_MAX_DEPTH; depth++) {
		if (!descend(index, depth))
			break;
	}
}

/* The slot of page `index`: a folio, a sibling of one, a swap entry, or 0 for a hole. */
static __always_inline __u64 read_slot(struct page_job *job, __u64 inode_address, __u64 index)
{
	struct xa_node *node;
	__u64 entry;

	find_leaf(job, inode_address, index);
	entry = job->leaf_entry;
	if (job->leaf) {
		node = (void *)job->leaf;
		bpf_core_read(&entry, sizeof(entry), &node->slots[index % XA_SLOTS]);
	}
	return entry;
}

/* The struct page behind the slot of page `index`, or 0. The pages of a folio are adjacent in memory. */
__noinline __u64 find_cached_page(__u64 inode_address, __u64 index)
{
	__u64 entry, first = index % XA_SLOTS;
	struct page_job *job = this_job();
	struct xa_node *node;

	if (!job)
		return 0;
	entry = read_slot(job, inode_address, index);
	if (job->leaf && xa_is_sibling(entry)) {
		node = (void *)job->leaf;
		first = entry >> 2;
		bpf_core_read(&entry, sizeof(entry), &node->slots[first % XA_SLOTS]);
	}
	job->cached_folio = entry;
	if (!entry || entry & 3)
		return 0;                  /* a hole, in swap, or changing */
	if (!job->leaf && job->leaf_shift) /* a folio larger than a leaf */
		return entry + (job->leaf_offset + (index & ((1ULL << job->leaf_shift) - 1))) *
				       bpf_core_type_size(struct page);
	return entry + (index % XA_SLOTS - first) * bpf_core_type_size(struct page);
}

static __always_inline __u64 physical_of(__u64 page)
{
	return (page - page_array_base) / bpf_core_type_size(struct page) * PAGE_BYTES;
}

/* Before that, a page is still being read from disk, or was allocated and not yet cleared. */
static __always_inline bool is_up_to_date(__u64 folio)
{
	__u64 flags = 0;

	/* Its flags are the first word of a struct page, under whatever type (mm_types.h). */
	bpf_probe_read_kernel(&flags, sizeof(flags), (void *)folio);
	return flags >> bpf_core_enum_value(enum pageflags, PG_uptodate) & 1;
}

/*
 * Copy page `index` of a file from its page cache. Fails when the cache holds another page there
 * afterwards: this one may be somebody else's by now.
 */
__noinline int read_cached_page(__u64 inode_address, __u64 index)
{
	struct page_job *job = this_job();

	if (!job || !page_array_base)
		return -1;
	job->cached_page = find_cached_page(inode_address, index);
	if (job->cached_page < page_array_base || !is_up_to_date(job->cached_folio))
		return -1;
	if (bpf_probe_read_kernel(job->outgoing.content, PAGE_BYTES,
				  (void *)(direct_map_base + physical_of(job->cached_page))))
		return -1;
	return find_cached_page(inode_address, index) == job->cached_page ? 0 : -1;
}

/* Note in job->cached whether page `first` + `i` of the file is in memory; to be asked one after the other. */
__noinline int note_cached_page(__u64 inode_address, __u64 first, __u32 i)
{
	__u64 index = first + i, entry;
	struct page_job *job = this_job();

	if (!job)
		return 0;
	if (!i || index % XA_SLOTS == 0 || index == 1) /* a lone entry ends there */
		find_leaf(job, inode_address, index);
	entry = job->leaf_entry;
	if (job->leaf) {
		struct xa_node *node = (void *)job->leaf;

		bpf_core_read(&entry, sizeof(entry), &node->slots[index % XA_SLOTS]);
	}
	if (entry)
		job->cached |= 1ULL << i;
	return 0;
}

/* The same for all pages from `first` + `i` on that are in one leaf; nonzero when each has to be asked for. */
__noinline int note_cached_leaf(__u64 inode_address, __u64 first, __u32 i)
{
	__u64 index = first + i, bits = 0;
	struct page_job *job = this_job();
	struct xa_node *node;

	if (!job)
		return 0;
	find_leaf(job, inode_address, index);
	if (!job->leaf)
		return job->leaf_entry != 0;
	node = (void *)job->leaf;
	if (bpf_core_read(job->slots, sizeof(job->slots), &node->slots[0]))
		return 1;
#pragma clang loop unroll(disable)
	for (__u32 slot = 0; slot < GROUP_PAGES; slot++)
		bits |= is_nonzero(job->slots[slot]) << slot;
	job->cached |= bits >> index % XA_SLOTS << i % GROUP_PAGES;
	return 0;
}

/*
 * Set job->cached: a bit for each of the 64 pages from page `first` of the file on, in memory or
 * not. `first` may be "negative" where a group starts before its mapping.
 */
__noinline int find_cached_pages(__u64 inode_address, __u64 first)
{
	__u64 before = first % XA_SLOTS; /* pages that share the first leaf, and are not asked for */
	struct page_job *job = this_job();

	if (!job)
		return 0;
	job->cached = 0;
	if (!note_cached_leaf(inode_address, first, 0) &&
	    (!before || !note_cached_leaf(inode_address, first, GROUP_PAGES - before)))
		return 0;
	job->cached = 0;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < GROUP_PAGES; i++)
		note_cached_page(inode_address, first, i);
	return 0;
}

#endif
