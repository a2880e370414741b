"""YARA over everything that was executable: each content once, borders of pages included."""
