"""Calibration: activation ranges and Q/DQ graphs."""
