// SPDX-License-Identifier: MIT
/* One page, written and made executable COUNT times. flips COUNT */
#include "coverage.h"

int main(int argc, char **argv)
{
	unsigned char *page = map(1, READ_WRITE);

	for (unsigned long i = 0; i < argument(argc, argv, 1, 3); i++) {
		struct marker marker = put_marker(page);

		protect(page, 1, READ_EXEC);
		execute(&marker);
		protect(page, 1, READ_WRITE);
	}
	memset(page, 0, PAGE_BYTES);
	return 0;
}
