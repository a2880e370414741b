/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sampling: what a thread executes right now, if it is memory that can change without a call.
 *
 * A timer interrupts the target some hundred times a second of its CPU time. The page under its
 * instruction pointer is compared with what was last sent of it, and sent when it is new. That
 * catches code that is written, executed and overwritten between two calls, in proportion to the
 * time it runs; and it proves that a page was executed, which a call does not.
 */
#ifndef SAMPLE_BPF_H
#define SAMPLE_BPF_H

#include "look.bpf.h"

static __always_inline void sample(__u64 instruction, __u64 stack)
{
	struct trace_target *target = traced_target();
	struct page_job *job = this_job();
	struct event_record *event;
	struct mapping_info *mapping;

	if (!target || !job)
		return;
	find_mapping(job, instruction, ENGINE_ITERATOR);
	mapping = &job->mapping;
	if (!mapping->known || !can_hide_bytes(mapping))
		return;
	begin_event(job, target, EVENT_SAMPLE);
	event = &job->event;
	event->header.address = mapping->start;
	event->length = mapping->end - mapping->start;
	event->page_count = 1; /* the one that is executing */
	event->protection = event->previous_protection = mapping->flags & PROT_ALL;
	event->status = STATUS_HOT;
	event->caller_ip = instruction;
	event->caller_sp = stack;
	describe_backing(event, mapping);
	if (!event_matters(event))
		return;
	count(COUNTER_SAMPLES, 1);
	job->page_tables = (__u64)READ_CURRENT(mm, pgd);
	job->hot = 1;
	job->epoch = 0;
	job->pages_left = 1;
	job->cursor = instruction & ~(PAGE_BYTES - 1ULL);
	job->end = job->cursor + PAGE_BYTES;
	step_with_lookup();
	send_outcome(job);
}

#endif
