"""The five networks of CISI-net. They know nothing of ONNX."""

from cisi_train.network.discriminator import Discriminator
from cisi_train.network.generator import Generator, composite, corrupt

__all__ = ["Discriminator", "Generator", "composite", "corrupt"]
