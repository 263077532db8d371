"""TensorRT engines: building them, and finding out what was built."""
