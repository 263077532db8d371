"""Backends run a graph. Each lives in a file of its own, the only place that imports its library."""
