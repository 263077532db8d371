"""Is it still the same network? Golden files, comparisons and checks."""
