"""What a TensorRT engine is: options, sidecar, precision audit, where it runs."""
