"""The kernel program: its sources, and how they are compiled."""
