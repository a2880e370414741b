/* SPDX-License-Identifier: GPL-2.0-only */
/* What lies at an address: the VMA, the file behind it, the file's path. */
#ifndef MAPPING_BPF_H
#define MAPPING_BPF_H

#include "emit.bpf.h"

/*
 * How a program variant looks up VMAs and repeats work. The loader picks the variant by what the
 * kernel's BTF offers; program names end in these words.
 */
enum loop_engine {
	ENGINE_BOUNDED,  /* 5.8: a loop the verifier unrolls in thought, the tree of mappings */
	ENGINE_CALLBACK, /* 5.17: bpf_loop, bpf_find_vma */
	ENGINE_ITERATOR, /* 6.4: open-coded iterators, bpf_find_vma */
};

/* Its files are nowhere else: what is not in memory is a hole. */
static __always_inline bool is_memory_file_system(unsigned long magic)
{
	return magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC;
}

static __always_inline void read_mapping(struct vm_area_struct *vma, struct mapping_info *out,
					 const bool known)
{
	struct file *file = READ_BY(known, vma, vm_file);

	out->start = READ_BY(known, vma, vm_start);
	out->end = READ_BY(known, vma, vm_end);
	out->flags = READ_BY(known, vma, vm_flags);
	out->file = (__u64)file;
	out->touched = READ_BY(known, vma, anon_vma) != NULL;
	out->special = !file && READ_BY(known, vma, vm_ops) != NULL;
	out->waits = faults_in_user_space(vma, known);
	out->known = 1;
	if (file) {
		struct inode *inode = READ_BY(known, file, f_inode);
		__s64 changed_ns = change_time(inode, known);
		unsigned long magic = READ_BY(known, inode, i_sb, s_magic);

		out->inode_address = (__u64)inode;
		out->file_pages = ((__u64)READ_BY(known, inode, i_size) + PAGE_BYTES - 1) / PAGE_BYTES;
		out->inode = READ_BY(known, inode, i_ino);
		out->device = READ_BY(known, inode, i_sb, s_dev);
		out->unlinked = READ_BY(known, inode, i_nlink) == 0;
		out->recent = changed_ns >= configured.files_since_ns;
		out->changed = changed_ns >= configured.started_ns;
		out->waits |= magic == FUSE_SUPER_MAGIC;
		out->memory_file = is_memory_file_system(magic) && (out->unlinked || out->flags & VM_SHARED);
		out->viewed = out->flags & VM_SHARED &&
			      (!(READ_BY(known, inode, i_flags) & S_PRIVATE) ||
			       READ_BY(known, inode, i_mapping, i_mmap_writable.counter) > 1);
		out->by_value = out->unlinked || out->memory_file || out->recent;
		out->file_offset = READ_BY(known, vma, vm_pgoff) * PAGE_BYTES;
	}
}

/* Make job->mapping that of job->vma: what functions verified by themselves take must be a number. */
__noinline int note_mapping(void)
{
	struct page_job *job = this_job();

	if (!job)
		return 0;
	__builtin_memset(&job->mapping, 0, sizeof(job->mapping));
	read_mapping(bpf_rdonly_cast((void *)job->vma, bpf_core_type_id_kernel(struct vm_area_struct)),
		     &job->mapping, true);
	return 0;
}

/* Runs under the mmap lock, inside bpf_find_vma. */
static long on_mapping(struct task_struct *task, struct vm_area_struct *vma, void *context)
{
	struct page_job *job = this_job();

	if (job)
		read_mapping(vma, &job->mapping, true);
	return 0;
}

/* A tree of all 65,530 mappings that a process may have is no deeper. */
#define TREE_DEPTH 34

/*
 * Make job->mapping the one at `address`, on kernels without bpf_find_vma. No lock is held: while
 * another thread maps something a mapping may be missed, but never a wrong one found.
 */
__noinline int find_in_tree(__u64 address)
{
	struct mm_struct___tree *mm = (void *)BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), mm);
	struct page_job *job = this_job();
	struct vm_area_struct *vma;
	struct rb_node *node;

	if (!job)
		return 0;
	__builtin_memset(&job->mapping, 0, sizeof(job->mapping));
	if (!bpf_core_field_exists(mm->mm_rb))
		return 0;
	node = BPF_CORE_READ(mm, mm_rb.rb_node);
#pragma clang loop unroll(disable)
	for (int depth = 0; depth < TREE_DEPTH && node; depth++) {
		vma = (void *)node - bpf_core_field_offset(struct vm_area_struct___tree, vm_rb);
		if (address >= BPF_CORE_READ(vma, vm_end)) {
			node = BPF_CORE_READ(node, rb_right);
		} else if (address < BPF_CORE_READ(vma, vm_start)) {
			node = BPF_CORE_READ(node, rb_left);
		} else {
			read_mapping(vma, &job->mapping, false);
			break;
		}
	}
	return 0;
}

/*
 * The tree of mappings since Linux 6.1 (include/linux/maple_tree.h): a node's pivots are the last addresses
 * that its slots cover; pivots beyond the last one used are 0. The lowest byte of a pointer to a node says
 * of what type it is.
 */
#define TREE_NODE_MASK 255ULL
#define TREE_TYPE(node) ((node) >> 3 & 15)
#define TREE_LEVELS 8

/* Go from job->tree_node down to what covers `address`: a node, or at the end the mapping. Zero at the end. */
__noinline int find_slot(__u64 address)
{
	struct page_job *job = this_job();
	__u32 slots, pivots, i;
	__u64 node, type, pivot;

	if (!job || !kernel_has_cast())
		return 0;
	node = job->tree_node & ~TREE_NODE_MASK;
	type = TREE_TYPE(job->tree_node);
	job->tree_node = 0;
	if (!node || bpf_probe_read_kernel(job->tree_words, sizeof(job->tree_words), (void *)node))
		return 0;
	if (type == TREE_ARANGE) {
		slots = bpf_core_field_offset(struct maple_arange_64___any, slot) / sizeof(__u64);
		pivots = bpf_core_field_offset(struct maple_arange_64___any, pivot) / sizeof(__u64);
	} else {
		slots = bpf_core_field_offset(struct maple_range_64___any, slot) / sizeof(__u64);
		pivots = bpf_core_field_offset(struct maple_range_64___any, pivot) / sizeof(__u64);
	}
	slots %= TREE_NODE_WORDS;
	pivots %= TREE_NODE_WORDS;
#pragma clang loop unroll(disable)
	for (i = 0; i < TREE_NODE_WORDS / 2 && pivots + i < slots; i++) {
		pivot = job->tree_words[(pivots + i) % TREE_NODE_WORDS];
		if (address <= pivot || (i && !pivot))
			break;
	}
	job->tree_node = job->tree_words[(slots + i) % TREE_NODE_WORDS];
	return type >= TREE_RANGE;
}

/*
 * Make job->mapping the one at `address`, by job->tree. While the current thread holds the lock to write, which
 * bpf_find_vma would like to have, nobody else changes the tree. Before it has the lock, somebody may: nodes and
 * mappings are not freed while a program runs (RCU), but one that is no longer a part of the tree may be found.
 * So it may with bpf_find_vma, which gives the lock back, and costs more.
 */
__noinline int find_in_maple(__u64 address)
{
	struct page_job *job = this_job();
	struct vm_area_struct *vma;

	if (!job || !kernel_has_cast())
		return 0;
	if (job->mapping.known && address >= job->mapping.start && address < job->mapping.end)
		return 0;
	__builtin_memset(&job->mapping, 0, sizeof(job->mapping));
	job->tree_node = job->tree;
#pragma clang loop unroll(disable)
	for (int level = 0; level < TREE_LEVELS; level++) {
		if (!find_slot(address))
			break;
	}
	if (!job->tree_node)
		return 0;
	vma = bpf_rdonly_cast((void *)job->tree_node, bpf_core_type_id_kernel(struct vm_area_struct));
	read_mapping(vma, &job->mapping, true);
	job->mapping.known = vma->vm_mm == this_task()->mm && address >= job->mapping.start &&
			     address < job->mapping.end;
	return 0;
}

/* Look mappings up in the tree of the current process `mm`, until job->tree is 0 again. */
static __always_inline void use_tree(struct page_job *job, struct mm_struct *mm)
{
	struct mm_struct___maple *maple = (void *)mm;

	job->tree = (__u64)BPF_CORE_READ(maple, mm_mt.ma_root);
	job->mapping.known = 0;
}

/* Counted up when the lock of the mappings is taken to write, and when it is given back (Linux 6.14). */
struct seqcount___any {
	unsigned int sequence;
} __attribute__((preserve_access_index));
struct mm_struct___counted {
	struct seqcount___any mm_lock_seq;
} __attribute__((preserve_access_index));

/* That count, which is odd while somebody holds the lock; odd, too, where the kernel does not count. */
static __always_inline __u32 count_of_changes(void)
{
	struct mm_struct___counted *mm = (void *)READ_CURRENT(mm);

	if (!bpf_core_field_exists(mm->mm_lock_seq.sequence))
		return 1;
	return BPF_CORE_READ(mm, mm_lock_seq.sequence);
}

/*
 * Start to go through the mappings of `task` from `start` on; returns zero, or why that cannot be.
 *
 * It asks for their lock, as does bpf_find_vma, and so runs the programs of the hook mm-lock, which must leave
 * this alone (job->locking): they use the same job, and could end in the program that is running. The kernel
 * lets no program run inside itself, but does not notice where one is reached by a tail call; its stack may be
 * one that each CPU has once (BPF private stacks, Linux 6.13), and both would use it.
 */
static __always_inline int walk_mappings(struct page_job *job, struct bpf_iter_task_vma___open *it,
					 struct task_struct *task, __u64 start)
{
	int error;

	job->locking = 1;
	error = bpf_iter_task_vma_new(it, task, start);
	job->locking = 0;
	return error;
}

/* The same on kernels that have bpf_find_vma. Global, as the verifier would follow each call of it. */
__noinline int find_with_lookup(__u64 address)
{
	struct page_job *job = this_job();
	long error;

	if (!job)
		return 0;
	if (kernel_has_cast() && job->tree) {
		find_in_maple(address);
		return 0;
	}
	__builtin_memset(&job->mapping, 0, sizeof(job->mapping));
	job->locking = 1;
	error = bpf_find_vma(bpf_get_current_task_btf(), address, on_mapping, NULL, 0);
	job->locking = 0;
	if (error && error != -ENOENT)
		count(COUNTER_MAPPING_UNKNOWN, 1);
	return 0;
}

/*
 * Make job->mapping the one at `address`, or `known` zero where there is none or it cannot be known.
 *
 * It is not on the stack, of which all frames together may take 512 bytes. Before Linux 6.9 ("bpf:
 * Fix test verif_scale_strobemeta_subprogs failure due to llvm19") each frame counts as a multiple
 * of 32 there, and there are seven from the exit of a call to send_event.
 */
static __always_inline void find_mapping(struct page_job *job, __u64 address, const enum loop_engine engine)
{
	if (engine == ENGINE_BOUNDED)
		find_in_tree(address);
	else
		find_with_lookup(address);
}

/* Deeper or longer paths lose their head, and show it by not ending in an empty component. */
#define PATH_COMPONENTS 48

/*
 * Append the name at job->path.dentry and move up, across mount points. Returns nonzero at the
 * root. Global, so that the verifier does not follow every way through PATH_COMPONENTS turns.
 */
__noinline int add_path_component(void)
{
	struct page_job *job = this_job();
	struct dentry *dentry, *parent;
	struct mount *mount, *above;
	__u32 used;
	long length;

	if (!job)
		return 1;
	dentry = (void *)job->path.dentry;
	mount = (void *)job->path.mount;
	used = job->path.record.length;
	if (used > TEXT_BYTES - PATH_COMPONENT_BYTES)
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	/* A file without a place in a tree (memfd, shared memory) is its own parent, and has a name. */
	if ((dentry == BPF_CORE_READ(mount, mnt.mnt_root) || dentry == parent) &&
	    (used || dentry != parent)) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount || !above) {
			job->path.record.length = used + 1; /* an empty component: the root */
			return 1;
		}
		job->path.dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
		job->path.mount = (__u64)above;
		return 0;
	}
	length = bpf_probe_read_kernel_str(&job->path.record.text[used], PATH_COMPONENT_BYTES,
					   BPF_CORE_READ(dentry, d_name.name));
	if (length <= 0)
		return 1;
	job->path.record.length = used + length;
	job->path.dentry = (__u64)parent;
	return 0;
}

/*
 * Send the path of the event's file, once per file. Components are sent leaf first, each
 * NUL-terminated; user space turns them round.
 */
__noinline int send_path(__u64 file_address, __u64 inode, __u32 device)
{
	struct file *file = (void *)file_address;
	struct file_key key = {.inode = inode, .device = device};
	struct page_job *job = this_job();
	struct text_record *record;
	__u8 seen = 1;

	if (!job || bpf_map_lookup_elem(&files_sent, &key))
		return 0;
	record = &job->path.record;
	__builtin_memset(record, 0, sizeof(*record));
	fill_header(&record->header, &job->event.header, RECORD_TEXT, sizeof(*record));
	record->kind = TEXT_PATH;
	record->inode = inode;
	record->device = device;
	job->path.dentry = (__u64)BPF_CORE_READ(file, f_path.dentry);
	job->path.mount = (__u64)BPF_CORE_READ(file, f_path.mnt) - bpf_core_field_offset(struct mount, mnt);
#pragma clang loop unroll(disable)
	for (int i = 0; i < PATH_COMPONENTS; i++) {
		if (add_path_component())
			break;
	}
	if (bpf_ringbuf_output(&events, record, sizeof(*record), submit_flags()))
		count(COUNTER_LOST_TEXTS, 1);
	else
		bpf_map_update_elem(&files_sent, &key, &seen, BPF_ANY);
	return 0;
}

/* Describe the event's backing from `mapping`, whose start need not be the event's address. */
static __always_inline void describe_backing(struct event_record *event, const struct mapping_info *mapping)
{
	event->mapping_flags = mapping->flags;
	if (mapping->flags & VM_SHARED)
		event->status |= STATUS_SHARED;
	if (!mapping->device)
		return;
	event->inode = mapping->inode;
	event->device = mapping->device;
	event->file_offset = mapping->file_offset + (event->header.address - mapping->start);
	if (mapping->unlinked)
		event->status |= STATUS_UNLINKED;
	if (mapping->recent)
		event->status |= STATUS_RECENT;
	if (mapping->viewed)
		event->status |= STATUS_VIEWED;
}

#endif
