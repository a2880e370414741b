"""Pure functions that work out what a capture's events and pages say together."""
