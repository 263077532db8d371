"""What calibration does unless told otherwise; apart, so that a command's help loads no library."""

from __future__ import annotations

METHODS = ("minmax", "percentile", "mse", "entropy")
# Least square error: it keeps the budget with room on both weights that were tried; percentile was better on one of
# them by a decibel and had the worse worst picture on the other.
METHOD = "mse"
IMAGES = 500
# Hole PSNR against float32, in dB; also what parity requires of the natural golden cases of every INT8 graph.
BUDGET_DB = 35.0
