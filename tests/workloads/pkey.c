// SPDX-License-Identifier: MIT
/* pkey_mprotect without a key, which is mprotect under another number. pkey [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content content = {
		.address = map(2, READ_WRITE),
		.pages = 2,
		.seed = argument(argc, argv, 1, 1),
		.code = code_returning(7),
	};

	fill(&content);
	if (syscall(SYS_pkey_mprotect, content.address, content.pages * PAGE_BYTES, READ_EXEC, -1))
		fail("pkey_mprotect");
	say_executable("pkey_mprotect", content.address, content.pages, &content, 1);
	call_and_expect(content.address, 7);
	return 0;
}
