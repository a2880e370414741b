// SPDX-License-Identifier: MIT
/* An executable mapping that is made to show another page of its memfd. remap_file_pages */
#include "coverage.h"

int main(void)
{
	int fd = new_memfd(2);
	unsigned char *view = map_at(NULL, 2, READ_WRITE, MAP_SHARED, fd);
	unsigned char *code = map_at(NULL, 1, READ_EXEC, MAP_SHARED, fd);
	struct marker first = new_marker(code), second = new_marker(code);

	unmap(code, 1);
	write_marker(&first, view);
	write_marker(&second, view + PAGE_BYTES);
	map_at(code, 1, READ_EXEC, MAP_SHARED | MAP_FIXED, fd);
	execute(&first);
	if (remap_file_pages(code, PAGE_BYTES, 0, 1, 0))
		exit(NOT_IN_THIS_KERNEL);
	execute(&second);
	return 0;
}
