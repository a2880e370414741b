/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernels from 5.8 on, and between the libbpf headers that describe them.
 *
 * Types that some kernel's vmlinux.h lacks are declared here with a ___suffix, which CO-RE ignores
 * when it looks for them in the running kernel. Nothing here asks for a version number.
 */
#ifndef COMPAT_BPF_H
#define COMPAT_BPF_H

/* Its name means something to the verifier, and some kernel's vmlinux.h lacks it: declared below. */
#define bpf_task_work bpf_task_work___vmlinux
#include "vmlinux.h"
#undef bpf_task_work

/* bpf_tracing.h has to know whose registers it reads; the compiler's target, BPF, does not say. */
#if !defined(__TARGET_ARCH_x86) && !defined(__TARGET_ARCH_arm64)
#define __TARGET_ARCH_x86
#endif

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "memory_tracer.h"

#define NANOSECONDS 1000000000LL

/* From uapi headers, which vmlinux.h does not carry as it has no macros. */
#define PROT_READ 0x1
#define PROT_WRITE 0x2
#define PROT_EXEC 0x4
#define PROT_ALL (PROT_READ | PROT_WRITE | PROT_EXEC)
#define ENOENT 2
#define ENOMEM 12
#define EACCES 13
#define EEXIST 17
#define MAX_ERRNO 4095

/* System call numbers (asm/unistd.h). */
#if defined(__TARGET_ARCH_x86)
#define NR_MMAP 9
#define NR_MPROTECT 10
#define NR_MREMAP 25
#define NR_SHMAT 30
#define NR_PKEY_MPROTECT 329
#elif defined(__TARGET_ARCH_arm64)
#define NR_SHMAT 196
#define NR_MREMAP 216
#define NR_MMAP 222
#define NR_MPROTECT 226
#define NR_PKEY_MPROTECT 288
#endif

/* include/linux/mm.h; the low four agree with PROT_* and have not changed since 2.x. */
#define VM_WRITE 0x2UL
#define VM_EXEC 0x4UL
#define VM_SHARED 0x8UL
#define VM_HUGETLB 0x00400000UL

#define PF_EXITING 0x00000004 /* include/linux/sched.h */
#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x4       /* include/linux/sched/signal.h */
#define S_PRIVATE (1 << 9)          /* include/linux/fs.h: an inode that has no file descriptors */
#define READ_IMPLIES_EXEC 0x0400000 /* include/uapi/linux/personality.h */
#define MAP_SHARED 0x01             /* also set in MAP_SHARED_VALIDATE */
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MAP_FIXED_NOREPLACE 0x100000
#define SHM_REMAP 040000 /* include/uapi/linux/shm.h */
#define MADV_DONTNEED 4
#define MADV_FREE 8
#define MADV_REMOVE 9
#define MADV_DONTNEED_LOCKED 24
#define MADV_GUARD_INSTALL 102
#define IORING_OP_FALLOCATE 17 /* include/uapi/linux/io_uring.h */
#define IORING_OP_MADVISE 25
#define IORING_OP_FTRUNCATE 55
#define TMPFS_MAGIC 0x01021994 /* include/uapi/linux/magic.h */
#define HUGETLBFS_MAGIC 0x958458f6
#define FUSE_SUPER_MAGIC 0x65735546

/*
 * Helpers newer than the oldest kernel. BPF_FUNC_get_current_task_btf is Linux 5.11; BPF_FUNC_task_pt_regs is 5.15
 * (dd6e10fbd9fb "bpf: Add bpf_task_pt_regs() helper").
 */
enum bpf_func_id___newer {
	BPF_FUNC_get_current_task_btf___newer = 0x7ffe,
	BPF_FUNC_task_pt_regs___newer = 0x7fff,
};
#define kernel_has_task_btf()                                                                                \
	bpf_core_enum_value_exists(enum bpf_func_id___newer, BPF_FUNC_get_current_task_btf___newer)
#define kernel_has_task_pt_regs()                                                                            \
	bpf_core_enum_value_exists(enum bpf_func_id___newer, BPF_FUNC_task_pt_regs___newer)

/*
 * A field behind a pointer whose type the verifier knows is a plain load, at a tenth of the price of the
 * helper that has to be called where the pointer is a number to it.
 */
#define READ_BY(known, ...) ((known) ? ___arrow(__VA_ARGS__) : BPF_CORE_READ(__VA_ARGS__))

/* Give a number the type that it is known to point to. Linux 6.2. */
extern void *bpf_rdonly_cast(const void *pointer, __u32 type) __weak __ksym;
#define kernel_has_cast() (&bpf_rdonly_cast != NULL)

/*
 * The current thread, for its fields to be read. Through the pointer as the helper gives it, the verifier would
 * ask of each field whether it is to be trusted, and for that search all names of all types.
 */
static __always_inline struct task_struct *this_task(void)
{
	if (!kernel_has_cast())
		return bpf_get_current_task_btf();
	return bpf_rdonly_cast(bpf_get_current_task_btf(), bpf_core_type_id_kernel(struct task_struct));
}

/* READ_BY of the current thread. */
#define READ_CURRENT(...)                                                                                    \
	(kernel_has_task_btf() ? ___arrow(this_task(), __VA_ARGS__)                                          \
			       : BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), __VA_ARGS__))

#if defined(__TARGET_ARCH_x86)
#define USER32_CS 0x23 /* arch/x86/include/asm/segment.h */
#define runs_32bit_code(registers) ((registers)->cs == USER32_CS)
#else
#define runs_32bit_code(registers) false
#endif

/* The tree of mappings that Linux 6.1 did away with (524e00b36e8c "mm: remove rb tree."). */
struct mm_struct___tree {
	struct rb_root mm_rb;
} __attribute__((preserve_access_index));

struct vm_area_struct___tree {
	struct rb_node vm_rb;
} __attribute__((preserve_access_index));

/* The tree that took its place; the types of its nodes that have no name here are leaves. */
#define TREE_RANGE 2  /* maple_range_64 */
#define TREE_ARANGE 3 /* maple_arange_64 */
struct maple_range_64___any {
	void *parent;
	__u64 pivot[15];
	void *slot[16];
} __attribute__((preserve_access_index));

struct maple_arange_64___any {
	void *parent;
	__u64 pivot[9];
	void *slot[10];
} __attribute__((preserve_access_index));

struct maple_tree___any {
	void *ma_root;
} __attribute__((preserve_access_index));

struct mm_struct___maple {
	struct maple_tree___any mm_mt;
} __attribute__((preserve_access_index));

/* When an inode last changed has stood under three names (6.6: __i_ctime, 6.11: i_ctime_sec). */
struct inode___timespec {
	struct timespec64 i_ctime;
} __attribute__((preserve_access_index));

struct inode___accessors {
	struct timespec64 __i_ctime;
} __attribute__((preserve_access_index));

#define I_CTIME_QUERIED (1U << 31) /* include/linux/fs.h, since Linux 6.13 */
struct inode___seconds {
	time64_t i_ctime_sec;
	u32 i_ctime_nsec;
} __attribute__((preserve_access_index));

/* Nanoseconds since the epoch. */
static __always_inline __s64 change_time(struct inode *inode, const bool known)
{
	struct inode___timespec *timespec = (void *)inode;
	struct inode___accessors *accessors = (void *)inode;
	struct inode___seconds *seconds = (void *)inode;

	if (bpf_core_field_exists(seconds->i_ctime_sec))
		return READ_BY(known, seconds, i_ctime_sec) * NANOSECONDS +
		       (READ_BY(known, seconds, i_ctime_nsec) & ~I_CTIME_QUERIED);
	if (bpf_core_field_exists(accessors->__i_ctime))
		return READ_BY(known, accessors, __i_ctime.tv_sec) * NANOSECONDS +
		       READ_BY(known, accessors, __i_ctime.tv_nsec);
	return READ_BY(known, timespec, i_ctime.tv_sec) * NANOSECONDS +
	       READ_BY(known, timespec, i_ctime.tv_nsec);
}

/*
 * Open-coded iterators. Numbers: Linux 6.4 (06accc8779c1 "bpf: add support for open-coded
 * iterator loops"). VMAs: Linux 6.7 (4ac454682158 "bpf: Introduce task_vma open-coded iterator
 * kfuncs"). libbpf 1.1's headers have neither the kfuncs nor bpf_for/bpf_repeat.
 */
struct bpf_iter_num___open {
	__u64 opaque[1];
} __attribute__((aligned(8)));

struct bpf_iter_task_vma___open {
	__u64 opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num___open *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num___open *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num___open *it) __weak __ksym;

#define kernel_has_iterators() (&bpf_iter_num_new != NULL)

extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma___open *it, struct task_struct *task,
				 __u64 addr) __weak __ksym;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma___open *it) __weak __ksym;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma___open *it) __weak __ksym;

/* Contexts of tracepoints that the oldest kernels lack: mmap_lock 5.11, io_uring_submit_req 5.19. */
struct trace_event_raw_mmap_lock___any {
	struct mm_struct *mm;
	bool write;
} __attribute__((preserve_access_index));

struct trace_event_raw_io_uring_submit_req___any {
	__u8 opcode;
} __attribute__((preserve_access_index));

struct io_kiocb___any {
	__u8 opcode;
} __attribute__((preserve_access_index));

/* Tasks by PID. Linux 6.2, from tracepoints 6.12; see CONFIG_OTHERS. */
extern struct task_struct *bpf_task_acquire(struct task_struct *task) __weak __ksym;
extern struct task_struct *bpf_task_from_pid(s32 pid) __weak __ksym;
extern void bpf_task_release(struct task_struct *task) __weak __ksym;

/* Work that a thread does before it returns to user space. Linux 6.18. */
struct bpf_task_work {
	__u64 __opaque;
} __attribute__((aligned(8)));

extern int bpf_task_work_schedule_resume_impl(struct task_struct *task, struct bpf_task_work *tw,
					      void *map__map,
					      int (*callback)(struct bpf_map *map, void *key, void *value),
					      void *aux__prog) __weak __ksym;
/* Linux 6.10. */
extern void bpf_preempt_disable(void) __weak __ksym;
extern void bpf_preempt_enable(void) __weak __ksym;

/* Whether a mapping's faults are served by user space; not every kernel is built to do that. */
struct vm_userfaultfd_ctx___any {
	void *ctx;
} __attribute__((preserve_access_index));

struct vm_area_struct___any {
	struct vm_userfaultfd_ctx___any vm_userfaultfd_ctx;
} __attribute__((preserve_access_index));

static __always_inline bool faults_in_user_space(struct vm_area_struct *vma, const bool known)
{
	struct vm_area_struct___any *any = (void *)vma;

	return bpf_core_field_exists(any->vm_userfaultfd_ctx.ctx) &&
	       READ_BY(known, any, vm_userfaultfd_ctx.ctx) != NULL;
}

#ifndef bpf_repeat
/*
 * Run the following block `times` times, or until it breaks; the verifier sees one turn.
 * Naming the destructor by itself makes clang emit its BTF, which cleanup() alone does not.
 */
#define bpf_repeat(times)                                                                                    \
	for (struct bpf_iter_num___open ___it __attribute__((cleanup(bpf_iter_num_destroy))),                \
	     *___once __attribute__((unused)) =                                                              \
		     (bpf_iter_num_new(&___it, 0, (times)), (void)bpf_iter_num_destroy, (void *)0);          \
	     bpf_iter_num_next(&___it);)
#endif

#endif
