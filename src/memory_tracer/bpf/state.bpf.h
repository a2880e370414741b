/* SPDX-License-Identifier: GPL-2.0-only */
/* Configuration, maps, and the per-CPU working state. */
#ifndef STATE_BPF_H
#define STATE_BPF_H

#include "compat.bpf.h"

/* Set before load, frozen by libbpf: the verifier folds it and drops what is switched off. */
const volatile struct trace_configuration configured = {};

/*
 * Where the kernel maps all physical memory (page_offset_base, arch/x86/mm/kaslr.c) and how many
 * levels its page tables have. Found by find_direct_map; 0 where it was not found.
 */
__u64 direct_map_base = 0;
__u32 page_table_levels = 0;

/* Where the array of struct page starts (vmemmap_base). Found with it; 0 where it was not. */
__u64 page_array_base = 0;

/*
 * Whether each system call has to be seen. That slows every process of the machine, so with the hook mm-lock
 * it is only asked for once a target has memory that can change without a call, and user space attaches.
 */
struct {
	__u32 wanted;
	__u32 seen;
} all_calls SEC(".data.calls") = {};

struct mmap_args_t {
	__u64 address;
	__u64 length;
	__u64 protection;
	__u64 flags;
	__u64 fd;
	__u64 offset;
	__u64 found; /* where the kernel found room for it; only with the hook mm-lock */
};

struct mprotect_args_t {
	__u64 address;
	__u64 length;
	__u64 protection;
	__s64 key;    /* pkey_mprotect only */
	__u32 kind;   /* enum event_kind */
	__u32 status; /* enum event_status, as known at entry */
	__u32 previous_protection;
	__u32 sequence;      /* of changes to the mappings, before the lock was asked for; odd: not known */
	__u64 changed_start; /* what is outside of these was executable already, and not writable */
	__u64 changed_end;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 20); /* bytes; user space sets it before load */
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64); /* pid_tgid */
	__type(value, struct mmap_args_t);
} mmap_args SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64); /* pid_tgid */
	__type(value, struct mprotect_args_t);
} mprotect_args SEC(".maps");

/* mremap and shmat: calls that place memory whose protection they do not name. */
struct placing_args_t {
	__u64 arguments[5];
	__u64 kind;      /* enum event_kind */
	__u64 result_at; /* where in the caller's memory the address is, if it is not returned */
	__u64 found;     /* as in mmap_args_t */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64); /* pid_tgid */
	__type(value, struct placing_args_t);
} placing_args SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32); /* tgid */
	__type(value, struct trace_target);
} targets SEC(".maps");

/*
 * Sequence numbers and counters. One writer per CPU, so no atomics: the programs run with
 * preemption off, and the sampler interrupts only user code.
 */
struct trace_statistics {
	__u64 sequence;
	__u64 counters[COUNTER_COUNT];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_statistics);
} statistics SEC(".maps");

/* A region's key survives PID reuse because the start time is part of it. */
struct region_key {
	__u64 start_time_ns;
	__u64 address;
	__u32 pid;
	__u32 reserved;
};

static __always_inline struct region_key key_of(const struct record_header *owner, __u64 address)
{
	return (struct region_key){
		.start_time_ns = owner->start_time_ns,
		.address = address,
		.pid = owner->pid,
	};
}

/* How often a region was flipped, and what was left out since its last event. */
struct region_state {
	__u64 calls;
	__u64 coalesced;
	__u64 coalesced_since_ns;
	__u64 last_end_ns;  /* when its pages were last looked at */
	__u64 last_cost_ns; /* and how long that took */
	__u64 absent;       /* pages that were zeros without being there */
	__u64 unread;       /* pages that had bytes which could not be read */
	__u64 epoch;        /* trace_target.epoch at that time */
	__u64 changing;     /* calls in a row of which every page had changed */
	__u64 length;       /* bytes that it had when its pages were last looked at */
	__u64 whole;        /* nonzero: all of these pages are known, and no call was skipped since */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct region_key);
	__type(value, struct region_state);
} regions SEC(".maps");

/* Pages are looked at in groups: one word of presence bits, one hash map value. */
#define GROUP_PAGES 64
#define GROUP_BYTES (GROUP_PAGES * PAGE_BYTES)

static __always_inline __u64 group_of(__u64 address)
{
	return address & ~(GROUP_BYTES - 1ULL);
}

/* Without a branch, which the verifier would follow both ways at each turn of a loop. */
static __always_inline __u64 is_nonzero(__u64 value)
{
	value |= -value;
	barrier_var(value);
	return value >> 63;
}

struct page_hash {
	__u64 lanes[2];
};

static __always_inline bool same_hash(const struct page_hash *one, const struct page_hash *other)
{
	return one->lanes[0] == other->lanes[0] && one->lanes[1] == other->lanes[1];
}

struct group_hashes {
	struct page_hash pages[GROUP_PAGES];
	__u64 epoch; /* trace_target.epoch when all of its pages were last compared */
};

/* What was last sent of each page of a hot region. An evicted group is sent again: no loss. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct region_key);
	__type(value, struct group_hashes);
} page_hashes SEC(".maps");

/* Files whose path was sent already, by device and inode. */
struct file_key {
	__u64 inode;
	__u32 device;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct file_key);
	__type(value, __u8);
} files_sent SEC(".maps");

/* The mapping (VMA) an address lies in. */
struct mapping_info {
	__u64 start;
	__u64 end;
	__u64 flags; /* vm_flags */
	__u64 inode; /* may be 0: the first System V segment */
	__u64 file_offset;
	__u64 file;          /* struct file *, to find the path while the mapping cannot go away */
	__u64 inode_address; /* struct inode *, likewise */
	__u64 file_pages;    /* up to the file's end, beyond which a mapping has nothing to execute */
	__u32 device;        /* 0: anonymous */
	__u8 known;
	__u8 unlinked;
	__u8 touched;     /* anonymous: has had a page (anon_vma set) */
	__u8 special;     /* the kernel's own, such as the vDSO */
	__u8 memory_file; /* shared memory or a memfd: what is not in memory is a hole */
	__u8 by_value;    /* of a file that may not be there later as it is now: its bytes are taken */
	__u8 recent;      /* likewise, and the reason is that it changed lately */
	__u8 changed;     /* it did so during the recording */
	__u8 waits;       /* faulting a page in can wait for user space, for ever: userfaultfd, FUSE */
	__u8 viewed;      /* shared, and others may write to it: a second mapping, or a file descriptor */
	__u8 reserved[2];
};

/* NAME_MAX, and its NUL. */
#define PATH_COMPONENT_BYTES 256

/* A path being written, and how far up it got. */
struct path_walk {
	__u64 dentry; /* struct dentry * */
	__u64 mount;  /* struct mount * */
	struct text_record record;
};

/*
 * Runs of pages that one call may leave to be fetched before it returns, and pages that may be faulted in for
 * that. Pages for which there was no room in the ring are no less there for being many.
 */
#define FETCH_RUNS 32
#define FETCH_PAGES 1024

/* What of an event's region could not be read at once. */
struct fetch_request {
	struct record_header owner; /* the event's */
	__u64 start[FETCH_RUNS];
	__u64 count[FETCH_RUNS]; /* pages */
	__u32 runs;
	__u32 pages;
	__u32 run; /* how far it is done */
	__u32 page;
	__u64 waits_since_ns; /* for room in the ring; 0: does not wait */
	__u32 waits_no_more;  /* it did so for too long */
	__u32 awaits_calls;   /* until all system calls are seen */
};

struct fetch {
	struct fetch_request request;
	struct event_record failed; /* an event that waits for its result; kind 0: none */
	struct bpf_task_work work;
	struct page_record page;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64); /* pid_tgid */
	__type(value, struct fetch);
} fetches SEC(".maps");

/* A node of the tree of mappings (lib/maple_tree.c) has 256 bytes. */
#define TREE_NODE_WORDS 32

/* One call's pages on their way through. Too large for the stack; one per CPU. */
struct page_job {
	__u64 cursor;
	__u64 end;
	__u64 page_tables;  /* pgd of the process, as a kernel address */
	__u64 group;        /* address of the 64 pages being looked at */
	__u64 limit;        /* first address after what they share with the region and its mapping */
	__u64 span;         /* read_entries' answer, and where it found the entries: */
	__u64 source;       /* kernel address of the first */
	__u64 source_step;  /* bytes from one to the next; 0: all pages are parts of one huge page */
	__u64 huge_entry;   /* that page's entry */
	__u64 cached;       /* find_cached_pages' answer */
	__u64 untouched;    /* find_untouched_pages' answer */
	__u64 leaf;         /* find_leaf's answer */
	__u64 cached_page;  /* read_cached_page's source, as found before */
	__u64 cached_folio; /* what that is a part of: the slot's entry */
	__u64 leaf_entry;   /* likewise */
	__u64 leaf_shift;   /* likewise: pages that its slot covers, as a power of two */
	__u64 leaf_offset;  /* likewise: pages of the same folio before them */
	__u64 slots[GROUP_PAGES];
	__u64 repeat_start;
	__u64 repeat_pages;  /* 0: no run open */
	__u64 sent_sequence; /* of the last page record; 0: none */
	__u64 waited_ns;     /* for room in the ring, of configured.wait_ns */
	__u64 missing_start;
	__u64 missing_pages;
	__u32 missing_reason; /* 0: no run open */
	__u32 pages_left;     /* of configured.page_limit */
	__u32 mappings_left;  /* of EXEC_MAPPINGS */
	__u32 epoch;          /* of the target */
	__u64 first;          /* address of the first page that is taken */
	__u64 changed_start;  /* find_changed's answer */
	__u64 changed_end;
	__u32 compared;   /* pages */
	__u32 discovered; /* of these, pages of which nothing was known */
	__u8 hot;
	__u8 event_sent;
	__u8 present;        /* entries holds something */
	__u8 leave_no_trace; /* do not set accessed bits by reading */
	__u16 sent_flags;    /* of the last page record, likewise */
	__u8 may_wait;       /* for room in the ring: nobody can read these bytes later */
	__u8 listing;        /* only naming the absent pages, which were counted before */
	struct mapping_info mapping;
	struct event_record event;
	struct outcome_record outcome;
	struct path_walk path;
	struct user_stack_record stack;
	__u64 frame;       /* where note_frame goes on, */
	__u64 frame_above; /* if it is not below that */
	__u32 is_32bit;    /* the code that called */
	__u32 reserved_stack;
	__u64 tree;      /* root of the mappings; 0: not to be used */
	__u64 tree_node; /* argument of find_slot, and its answer */
	__u64 tree_words[TREE_NODE_WORDS];
	__u64 vma;           /* argument of note_mapping */
	__u64 address_space; /* argument of await_lock */
	__u64 look_start;    /* what the last look is for; see look.bpf.h */
	__u64 look_end;
	__u64 look_call;   /* number of the system call it comes before, if look_before does not say it */
	__u32 look_before; /* enum event_kind */
	__u32 look_pid;    /* whose memory; usually the caller's own */
	__u32 look_tid;    /* a thread that has it */
	__u32 look_compat; /* the system call is one of the 32-bit ABI */
	__u32 look_writes; /* it writes around the protection */
	__u32 has_closing;
	__u32 remote;  /* the memory is not the caller's */
	__u32 passing; /* a step of a pass, and not all there is */
	__u32 silent;  /* only what can change without a call; and it is found to be there, or not: */
	__u32 found_silent;
	__u32 look_captured; /* pages sent in this look, of all mappings */
	__u32 reserved_look;
	struct event_record closing;
	__u64 entries[GROUP_PAGES]; /* page-table entries of the current group */
	struct fetch_request request;
	__u32 may_fetch;
	__u32 overflowed; /* the ring was full: this page and all after it are fetched */
	__u32 awaits_calls;
	__u32 locking;                       /* it is we who ask for a lock of mappings */
	__u8 no_fetch[sizeof(struct fetch)]; /* zeros, to make an entry of fetches from */
	struct page_record outgoing;         /* read before it is known whether it is sent */
	struct page_hash hash;               /* of its content */
	struct page_hash sent_hash;          /* of the last page sent */
};

/* Whether what this look does not see is left to the next one, and nothing is lost by that. */
static __always_inline bool comes_again(const struct page_job *job)
{
	return job->passing || job->silent;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct page_job);
} jobs SEC(".maps");

static __always_inline struct page_job *this_job(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&jobs, &zero);
}

/* The target entry of the current process, or NULL when it is none of ours. */
static __always_inline struct trace_target *current_target(void)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&targets, &pid);
}

/* Whether anything of the process counts: it may be our own launcher, or be outside. */
static __always_inline bool is_traced(const struct trace_target *target)
{
	return !(target->flags & (TARGET_WAITS_FOR_EXEC | TARGET_OUTSIDE));
}

/* The entry of process `pid`, or NULL when nothing of it counts. */
static __always_inline struct trace_target *traced_process(__u32 pid)
{
	struct trace_target *target = bpf_map_lookup_elem(&targets, &pid);

	return target && is_traced(target) ? target : NULL;
}

static __always_inline void count(enum trace_counter which, __u64 amount)
{
	__u32 zero = 0;
	struct trace_statistics *stats = bpf_map_lookup_elem(&statistics, &zero);

	if (stats)
		stats->counters[which] += amount;
}

/* The next sequence number of this CPU; taken for lost records too, so a loss leaves a gap. */
static __always_inline __u64 next_sequence(void)
{
	__u32 zero = 0;
	struct trace_statistics *stats = bpf_map_lookup_elem(&statistics, &zero);

	if (!stats)
		return 0;
	stats->sequence++;
	return (__u64)bpf_get_smp_processor_id() << 48 | stats->sequence;
}

#endif
