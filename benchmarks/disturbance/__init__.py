"""The cluster that `benchmarks.chaos` disturbs, and the run on it."""
