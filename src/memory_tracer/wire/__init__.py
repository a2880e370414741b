"""The records the kernel program sends: their layout, and decoding them in bulk."""
