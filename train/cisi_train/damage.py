"""What PyTorch and NumPy may raise for a damaged or foreign file of tensors."""

import pickle

DAMAGE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
