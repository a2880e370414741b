/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages of a range are present, read from the page tables themselves (x86-64).
 *
 * Trying to read an absent page costs 600 ns, and runtimes flip 128 MiB of which a few pages
 * exist; here an absent 2 MiB costs one look. The tables are read through the kernel's direct map
 * with faults caught, and can change under our feet: what is found is a hint about where bytes
 * are, never the bytes, so a stale look costs a read that fails and nothing else.
 *
 * Where the direct map is was never exported. find_direct_map works it out: the top table's
 * kernel address is known, and a guess of the base is right if translating that address through
 * the tables, under the guess, leads back to it.
 *
 * Layout of entries: Intel SDM vol. 3A 4.5; arch/x86/include/asm/pgtable_types.h.
 */
#ifndef PAGETABLE_BPF_H
#define PAGETABLE_BPF_H

#include "state.bpf.h"

#define ENTRY_PRESENT (1ULL << 0)
#define ENTRY_WRITABLE (1ULL << 1)
#define ENTRY_ACCESSED (1ULL << 5)
#define ENTRY_DIRTY (1ULL << 6)
#define ENTRY_HUGE (1ULL << 7)     /* in an upper table: maps memory itself */
#define ENTRY_PROTNONE (1ULL << 8) /* without PRESENT: mapped, but PROT_NONE */
#define TABLE_SLOTS 512
#define GIB (1ULL << 30)

static __always_inline bool have_page_tables(void)
{
	return direct_map_base != 0;
}

static __always_inline __u64 entry_address(__u64 entry)
{
	return entry & configured.physical_mask;
}

/*
 * Translate `address` down to the table whose entries map 4 KiB pages.
 *
 * Returns that table's kernel address; or 0 with *span set to the bytes around `address` that are
 * absent as a whole; or 0 with *huge set to the entry of a huge page that holds it (or did, before
 * it began to migrate), *span its size, *source where the entry is.
 */
static __always_inline __u64 find_table(__u64 top, __u32 levels, __u64 base, __u64 address, __u64 *span,
					__u64 *huge, __u64 *source)
{
	__u64 table = top;

	*huge = 0;
	for (__u32 level = 5; level > 1; level--) {
		__u32 shift = 12 + 9 * (level - 1);
		__u64 entry = 0;

		if (level > levels)
			continue;
		*span = 1ULL << shift;
		*source = table + (address >> shift) % TABLE_SLOTS * sizeof(entry);
		if (bpf_probe_read_kernel(&entry, sizeof(entry), (void *)*source))
			return 0;
		if (level < 4 && (entry & ENTRY_HUGE || (entry && !(entry & ENTRY_PRESENT)))) {
			*huge = entry;
			return 0;
		}
		if (!(entry & ENTRY_PRESENT))
			return 0;
		table = base + entry_address(entry);
	}
	return table;
}

/*
 * Read the page-table entries of the group at `group` into job->entries. Returns zero when there
 * are none; job->span says how many bytes around `group` share that fate.
 */
__noinline int read_entries(__u64 group)
{
	struct page_job *job = this_job();
	__u64 span = GROUP_BYTES, huge, table, source;

	if (!job)
		return 0;
	table = find_table(job->page_tables, page_table_levels, direct_map_base, group, &span, &huge,
			   &source);
	if (table) {
		__u32 first = group / PAGE_BYTES % TABLE_SLOTS;

		job->span = GROUP_BYTES;
		job->source = table + first * sizeof(__u64);
		job->source_step = sizeof(__u64);
		return !bpf_probe_read_kernel(job->entries, sizeof(job->entries), (void *)job->source);
	}
	job->span = span;
	if (!huge)
		return 0;
	/* Every page of the group lies in one huge page: write its entries out as small ones. */
	job->source = source;
	job->source_step = 0;
	job->huge_entry = huge;
	huge = (huge & ~configured.physical_mask) |
	       ((entry_address(huge) & ~(span - 1)) + (group & (span - 1)));
#pragma clang loop unroll(disable)
	for (int i = 0; i < GROUP_PAGES; i++)
		job->entries[i] = huge + i * PAGE_BYTES;
	job->span = GROUP_BYTES;
	return 1;
}

/* What comes behind the bytes that shared the fate of `address`, by read_entries' last answer. */
static __always_inline __u64 after_span(const struct page_job *job, __u64 address)
{
	return (address & ~(job->span - 1)) + job->span;
}

/*
 * Copy page `index` of the group through the direct map. Fails when its entry is no longer the one
 * that was read: the page may be somebody else's by now.
 */
static __always_inline long read_physical(struct page_job *job, void *to, __u64 index, __u64 entry)
{
	__u64 expected = job->source_step ? entry : job->huge_entry, now = 0;

	if (bpf_probe_read_kernel(to, PAGE_BYTES, (void *)(direct_map_base + entry_address(entry))))
		return -1;
	if (bpf_probe_read_kernel(&now, sizeof(now), (void *)(job->source + index * job->source_step)))
		return -1;
	return (now ^ expected) & ~(ENTRY_ACCESSED | ENTRY_DIRTY) ? -1 : 0;
}

/* Whether the direct map starts at `base`, seen from the top table at kernel address `top`. */
__noinline int direct_map_is_at(__u64 base, __u32 levels, __u64 top)
{
	__u64 span, huge, entry = 0, table, source;

	table = find_table(top, levels, base, top, &span, &huge, &source);
	if (huge)
		return huge & ENTRY_PRESENT &&
		       base + (entry_address(huge) & ~(span - 1)) + (top & (span - 1)) == top;
	if (!table)
		return 0;
	if (bpf_probe_read_kernel(&entry, sizeof(entry),
				  (void *)(table + top / PAGE_BYTES % TABLE_SLOTS * sizeof(entry))))
		return 0;
	return entry & ENTRY_PRESENT && base + entry_address(entry) == top;
}

#endif
