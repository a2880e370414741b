"""What changed between two generations of a region: as instructions, or as bytes."""
