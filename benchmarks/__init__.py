"""What tracing costs, measured side by side: ``python -m benchmarks``, results in docs/benchmarks.md."""
