"""`--budget-db`, an option of two commands."""

from __future__ import annotations

import math

import click

from cisi_calibration.defaults import BUDGET_DB


def check_budget(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """For click. Raises UsageError for a budget that parity would not let through, and for what is not finite."""
    if value is not None and not BUDGET_DB <= value < math.inf:
        raise click.UsageError(
            f"--budget-db {value:g}: expected a number from {BUDGET_DB:g} on, as parity requires of INT8"
        )
    return value
