"""A plot of where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draws files without a window
import matplotlib.pyplot as plt

from cisi_runtime.bench.measure import PhotographRow
from cisi_runtime.errors import OutputError
from cisi_runtime.files import atomic_file


def plot_stages(rows: Sequence[PhotographRow], path: Path) -> None:
    """A stacked bar for each row: the medians of its stages.

    Raises OutputError for a suffix that matplotlib does not know.
    """
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.45 * len(rows)), layout="constrained")
    places = range(len(rows))  # two rows may have one name
    left = [0.0] * len(rows)
    for stage in rows[0].stages:
        widths = [row.stages[stage] for row in rows]
        axes.barh(places, widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(places, [row.setting.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one photograph, from file to file (medians)")
    axes.legend(ncols=(len(rows[0].stages) + 1) // 2, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize="small")
    try:
        with atomic_file(path) as temporary:
            figure.savefig(temporary)
    except ValueError as error:
        raise OutputError(f"{path}: {error}") from error
    finally:
        plt.close(figure)
