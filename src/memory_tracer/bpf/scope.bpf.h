/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which processes are traced when they are not named by PID: the scope.
 *
 * It is decided about a process once, and the decision stands in its entry of `targets`: when it executes a
 * program, at its first call of interest, or for all that run by decide_all. A child begins with its parent's.
 * The entry also has what the decision is about, so that it is remade when that has changed: user, group, name,
 * program, and the rules themselves. A process that is not in the scope pays for one map lookup.
 */
#ifndef SCOPE_BPF_H
#define SCOPE_BPF_H

#include "state.bpf.h"

/* Names the rules that hold; 0: there are none yet. User space sets it when all of them are there. */
__u32 scope_generation SEC(".data.scope") = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192); /* of two generations; record/scope.py makes half as many at most */
	__type(key, struct scope_key);
	__type(value, __u32); /* enum scope_effect */
} scope_rules SEC(".maps");

/* Groups above a process's own that are compared, itself included. */
#define CGROUP_LEVELS 32

/* On what occasion it is decided. */
enum occasion {
	OCCASION_RUNNING,
	OCCASION_EXEC, /* nothing of its memory is older than this */
};

static __always_inline __u32 rule_for(__u32 generation, __u32 kind, __u64 first, __u64 second)
{
	struct scope_key key = {.generation = generation, .kind = kind, .value = {first, second}};
	__u32 *effect = bpf_map_lookup_elem(&scope_rules, &key);

	return effect ? *effect : 0;
}

static __always_inline __u32 rule_for_cgroup(__u32 generation, struct task_struct *task)
{
	struct cgroup *group = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	__u32 effect = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < CGROUP_LEVELS && group; i++) {
		effect |= rule_for(generation, SCOPE_CGROUP, BPF_CORE_READ(group, kn, id), 0);
		group = BPF_CORE_READ(group, self.parent, cgroup);
	}
	return effect;
}

static __always_inline __u32 rule_for_comm(__u32 generation, struct task_struct *task)
{
	__u64 comm[COMM_BYTES / 8] = {};
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	bpf_probe_read_kernel_str(comm, sizeof(comm), &leader->comm);
	return rule_for(generation, SCOPE_COMM, comm[0], comm[1]);
}

static __always_inline __u32 rule_for_program(__u32 generation, struct task_struct *task)
{
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);

	return rule_for(generation, SCOPE_EXE, BPF_CORE_READ(inode, i_ino),
			BPF_CORE_READ(inode, i_sb, s_dev));
}

static __always_inline __u32 rule_of_kind(__u32 generation, __u32 kind, struct task_struct *task)
{
	switch (kind) {
	case SCOPE_CGROUP:
		return rule_for_cgroup(generation, task);
	case SCOPE_UID:
		return rule_for(generation, kind, BPF_CORE_READ(task, cred, uid.val), 0);
	case SCOPE_COMM:
		return rule_for_comm(generation, task);
	case SCOPE_EXE:
		return rule_for_program(generation, task);
	default:
		return rule_for(generation, kind, BPF_CORE_READ(task, tgid), 0);
	}
}

/*
 * What the rules say about the process of `task`: it is excluded if any rule says so, and included if one of
 * each kind that includes does.
 */
static __always_inline __u32 rules_for(__u32 generation, __u32 head, struct task_struct *task)
{
	__u32 effects = 0, included = head, effect;

#pragma unroll
	for (__u32 kind = SCOPE_CGROUP; kind <= SCOPE_PID; kind++) {
		if (!(head & (1 << kind | 1 << (SCOPE_HEAD_EXCLUDES + kind))))
			continue;
		effect = rule_of_kind(generation, kind, task);
		effects |= effect & SCOPE_EXCLUDE;
		if (head & (1 << kind) && !(effect & SCOPE_INCLUDE))
			included = 0;
	}
	return included ? effects | SCOPE_INCLUDE : effects;
}

/* Decide about the process of `task`, a number, and note it in `targets`. One that is ending has no say. */
__noinline int decide(__u64 task_address, __u32 occasion)
{
	struct task_struct *task = (void *)task_address;
	__u32 pid = BPF_CORE_READ(task, tgid), generation = scope_generation, head, effects;
	struct trace_target *known, fresh = {};
	bool was_traced, traced;
	long error;

	head = rule_for(generation, SCOPE_HEAD, 0, 0);
	if (!head || BPF_CORE_READ(task, flags) & (PF_KTHREAD | PF_EXITING))
		return 0;
	effects = rules_for(generation, head, task);
	if (pid == configured.recorder)
		effects = SCOPE_EXCLUDE;
	traced = effects == SCOPE_INCLUDE;
	fresh.start_time_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	fresh.cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	fresh.uid = BPF_CORE_READ(task, cred, uid.val);
	fresh.generation = generation;
	fresh.flags = traced ? 0 : TARGET_OUTSIDE;
	fresh.joined = traced && occasion != OCCASION_EXEC;
	known = bpf_map_lookup_elem(&targets, &pid);
	if (!known) {
		error = bpf_map_update_elem(&targets, &pid, &fresh, BPF_NOEXIST);
		if (error && error != -EEXIST && traced)
			count(COUNTER_TARGETS_FULL, 1);
		return 0;
	}
	was_traced = !(known->flags & TARGET_OUTSIDE);
	/* What was in the scope stays there, whatever it becomes, as do those that descend from it. */
	if (was_traced && known->generation == generation && configured.flags & CONFIG_FOLLOW)
		traced |= !(effects & SCOPE_EXCLUDE);
	known->cgroup_id = fresh.cgroup_id;
	known->uid = fresh.uid;
	known->generation = generation;
	if (traced && !was_traced)
		known->joined += occasion != OCCASION_EXEC;
	known->flags &= ~(TARGET_OUTSIDE | TARGET_OWN | TARGET_RENAMED);
	if (!traced)
		known->flags |= TARGET_OUTSIDE;
	return 0;
}

/* Whether the decision is about the current process as it is now. */
static __always_inline bool still_holds(const struct trace_target *target)
{
	if (target->flags & TARGET_OWN)
		return true;
	return target->generation == scope_generation && !(target->flags & TARGET_RENAMED) &&
	       target->uid == (__u32)bpf_get_current_uid_gid() &&
	       target->cgroup_id == bpf_get_current_cgroup_id();
}

/* The entry of the current process, traced or not, after the scope had its say. */
static __always_inline struct trace_target *decided_target(void)
{
	struct trace_target *target = current_target();

	if (!(configured.flags & CONFIG_SCOPE) || (target && still_holds(target)))
		return target;
	decide(bpf_get_current_task(), OCCASION_RUNNING);
	return current_target();
}

/* The entry of the current process, or NULL when nothing of it counts. */
static __always_inline struct trace_target *traced_target(void)
{
	struct trace_target *target = decided_target();

	return target && is_traced(target) ? target : NULL;
}

#endif
