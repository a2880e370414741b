// SPDX-License-Identifier: MIT
/* Executable memory that grows when it is touched below its start. grows_down */
#include "coverage.h"

int main(void)
{
	unsigned char *room = map(64, PROT_NONE), *top = room + 63 * PAGE_BYTES;

	unmap(room, 64);
	map_at(top, 1, READ_WRITE_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE,
	       -1);
	put_and_execute(top);
	put_and_execute(top - PAGE_BYTES);
	return 0;
}
