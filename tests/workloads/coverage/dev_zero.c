// SPDX-License-Identifier: MIT
/* Anonymous memory with a file behind it: a mapping of /dev/zero. dev_zero private|shared */
#include "coverage.h"

int main(int argc, char **argv)
{
	int fd = open("/dev/zero", O_RDWR);
	unsigned char *page;
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("private", "shared"));
	page = map_at(NULL, 1, READ_WRITE, variant_is("private") ? MAP_PRIVATE : MAP_SHARED, fd);
	marker = put_marker(page);
	protect(page, 1, READ_EXEC);
	execute(&marker);
	protect(page, 1, READ_WRITE_EXEC);
	put_and_execute(page);
	unmap(page, 1);
	return 0;
}
