"""The tables of an ablation: means and spread over seeds, and which arms differ by more than their spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Two-sided 95 % points of Student's t by degrees of freedom, for two to ten seeds.
_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MAX_SEEDS = max(_T_95) + 1


@dataclasses.dataclass(frozen=True)
class Figures:
    """Means over the pictures of a folder: over the holes, and LPIPS over whole pictures (None: not measured)."""

    l1_percent: float
    psnr_db: float
    ssim: float
    lpips: float | None = None


# Field of `Figures`, its title, digits and unit.
_COLUMNS = (
    ("psnr_db", "PSNR", 2, " dB"),
    ("l1_percent", "L1", 2, " %"),
    ("ssim", "SSIM", 3, ""),
    ("lpips", "LPIPS", 4, ""),
)
# What two arms are compared by.
_COMPARED_FIELDS = ("psnr_db", "ssim", "lpips")


@dataclasses.dataclass(frozen=True)
class Difference:
    """One arm less another, seed by seed. Runs of one seed share initial weights, crops and, but for an arm that
    changes them, holes, so that what these do to both arms cancels.

    mean: of the differences. margin: half of the 95 % confidence interval of the mean; infinite for one seed. It covers
        the seeds, not the choice of pictures.
    """

    mean: float
    margin: float

    @property
    def verdict(self) -> str:
        """ "higher", "lower", or "within the spread" when the interval holds 0."""
        if abs(self.mean) <= self.margin:
            return "within the spread"
        return "higher" if self.mean > 0.0 else "lower"


def paired_difference(values: Mapping[int, float], others: Mapping[int, float]) -> Difference | None:
    """`values` less `others`, each by seed, over the seeds that both have; None where there is none.

    Raises ValueError for more than `MAX_SEEDS` seeds.
    """
    differences = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    if not differences:
        return None
    count = len(differences)
    if count > MAX_SEEDS:
        raise ValueError(f"expected at most {MAX_SEEDS} seeds, got {count}")
    margin = math.inf
    if count > 1:
        margin = _T_95[count - 1] * statistics.stdev(differences) / math.sqrt(count)
    return Difference(statistics.mean(differences), margin)


def quality_table(arms: Mapping[str, Mapping[int, Figures]], baselines: Mapping[str, Figures]) -> list[str]:
    """Lines of Markdown: mean and standard deviation over seeds. arms: figures by seed. baselines: methods without
    training, for scale."""
    columns = _measured((baselines, *arms.values()))
    titles = [title for _, title, _, _ in columns]
    lines = [f"| mean ± standard deviation | Seeds | {' | '.join(titles)} |", f"|---|---{'|---' * len(titles)}|"]
    rows = [(name, "", {0: figures}) for name, figures in baselines.items()]
    rows += [(name, f"{len(by_seed)} ", dict(by_seed)) for name, by_seed in arms.items()]
    for name, seeds, by_seed in rows:
        cells = (_spread(_values(by_seed, field), digits, unit) for field, _, digits, unit in columns)
        lines.append(f"| {name} | {seeds}| {' | '.join(cells)} |")
    return lines


def comparison_table(arms: Mapping[str, Mapping[int, Figures]], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of Markdown: what the first arm of each pair has over the second in PSNR, SSIM and LPIPS, with the
    verdicts."""
    columns = [column for column in _measured(arms.values()) if column[0] in _COMPARED_FIELDS]
    titles = [f"{title} | " for _, title, _, _ in columns]
    lines = [f"| difference ± half of its 95 % interval | {'| '.join(titles)}|", f"|---{'|---|---' * len(titles)}|"]
    for one, other in pairs:
        cells = []
        for field, _, digits, unit in columns:
            found = paired_difference(_values(arms[one], field), _values(arms[other], field))
            cells.append(_compared(found, digits, unit))
        lines.append(f"| {one} against {other} | {' | '.join(cells)} |")
    return lines


def _measured(figures: Iterable[Mapping[Any, Figures]]) -> list[tuple[str, str, int, str]]:
    """The columns that have a figure in any row; those of PSNR, L1 and SSIM in any case."""
    rows = [each for by_key in figures for each in by_key.values()]
    return [column for column in _COLUMNS if column[0] != "lpips" or any(each.lpips is not None for each in rows)]


def _values(by_seed: Mapping[int, Figures], field: str) -> dict[int, float]:
    """A field by seed, where it was measured."""
    values = {seed: getattr(figures, field) for seed, figures in by_seed.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _spread(by_seed: Mapping[int, float], digits: int, unit: str) -> str:
    """Mean and standard deviation over seeds."""
    values = list(by_seed.values())
    if not values:
        return "not finished"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}{unit}" if len(values) > 1 else f"{mean}{unit}"


def _compared(difference: Difference | None, digits: int, unit: str) -> str:
    if difference is None:
        return "not finished |"
    mean = f"{difference.mean:+.{digits}f}"
    if math.isinf(difference.margin):
        return f"{mean}{unit} | one seed has no spread"
    return f"{mean} ± {difference.margin:.{digits}f}{unit} | {difference.verdict}"
