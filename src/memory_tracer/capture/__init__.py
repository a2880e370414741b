"""The capture file: its format, the writer the recorder uses, the reader every view uses."""
