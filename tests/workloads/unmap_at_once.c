// SPDX-License-Identifier: MIT
/* Code that is gone as soon as it has run, and the process with it. unmap_at_once [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content content = {
		.address = map(1, READ_WRITE),
		.pages = 1,
		.seed = argument(argc, argv, 1, 1),
		.code = code_returning(42),
	};

	fill(&content);
	/* Said before it happens: between the call and the exit there is nothing but the code itself. */
	say_executable("mprotect", content.address, 1, &content, 1);
	protect(content.address, 1, READ_EXEC);
	call_and_expect(content.address, 42);
	unmap(content.address, 1);
	return 0;
}
