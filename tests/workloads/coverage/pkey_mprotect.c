// SPDX-License-Identifier: MIT
/* pkey_mprotect without a key does what mprotect does, on every CPU. pkey_mprotect */
#include "coverage.h"

int main(void)
{
	unsigned char *page = map(1, READ_WRITE);
	struct marker marker = put_marker(page);

	if (syscall(SYS_pkey_mprotect, page, PAGE_BYTES, READ_EXEC, -1))
		fail("pkey_mprotect");
	execute(&marker);
	protect(page, 1, READ_WRITE);
	memset(page, 0, PAGE_BYTES);
	return 0;
}
