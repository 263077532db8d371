"""The tables of an ablation: means and spread over seeds, and which arms differ by more than their spread."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from cisi_runtime.metrics import Quality

# Two-sided 95 % points of Student's t by degrees of freedom, for two to ten seeds.
_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MAX_SEEDS = max(_T_95) + 1
_FIELDS = ("psnr_db", "l1_percent", "ssim")


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


def quality_table(arms: Mapping[str, Mapping[int, Quality]], baselines: Mapping[str, Quality]) -> list[str]:
    """Lines of Markdown: mean and standard deviation over seeds. arms: quality by seed. baselines: methods without
    training, for scale."""
    lines = ["| mean ± standard deviation | Seeds | PSNR | L1 | SSIM |", "|---|---|---|---|---|"]
    for name, quality in baselines.items():
        lines.append(f"| {name} | | {quality.psnr_db:.2f} dB | {quality.l1_percent:.2f} % | {quality.ssim:.3f} |")
    for name, by_seed in arms.items():
        psnr, l1, ssim = ([getattr(each, field) for each in by_seed.values()] for field in _FIELDS)
        figures = _spread(psnr, 2, " dB"), _spread(l1, 2, " %"), _spread(ssim, 3, "")
        lines.append(f"| {name} | {len(by_seed)} | {' | '.join(figures)} |")
    return lines


def comparison_table(arms: Mapping[str, Mapping[int, Quality]], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of Markdown: what the first arm of each pair has over the second in PSNR and SSIM, with the verdicts."""
    lines = ["| difference ± half of its 95 % interval | PSNR | | SSIM | |", "|---|---|---|---|---|"]
    for one, other in pairs:
        cells = []
        for field, digits, unit in (("psnr_db", 2, " dB"), ("ssim", 3, "")):
            values = ({seed: getattr(each, field) for seed, each in arms[name].items()} for name in (one, other))
            cells.append(_compared(paired_difference(*values), digits, unit))
        lines.append(f"| {one} against {other} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], digits: int, unit: str) -> str:
    """Mean and standard deviation over seeds."""
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
