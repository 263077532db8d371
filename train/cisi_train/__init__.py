"""Training of CISI-net: the network, its losses, data, checkpoints and evaluation."""
