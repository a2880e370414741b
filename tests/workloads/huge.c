// SPDX-License-Identifier: MIT
/* Memory in huge pages, as far as the kernel gives any, made executable by one call. huge [COUNT] [SEED] */
#include "workload.h"

#define HUGE_BYTES (2UL << 20)

int main(int argc, char **argv)
{
	size_t count = argument(argc, argv, 1, 3);
	struct content content = {.pages = count * HUGE_BYTES / PAGE_BYTES,
				  .seed = argument(argc, argv, 2, 1)};
	uintptr_t start = (uintptr_t)map(content.pages + HUGE_BYTES / PAGE_BYTES, READ_WRITE);

	content.address = (unsigned char *)((start + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1));
	if (madvise(content.address, count * HUGE_BYTES, MADV_HUGEPAGE) && errno != EINVAL)
		fail("madvise");
	fill(&content);
	flip(&content);
	return 0;
}
