/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages of a file are in memory, read from its page cache.
 *
 * Shared memory (a memfd, System V, an anonymous MAP_SHARED such as PHP's JIT buffer) that is not
 * in this process's page tables is either a hole, which reads as zeros, or has bytes that somebody
 * else wrote. Only the second is missing from a capture. The page cache knows: it is an XArray,
 * whose leaves hold 64 pages each (lib/xarray.c, include/linux/xarray.h).
 */
#ifndef PAGECACHE_BPF_H
#define PAGECACHE_BPF_H

#include "state.bpf.h"

#define XA_SLOTS 64
#define XA_SHIFT 6
#define XA_MAX_DEPTH 11
#define XA_INTERNAL_MAX 4096 /* smaller "nodes" are markers, such as siblings of a large folio */

static __always_inline bool xa_is_node_entry(__u64 entry)
{
	return (entry & 3) == 2 && entry > XA_INTERNAL_MAX;
}

/*
 * Descend to the leaf node for page `index` of the file behind `inode_address`. Sets job->leaf to
 * its address, or to 0 with job->leaf_entry saying what covers all of it: 0 for a hole, else a
 * folio larger than a leaf.
 */
__noinline int find_leaf(__u64 inode_address, __u64 index)
{
	struct inode *inode = (void *)inode_address;
	struct page_job *job = this_job();
	__u64 entry;

	if (!job)
		return 0;
	entry = (__u64)BPF_CORE_READ(inode, i_mapping, i_pages.xa_head);
	job->leaf = 0;
	job->leaf_entry = 0;
	if (!xa_is_node_entry(entry) && index)
		return 0; /* a lone entry is page 0 */
#pragma clang loop unroll(disable)
	for (int depth = 0; depth < XA_MAX_DEPTH; depth++) {
		struct xa_node *node = (void *)(entry - 2);
		__u8 shift;

		if (!xa_is_node_entry(entry)) {
			job->leaf_entry = entry;
			return 0;
		}
		shift = BPF_CORE_READ(node, shift);
		if (shift > 57 || (!depth && index >> (shift + XA_SHIFT)))
			return 0; /* beyond what the tree covers */
		if (!shift) {
			job->leaf = (__u64)node;
			return 0;
		}
		bpf_core_read(&entry, sizeof(entry), &node->slots[(index >> shift) % XA_SLOTS]);
	}
	return 0;
}

/*
 * Set job->cached: a bit for each of the 64 pages from page `first` of the file on, in memory or
 * not. `first` may be "negative" where a group starts before its mapping.
 */
__noinline int find_cached_pages(__u64 inode_address, __u64 first)
{
	struct page_job *job = this_job();

	if (!job)
		return 0;
	job->cached = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < GROUP_PAGES; i++) {
		__u64 index = first + i, entry;

		if (!i || index % XA_SLOTS == 0 || index == 1) /* a lone entry ends there */
			find_leaf(inode_address, index);
		entry = job->leaf_entry;
		if (job->leaf) {
			struct xa_node *node = (void *)job->leaf;

			bpf_core_read(&entry, sizeof(entry), &node->slots[index % XA_SLOTS]);
		}
		if (entry)
			job->cached |= 1ULL << i;
	}
	return 0;
}

#endif
