"""Training: the network, its losses, data, checkpoints and evaluation."""
