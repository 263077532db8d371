"""The paper's Table 1, with its published rows beside what is measured here."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cisi_runtime.backends.machine import machine_facts
from cisi_runtime.console import say, say_json
from cisi_train.evaluate import Evaluation, Method, Metrics, evaluate, hole_sets, random_draws

_SIZE = 256
# Random holes are drawn so many times.
_DRAWS = 5


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """A row of Table 1 of the paper: L1 in percent, PSNR in dB and SSIM over the centre hole of 100 pictures of Paris
    StreetView; milliseconds for a picture of 256x256 pixels on the authors' machine."""

    method: str
    l1_percent: float
    psnr_db: float
    ssim: float
    milliseconds: float


PUBLISHED = (
    PublishedRow("GL", 7.11, 19.53, 0.49, 168.0),
    PublishedRow("GntIpt", 6.68, 19.85, 0.53, 285.0),
    PublishedRow("CISI-net", 6.53, 20.05, 0.55, 161.0),
)


def table1(methods: Sequence[tuple[str, Method]], folder: Path, categories: Sequence[str] = ()) -> None:
    """Print the table for the pictures of a folder, and the means over five draws of several rectangles.

    Time is the median of one picture, from pixels to pixels: conversion and padding are in it. Raises as `evaluate`.
    """
    (centre,) = hole_sets("centre", _SIZE)
    measured = [evaluate(name, method, folder, centre, Metrics(), categories) for name, method in methods]
    draws = [
        [evaluate(name, method, folder, holes, Metrics(), categories) for holes in random_draws(_SIZE, _DRAWS)]
        for name, method in methods
    ]
    machine = machine_facts()
    say(_words(measured, draws, machine))
    say_json(
        {
            "machine": machine,
            "published": [dataclasses.asdict(row) for row in PUBLISHED],
            "centre": [dataclasses.asdict(row) for row in measured],
            "rectangles": [[dataclasses.asdict(row) for row in rows] for rows in draws],
        }
    )


def _words(measured: Sequence[Evaluation], draws: Sequence[Sequence[Evaluation]], machine: dict[str, Any]) -> str:
    names = [f"{row.method} (published)" for row in PUBLISHED] + [row.method for row in measured]
    width = max(map(len, names))
    rows: list[PublishedRow | Evaluation] = [*PUBLISHED, *measured]
    first = measured[0]
    lines = [
        f"Table 1: centre hole of 128x128 in 256x256 pixels; {first.data}, {first.pictures} pictures",
        f"{'method':<{width}}  {'L1':>7}  {'PSNR':>8}  {'SSIM':>5}  {'time':>8}",
        *(_row(name, row, width) for name, row in zip(names, rows, strict=True)),
        "published: the paper's figures, on its 100 pictures of Paris StreetView and its machine",
        "time: median of one picture, with conversion and padding, on this machine:",
        *(f"    {line}" for line in _machine(machine)),
        "",
        f"Several rectangles: mean of {_DRAWS} draws, and how far the draws lie apart (standard deviation)",
        f"{'method':<{width}}  {'L1':>7}  {'PSNR':>16}  {'SSIM':>5}",
    ]
    for drawn in draws:
        l1, psnr, ssim = ([getattr(row, name) for row in drawn] for name in ("l1_percent", "psnr_db", "ssim"))
        spread = f"{statistics.mean(psnr):.2f} ± {statistics.stdev(psnr):.2f} dB"
        lines.append(
            f"{drawn[0].method:<{width}}  {statistics.mean(l1):>5.2f} %  {spread:>16}  {statistics.mean(ssim):>5.3f}"
        )
    return "\n".join(lines)


def _machine(facts: dict[str, Any]) -> tuple[str, str]:
    """Processor and libraries."""
    libraries = {"onnxruntime": "ONNX Runtime", "onnxruntime-gpu": "ONNX Runtime", "torch": "PyTorch"}
    versions = [f"{libraries[name]} {text}" for name, text in facts["versions"].items() if name in libraries]
    processor = ", ".join([facts["processor"], *facts["instruction_sets"]])
    return processor, ", ".join([f"{facts['cores']} cores", *versions])


def _row(name: str, row: PublishedRow | Evaluation, width: int) -> str:
    digits = 2 if isinstance(row, PublishedRow) else 3
    time = "-" if row.milliseconds is None else f"{row.milliseconds:.0f} ms"
    return f"{name:<{width}}  {row.l1_percent:>5.2f} %  {row.psnr_db:>5.2f} dB  {row.ssim:>5.{digits}f}  {time:>8}"
