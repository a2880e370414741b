// SPDX-License-Identifier: MIT
/*
 * Executable memory that appears at a new address. mremap move|grow|keep|duplicate
 * keep leaves the old mapping in place, empty; duplicate makes a second mapping of shared memory.
 */
#include "coverage.h"

/* The marker at another place. */
static void execute_at(const struct marker *marker, unsigned char *address)
{
	struct marker moved = *marker;

	moved.address = address;
	execute(&moved);
}

int main(int argc, char **argv)
{
	unsigned char *page, *place = map(2, PROT_NONE);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	size_t from = PAGE_BYTES, to = PAGE_BYTES;
	struct marker marker;

	choose_variant(argc, argv, VARIANTS("move", "grow", "keep", "duplicate"));
	if (variant_is("duplicate"))
		from = 0;
	else if (variant_is("grow"))
		to = 2 * PAGE_BYTES;
	else if (variant_is("keep"))
		flags |= MREMAP_DONTUNMAP;
	page = map_at(NULL, 1, READ_WRITE, MAP_ANONYMOUS | (from ? MAP_PRIVATE : MAP_SHARED), -1);
	marker = put_marker(page);
	protect(page, 1, READ_EXEC);
	execute(&marker);
	if (mremap(page, from, to, flags, place) != place)
		fail("mremap");
	execute_at(&marker, place);
	unmap(place, 2);
	return 0;
}
