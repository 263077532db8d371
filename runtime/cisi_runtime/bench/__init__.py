"""Latency of artifacts and backends, measured side by side."""
