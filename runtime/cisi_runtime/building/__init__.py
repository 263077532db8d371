"""How a TensorRT engine is made: built in a process of its own, audited, compared, cached, written."""
