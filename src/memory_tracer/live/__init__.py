"""``live``: a capture on the terminal while it grows, or after."""
