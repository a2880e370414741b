// SPDX-License-Identifier: MIT
/* A page of the stack is made executable, as dlopen does it for old libraries. stack flip|rwx */
#include "coverage.h"

int main(int argc, char **argv)
{
	unsigned char page[PAGE_BYTES] __attribute__((aligned(4096)));
	struct marker marker = put_marker(page);

	choose_variant(argc, argv, VARIANTS("flip", "rwx"));
	if (variant_is("flip")) {
		protect(page, 1, READ_EXEC);
		execute(&marker);
		protect(page, 1, READ_WRITE);
	} else if (variant_is("rwx")) {
		protect(page, 1, READ_WRITE_EXEC | PROT_GROWSDOWN);
		put_and_execute(page);
		protect(page, 1, READ_WRITE | PROT_GROWSDOWN);
	}
	memset(page, 0, PAGE_BYTES);
	return 0;
}
