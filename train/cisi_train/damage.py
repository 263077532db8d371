"""What reading a damaged or foreign file of tensors may raise."""

import pickle

DAMAGE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
