// SPDX-License-Identifier: MIT
/*
 * The calls of rwx_discarded and of reading, without their system calls. io_uring discard|read
 */
#include "coverage.h"

#include <linux/io_uring.h>

struct ring {
	int fd;
	unsigned char *queues;
	struct io_uring_sqe *entries;
	struct io_uring_params parameters;
};

static struct ring new_ring(void)
{
	struct ring ring = {.fd = -1};

	ring.fd = syscall(SYS_io_uring_setup, 1, &ring.parameters);
	if (ring.fd < 0 || !(ring.parameters.features & IORING_FEAT_SINGLE_MMAP))
		exit(NOT_IN_THIS_KERNEL);
	ring.queues = mmap(NULL, 2 * PAGE_BYTES, READ_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
	ring.entries = mmap(NULL, PAGE_BYTES, READ_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQES);
	if (ring.queues == MAP_FAILED || ring.entries == MAP_FAILED)
		fail("io_uring");
	return ring;
}

/* Do one request and wait for its end. */
static void submit(struct ring *ring, const struct io_uring_sqe *request, int expected)
{
	struct io_uring_cqe *results = (void *)(ring->queues + ring->parameters.cq_off.cqes);
	unsigned int *tail = (void *)(ring->queues + ring->parameters.sq_off.tail);

	ring->entries[0] = *request;
	*(unsigned int *)(ring->queues + ring->parameters.sq_off.array) = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1 ||
	    results[0].res != expected)
		fail("io_uring_enter");
}

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE_EXEC);
	struct marker marker = new_marker(page);
	struct ring ring = new_ring();
	int ends[2];

	choose_variant(argc, argv, VARIANTS("discard", "read"));
	if (pipe(ends))
		fail("pipe");
	if (variant_is("read")) {
		if (write(ends[1], marker.bytes, MARKER_BYTES) != MARKER_BYTES)
			fail("write");
		submit(&ring,
		       &(struct io_uring_sqe){.opcode = IORING_OP_READ,
					      .fd = ends[0],
					      .addr = (uint64_t)page,
					      .len = MARKER_BYTES},
		       MARKER_BYTES);
		execute(&marker);
	} else if (variant_is("discard")) {
		write_marker(&marker, page);
		execute(&marker);
		submit(&ring,
		       &(struct io_uring_sqe){.opcode = IORING_OP_MADVISE,
					      .addr = (uint64_t)page,
					      .len = PAGE_BYTES,
					      .fadvise_advice = MADV_DONTNEED},
		       0);
	}
	return 0;
}
