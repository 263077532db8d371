"""The CUDA driver: memory, streams and graphs around any work that can be put into a stream."""
