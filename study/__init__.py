"""Where methods meet benchmarks: plans cells, runs them, keeps their records."""
