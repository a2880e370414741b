"""Captures for other tools: JSON objects and raw region files."""
