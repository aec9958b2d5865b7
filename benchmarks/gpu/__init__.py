"""All that waits for a GPU, in one command: see `benchmarks/README.md`."""
