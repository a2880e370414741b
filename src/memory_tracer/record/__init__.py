"""Everything that needs privilege: loading the BPF program, choosing targets, recording."""
