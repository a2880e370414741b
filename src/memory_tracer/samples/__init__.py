"""Programs to try memory-tracer on, as C source."""
