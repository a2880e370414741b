"""A region's bytes: hex dump, instructions, raw."""
