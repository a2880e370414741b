// SPDX-License-Identifier: MIT
/* Memory that may be executed and not even be read, where the CPU can do that. execute_only [SEED] */
#include "workload.h"

int main(int argc, char **argv)
{
	struct content content = {
		.address = map(2, READ_WRITE),
		.pages = 2,
		.seed = argument(argc, argv, 1, 1),
		.code = code_returning(5),
	};

	fill(&content);
	protect(content.address, content.pages, PROT_EXEC);
	say_executable("mprotect", content.address, content.pages, &content, 1);
	call_and_expect(content.address, 5);
	return 0;
}
