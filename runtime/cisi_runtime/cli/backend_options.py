"""The options that say what a network runs in, the same for every command that runs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cisi_runtime.backends.registry import BACKENDS, DEVICES, PRECISIONS, BackendOptions, threads_apply

_DECORATORS = (
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="auto: onnxruntime for a graph, tensorrt for an engine, torch for a checkpoint.",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="auto",
        show_default=True,
        help="auto: cuda for an engine, else cpu.",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="stored",
        show_default=True,
        help="bf16: bfloat16 in OpenVINO or PyTorch, where the processor has it.",
    ),
)


def backend_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds --backend, --device and --precision to a command."""
    for decorate in reversed(_DECORATORS):
        function = decorate(function)
    return function


def take_backend_options(values: dict[str, Any]) -> BackendOptions:
    """Out of a command's values, the three options, and --threads where the command has it."""
    names = ("backend", "device", "precision", "threads")
    return BackendOptions(**{name: values.pop(name) for name in names if name in values})


def check_threads(threads: int, options: BackendOptions, model: Path | None) -> None:
    """Raise UsageError for --threads of a network that has none."""
    if threads > 1 and not threads_apply(options, model):
        raise click.UsageError("--threads is for networks on the CPU, and this one runs on a GPU")
