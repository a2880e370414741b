"""Recording for weeks: captures that follow each other, within a budget of disk space."""
