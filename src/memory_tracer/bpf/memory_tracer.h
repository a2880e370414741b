/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kernel program and user space agree on: records, counters, configuration.
 *
 * wire/layout.py mirrors the records; tests/unit/test_layout.py holds the two together through
 * the object's BTF. All integers are little-endian and naturally aligned, all padding is named.
 *
 * Every record, with the 8-byte header the ring buffer puts before it, is a multiple of 64 bytes
 * long. Page content therefore always starts on a cache line, and runs of equal records have a
 * constant stride, which user space decodes as one array.
 */
#ifndef MEMORY_TRACER_H
#define MEMORY_TRACER_H

#define WIRE_VERSION 1
#define PAGE_BYTES 4096
#define COMM_BYTES 16
#define TEXT_BYTES 512
#define STACK_FRAMES 23

enum record_type {
	RECORD_EVENT = 1,   /* a call or a step in a process's life */
	RECORD_PAGE = 2,    /* the bytes of one page */
	RECORD_MISSING = 3, /* a run of pages whose bytes are not here, and why */
	RECORD_OUTCOME = 4, /* what became of an event's pages, in numbers */
	RECORD_TEXT = 5,    /* a path or a command line */
	RECORD_REPEAT = 6,  /* a run of pages with the bytes of a page record before it */
	RECORD_STACK = 7,   /* the caller's user stack at an event */
			    /* 8, a thread's registers, is of the ptrace engine: wire/layout.py */
};

/* Values are part of the file format: append only. */
enum event_kind {
	EVENT_MMAP = 1,
	EVENT_MPROTECT = 2,
	EVENT_PKEY_MPROTECT = 3,
	EVENT_MUNMAP = 4,
	EVENT_MREMAP = 5,
	EVENT_SHMAT = 6,
	EVENT_MADVISE = 7,
	EVENT_BASELINE = 16,     /* executable already when the tracer attached (user space) */
	EVENT_EXEC_MAPPING = 17, /* mapped by the kernel itself during execve */
	EVENT_LOOK = 18,         /* looked at once more; enum look_argument tells why */
	EVENT_SAMPLE = 19,       /* found executing by the sampler */
	EVENT_FETCH = 20,        /* about to be executed: the first fetch faulted (ptrace) */
	EVENT_FORK = 32,
	EVENT_THREAD = 33,
	EVENT_EXEC = 34,
	EVENT_EXIT = 35,
	EVENT_THREAD_EXIT = 36,
};

/*
 * The arguments of a look: before which event it came; 0 when what was about to happen has no event
 * of its own, but is system call `number` (of the 32-bit ABI if `compat`) of process `caller`.
 */
enum look_argument {
	LOOK_BEFORE = 0,
	LOOK_NUMBER = 1,
	LOOK_COMPAT = 2,
	LOOK_CALLER = 3,
};

/* Bits of record_header.flags. */
enum record_flags {
	FLAG_LATE = 1 << 0,     /* obtained by user space, some time after the event */
	FLAG_PHYSICAL = 1 << 1, /* the page refused a user read; taken through the direct map */
	FLAG_FETCHED = 1 << 2,  /* faulted in and read before the call returned to user space */
	FLAG_FOLLOWS = 1 << 3,  /* missing, but being fetched: the last word is still to come */
};

/* Bits of event_record.status. */
enum event_status {
	STATUS_ARGUMENTS_UNKNOWN = 1 << 0,   /* the call's entry was not seen */
	STATUS_MAPPING_UNKNOWN = 1 << 1,     /* the VMA could not be looked up */
	STATUS_PREVIOUS_UNKNOWN = 1 << 2,    /* previous_protection is not known */
	STATUS_SEVERAL_MAPPINGS = 1 << 3,    /* the range spans VMAs; previous/backing are the first's */
	STATUS_SHARED = 1 << 4,              /* MAP_SHARED */
	STATUS_UNLINKED = 1 << 5,            /* backed by a memfd or a deleted file */
	STATUS_HOT = 1 << 6,                 /* pages compared in the kernel; unchanged ones not sent */
	STATUS_PARTIAL = 1 << 7,             /* the call failed after changing a part */
	STATUS_MAPPINGS_INCOMPLETE = 1 << 8, /* exec: not every mapping could be listed in the kernel */
	STATUS_RECENT = 1 << 9,              /* backed by a file that changed lately: recorded by its bytes */
	STATUS_VIEWED = 1 << 10,             /* shared memory that can be written to elsewhere */
	STATUS_COMPAT = 1 << 11,             /* a system call of the 32-bit ABI */
	STATUS_WATCHED = 1 << 12,            /* execute was withheld: no write since goes unseen (ptrace) */
	STATUS_CONTENDED = 1 << 13, /* several threads write to and execute the page at once (ptrace) */
};

/* Why bytes are not in a record. Values are part of the file format: append only. */
enum missing_reason {
	MISSING_RING_FULL = 1,   /* no room in the ring buffer: lost */
	MISSING_UNREADABLE = 2,  /* mapped, but the kernel could not read it */
	MISSING_SWAPPED = 3,     /* in swap, or migrating */
	MISSING_NOT_PRESENT = 4, /* not in this process's page tables */
	MISSING_DEFERRED = 5,    /* beyond the work allowed per call; left to user space */
	MISSING_GONE = 6,        /* user space came too late: the mapping or process had gone */
	MISSING_LIMIT = 7,       /* the capture's size limit was reached */
	MISSING_ABSENT = 8,      /* nothing is missing: never touched, or discarded, and so zeros */
};

enum text_kind {
	TEXT_PATH = 1,         /* of the file (device, inode) */
	TEXT_COMMAND_LINE = 2, /* NUL-separated, of the process in the header */
};

/* 56 bytes; shared by all records. */
struct record_header {
	__u8 version;
	__u8 type;           /* enum record_type */
	__u16 flags;         /* enum record_flags */
	__u32 size;          /* of the whole record, header included */
	__u64 sequence;      /* CPU number << 48 | running number on that CPU; also counts lost records */
	__u64 timestamp_ns;  /* bpf_ktime_get_ns(): since boot, suspend not counted */
	__u64 start_time_ns; /* start_boottime of the process; with pid, its identity */
	__u32 pid;           /* tgid, in the initial PID namespace */
	__u32 tid;
	__u64 cause;   /* sequence of the event this belongs to; 0 in an event */
	__u64 address; /* page or region */
};

struct event_record {
	struct record_header header;
	__u32 kind;   /* enum event_kind */
	__u32 status; /* enum event_status */
	__s64 result; /* return value; exit: wait status */
	__u64 arguments[6];
	__u64 length;              /* of the region, bytes */
	__u32 protection;          /* PROT_* asked for */
	__u32 previous_protection; /* PROT_* before */
	__u64 mapping_flags;       /* vm_flags after the call */
	__u64 inode;
	__u64 file_offset; /* bytes, of header.address in the file */
	__u32 device;      /* kernel dev_t: major << 20 | minor; 0: no file */
	__u32 page_count;  /* of the region in scope: pages sent + outcome = this */
	__u64 caller_ip;   /* user instruction pointer */
	__u64 caller_sp;   /* user stack pointer */
	__u32 parent_pid;
	__u32 uid;
	__u32 namespace_pid; /* as the process sees itself */
	__u32 namespace_tid;
	__u64 cgroup_id;
	__u64 coalesced; /* calls on this region left out since its last event: nothing had changed */
	__u64 coalesced_since_ns;
	char comm[COMM_BYTES];
	__u64 reserved;
};

struct page_record {
	struct record_header header;
	__u8 content[PAGE_BYTES];
};

struct missing_record {
	struct record_header header;
	__u64 pages;
	__u32 reason; /* enum missing_reason */
	__u32 reserved0;
	__u64 reserved[6];
};

struct repeat_record {
	struct record_header header;
	__u64 pages;
	__u64 source; /* sequence of the page record, the last one of this CPU */
	__u64 reserved[6];
};

/*
 * The user stack of the thread that caused an event; header.cause is the event. header.address is the
 * word on top of the stack, 0 if it could not be read: the return address of a function without a frame
 * pointer, which following these misses, or whatever else lies there.
 */
struct user_stack_record { /* the kernel has a stack_record of its own */
	struct record_header header;
	__u32 count; /* of frames that are valid */
	__u32 reserved0;
	__u64 frames[STACK_FRAMES]; /* innermost first: the instruction pointer, then return addresses */
};

/* Sent when the page records alone do not account for event_record.page_count. Pages. */
struct outcome_record {
	struct record_header header;
	__u32 captured;    /* sent as page records */
	__u32 unchanged;   /* same bytes as last sent for this address */
	__u32 absent;      /* anonymous, never touched: zeros */
	__u32 in_file;     /* clean page of a linked file, by reference */
	__u32 not_present; /* these five are also listed in missing records */
	__u32 unreadable;
	__u32 swapped;
	__u32 deferred;
	__u32 lost;
	__u32 reserved0;
	__u64 reserved[3];
};

struct text_record {
	struct record_header header;
	__u32 kind; /* enum text_kind */
	__u32 length;
	__u64 inode;
	__u32 device;
	__u32 reserved0;
	__u64 reserved[5];
	char text[TEXT_BYTES];
};

/*
 * Counters, one slot per CPU, summed by user space. The order is shared with
 * wire/layout.py COUNTERS; tests hold the two together.
 */
enum trace_counter {
	COUNTER_EVENTS,    /* event records sent */
	COUNTER_PAGES,     /* page records sent */
	COUNTER_UNCHANGED, /* pages found unchanged in the kernel */
	COUNTER_ABSENT,    /* anonymous pages never touched */
	COUNTER_IN_FILE,   /* clean file pages, by reference */
	COUNTER_NOT_PRESENT,
	COUNTER_UNREADABLE,
	COUNTER_SWAPPED,
	COUNTER_DEFERRED,
	COUNTER_COALESCED,      /* calls on hot regions that changed nothing, not sent */
	COUNTER_LOST_EVENTS,    /* ring full */
	COUNTER_LOST_PAGES,     /* ring full */
	COUNTER_LOST_MISSING,   /* ring full: a run of missing pages could not be listed */
	COUNTER_LOST_OUTCOMES,  /* ring full */
	COUNTER_LOST_TEXTS,     /* ring full */
	COUNTER_ARGUMENTS_FULL, /* mmap_args or mprotect_args had no room */
	COUNTER_TARGETS_FULL,   /* a descendant could not be followed */
	COUNTER_UNPAIRED,       /* call exits whose entry was not seen */
	COUNTER_MAPPING_UNKNOWN,
	COUNTER_UNLISTED,     /* more mappings than are looked at on one occasion; the rest was left out */
	COUNTER_MISSED_LOOKS, /* another thread was changing the address space */
	COUNTER_SAMPLES,      /* samples that fell into memory that can change without a call */
	COUNTER_SKIPPED,      /* calls on hot regions whose pages were not looked at: it took too long */
	COUNTER_LOST_STACKS,  /* ring full */
	COUNTER_WAITS,        /* times a call waited for room in the ring; no loss */
	COUNTER_COUNT,
};

/* Bits of configuration.flags. */
enum configuration_flags {
	CONFIG_FOLLOW = 1 << 0,              /* descendants become targets */
	CONFIG_EXCLUDE_FILE_BACKED = 1 << 1, /* no events for mappings of linked files */
	CONFIG_DEBUG = 1 << 2,               /* bpf_printk, read it in trace_pipe */
	CONFIG_ANY_UID = 1 << 3,             /* no filter by user */
	CONFIG_ANY_COMM = 1 << 4,            /* no filter by name */
	CONFIG_EXACT = 1 << 5,               /* compare every page of every call, however long it takes */
	CONFIG_OTHERS = 1 << 6,              /* look at a process when another one is about to change it */
	CONFIG_ALL_CALLS = 1 << 7,     /* all system calls are seen, those of the 32-bit ABI among them */
	CONFIG_HUGETLB_CACHE = 1 << 8, /* hugetlbfs's page cache is indexed like all others */
	CONFIG_FETCH = 1 << 9,         /* fault pages in, from work that runs before a call returns */
	CONFIG_SCOPE = 1 << 10,        /* targets are what scope_rules say, and not named by PID */
};

/*
 * An advice that madvise(2) does not know. With it the recorder asks for a step of a pass: PID and a
 * TID stand where address and length would be.
 */
#define ADVICE_PASS 0x7061

/* With the hook mm-lock it reads from the process, by process_vm_readv(2), into this number of pieces. */
#define PASS_PIECES 3

/* Words of the page hash's key: one for each word of a page, for each of two lanes. */
#define HASH_KEY_WORDS (2 * PAGE_BYTES / 8)

/* Set by user space before the program is loaded; constant from then on. */
struct trace_configuration {
	__u64 event_mask;      /* bit n: send events of kind n */
	__u64 wakeup_bytes;    /* wake the reader when this much is pending */
	__u64 page_room;       /* pages are sent while less than this is pending */
	__u64 wait_ns;         /* a call may wait so long for room in the ring; 0: not at all */
	__u64 physical_mask;   /* bits of a page-table entry that are an address; 0: do not walk */
	__u32 protection_mask; /* a call matters when (prot & mask) == value */
	__u32 protection_value;
	__u32 flags; /* enum configuration_flags */
	__u32 uid;
	__u32 hot_calls;      /* calls on one region after which its pages are compared */
	__u32 page_limit;     /* pages read per call; the rest is deferred */
	__u32 physical_gib;   /* how far physical addresses reach, to look for the direct map */
	__u32 recorder;       /* PID of the process that may ask for a step of a pass */
	__u32 call_share;     /* percent of a target's time for looks before its system calls */
	__u32 waiters;        /* CPUs that may wait at once; one has to be left for the recorder */
	__s64 started_ns;     /* when the recording began; epoch */
	__s64 files_since_ns; /* files whose inode changed since are recorded by their bytes; epoch */
	char comm[COMM_BYTES];
	__u64 hash_key[HASH_KEY_WORDS]; /* secret, random */
};

/* Bits of target.flags. */
enum target_flags {
	TARGET_WAITS_FOR_EXEC = 1 << 0, /* still our own launcher: nothing counts before execve */
	TARGET_COMPARES_MUCH = 1 << 1,  /* would gain from having its accessed bits cleared */
	TARGET_CHANGES = 1 << 2,        /* may have executable memory that changes without a call */
	TARGET_OUTSIDE = 1 << 3,        /* not traced: it was looked at, and is not in the scope */
	TARGET_OWN = 1 << 4,            /* not traced before it executes a program: a child of the recorder */
	TARGET_RENAMED = 1 << 5,        /* to be decided again */
};

/* Value of the targets map; the key is the tgid. */
struct trace_target {
	__u64 start_time_ns; /* 0 until the first event of an attached process */
	__u32 flags;         /* enum target_flags */
	__u32 epoch;         /* names the last clearing of its accessed bits; 0: do not rely on any */
	__u64 pass_cursor;   /* where the next step of a pass begins; 0: at the start */
	__u64 pass_ns;       /* when the last one was */
	__s64 pass_credit;   /* pages that passes may send before they have to wait */
	__u64 call_ns;       /* when it last made a system call before which to look */
	__s64 call_credit;   /* nanoseconds that such looks may take */
	__u64 cgroup_id;     /* the decision is about it as it was then: in this group (version 2), */
	__u32 uid;           /* with this user id, */
	__u32 generation;    /* and under the rules of this generation */
	__u32 joined;        /* how often it came into the scope while it was running */
	__u32 written;       /* somebody wrote to its memory around the protection */
};

/* Criteria of a scope: what a rule of that kind compares. */
enum scope_kind {
	SCOPE_HEAD = 0,   /* nothing: which kinds there are in a generation of rules */
	SCOPE_CGROUP = 1, /* the id of the group, or of one above it */
	SCOPE_UID = 2,
	SCOPE_COMM = 3, /* of the process's first thread */
	SCOPE_EXE = 4,  /* inode and device of the program */
	SCOPE_PID = 5,
};

/* Value of a rule. That of SCOPE_HEAD has bit `kind` for what includes, bit 16 + `kind` for what excludes. */
#define SCOPE_HEAD_EXCLUDES 16
enum scope_effect {
	SCOPE_INCLUDE = 1 << 0,
	SCOPE_EXCLUDE = 1 << 1,
};

/* Key of the map scope_rules; rules of another generation than the current one are not there. */
struct scope_key {
	__u32 generation;
	__u32 kind; /* enum scope_kind */
	__u64 value[2];
};

#endif
