"""What a parity check found: results, stored weights, structure, and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cisi_runtime.parity.compare import Comparison

# Differences of structure that a summary shows.
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class WeightComparison:
    """One weight of the checkpoint in a graph.

    name: as in the checkpoint.
    stored_as: "float32", "float16", "int8", or "missing".
    worst: its largest difference, as a multiple of what rounding or quantising explains.
    """

    name: str
    stored_as: str
    worst: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains the whole difference."""
        return self.worst <= 1.0

    def as_json(self) -> dict[str, Any]:
        """By name, with the verdict. An infinite `worst` is None."""
        worst = self.worst if np.isfinite(self.worst) else None
        return {"name": self.name, "stored_as": self.stored_as, "worst": worst, "passed": self.passed}


@dataclasses.dataclass(frozen=True)
class StructureCheck:
    """What a graph is, apart from what it computes on golden cases. There is no tolerance: rounding changes none of it.

    name: what was looked at, in words.
    differences: what is not as it should be, in words.
    is_required: whether a difference is a failure.
    note: why it is not required, or what it would take to look at it here.
    """

    name: str
    differences: tuple[str, ...] = ()
    is_required: bool = True
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether there is no difference, or none that is a failure."""
        return not (self.differences and self.is_required)

    def as_json(self) -> dict[str, Any]:
        """By name, with the verdict."""
        return dataclasses.asdict(self) | {"passed": self.passed}

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if not self.differences:
            return f"structure: {self.name}{note}{'' if note else '  pass'}"
        verdict = "FAIL" if self.is_required else "reported, the numbers decide"
        lines = [f"structure: {self.name}{note}: {len(self.differences)} differences  {verdict}"]
        lines += [f"  {difference}" for difference in self.differences[:_SHOWN]]
        if len(self.differences) > _SHOWN:
            lines.append(f"  and {len(self.differences) - _SHOWN} more, which --json has")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """Everything that an artifact was compared with.

    comparisons: its results on golden cases.
    weights: its stored weights; None where there was no checkpoint.
    structure: the graph itself; empty for engines and served models.
    """

    comparisons: list[Comparison]
    weights: list[WeightComparison] | None = None
    structure: tuple[StructureCheck, ...] = ()

    @property
    def checks(self) -> int:
        """Number of comparisons."""
        return len(self._items)

    @property
    def failures(self) -> int:
        """Number of comparisons that failed."""
        return sum(not item.passed for item in self._items)

    @property
    def _items(self) -> list[Comparison | WeightComparison | StructureCheck]:
        return [*self.comparisons, *(self.weights or ()), *self.structure]

    @property
    def passed(self) -> bool:
        """Whether something was compared, and all of it passed."""
        return bool(self.comparisons) and self.failures == 0

    def as_json(self) -> dict[str, Any]:
        """Everything that was compared, and the verdict."""
        return {
            "comparisons": [item.as_json() for item in self.comparisons],
            "weights": None if self.weights is None else [item.as_json() for item in self.weights],
            "structure": [item.as_json() for item in self.structure],
            "passed": self.passed,
        }

    def table(self) -> str:
        """Every comparison on a line of its own."""
        return parity_table(self.comparisons)

    def summary(self) -> str:
        """How many comparisons passed, the worst of them, the weights, the structure."""
        lines = [_summary(self.comparisons), _weights_line(self.weights)]
        return "\n".join([*lines, *map(str, self.structure)])


def parity_table(comparisons: Iterable[Comparison]) -> str:
    """A line for each comparison, within 100 columns; PSNR and SSIM over the hole. What failed is explained below
    it."""
    lines = [f"{'variant':<33} {'case':<24} {'max':>6} {'PSNR':>8} {'SSIM':>6} {'required':<10} verdict"]
    for item in comparisons:
        lines.append(
            f"{item.variant:<33} {item.case:<24} {item.max_abs:6.0e} {item.hole_psnr_db:5.1f} dB {item.hole_ssim:6.4f} "
            f"{item.tolerance!s:<10} {'pass' if item.passed else 'FAIL'}"
        )
        if not item.passed:
            lines.append(f"  {item.faults}; p99 {item.p99_abs:.0e}, mean {item.mean_abs:.0e}")
    return "\n".join(lines)


def _summary(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "parity: nothing was compared"
    failures = sum(not item.passed for item in comparisons)
    worst = min(comparisons, key=lambda item: (item.passed, item.margin_db))
    figure = f"{worst.max_abs:.0e}" if worst.tolerance.max_abs is not None else f"{worst.hole_psnr_db:.1f} dB"
    verdict = f"{failures} FAIL" if failures else "all pass"
    return (
        f"parity: {len(comparisons)} comparisons, {verdict}\n"
        f"worst: {worst.variant}, {worst.case}: {figure}, required {worst.tolerance}"
        f"{'; ' + worst.faults if worst.faults else ''}"
    )


def _weights_line(weights: Sequence[WeightComparison] | None) -> str:
    if weights is None:
        return "weights: not compared one by one (that takes --ckpt)"
    bad = [weight for weight in weights if not weight.passed]
    if not bad:
        worst = max(weight.worst for weight in weights)
        return f"weights: {len(weights)} as in the checkpoint (largest deviation {worst:.2f} of the rounding)  pass"
    first = f"{bad[0].name}, stored as {bad[0].stored_as}, {bad[0].worst:.1f} times the rounding"
    return f"weights: {len(bad)} of {len(weights)} are not the checkpoint's, the first: {first}  FAIL"
