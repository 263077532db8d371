"""Export: a checkpoint becomes one ONNX graph, with proof that it is the same network."""
