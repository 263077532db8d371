"""`python -m benchmarks.training_step`: images/s of a training step, and what limits it.

In rows with + each optimisation that was kept is added to those before it. With --combinations: memory layouts,
torch.compile and precisions in all combinations instead, beside what matrix products reach here, and which operators
take the time. The variants take turns within one run, and the table gives medians: compare its rows with each other
only.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import click
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cisi_runtime.architecture import PRESETS
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.network import Discriminator, Generator
from cisi_train.network.layers import EPS, Normalise, UpsampleConv, promoted
from cisi_train.objective import EXPERIMENTS, Objective
from cisi_train.recipe import RECIPES
from cisi_train.vgg import load_vgg

# Sides of the matrices whose product is the limit, and how many operators are shown.
_MATRIX, _SHOWN = 2048, 6


def _instance_norm(_self: Normalise, x: Tensor) -> Tensor:
    return F.instance_norm(promoted(x), eps=EPS)


def _upsample_first(self: UpsampleConv, x: Tensor) -> Tensor:
    y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    return y


@contextlib.contextmanager
def _without(*names: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if "group norm" in names:
            stack.enter_context(mock.patch.object(Normalise, "forward", _instance_norm))
        if "folded" in names:
            stack.enter_context(mock.patch.object(UpsampleConv, "forward", _upsample_first))
        yield


class _Step:
    """One iteration's forward and backward passes on made data; the optimisers' part is left out."""

    def __init__(
        self,
        preset: str,
        vgg: Path | None,
        device: str,
        *,
        bf16: bool,
        l1_only: bool,
        compiled: bool,
        channels_last: bool = False,
    ) -> None:
        torch.manual_seed(0)
        architecture = PRESETS[preset]
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = Generator(architecture)
        discriminator, network = Discriminator(architecture), None if l1_only else load_vgg(vgg)
        for module in (self.generator, discriminator, network):
            if module is not None:
                module.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        networks = self.generator, discriminator, network
        colours = ColourStatistics(mean=(0.0,) * 4, std=(1.0,) * 4)
        self.objective = Objective(*networks, EXPERIMENTS["full"], RECIPES["ours"], colours)
        self.device, self.bf16, self.l1_only = device, bf16, l1_only
        if compiled:
            # Each variant compiles the same functions anew; beyond the limit PyTorch would run them uncompiled.
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            for part in self.generator.children():
                part.compile(dynamic=False)

    def __call__(self, image: Tensor, holes: Tensor) -> None:
        objective, l1_only, image = self.objective, self.l1_only, image.contiguous(memory_format=self.layout)
        self.generator.zero_grad(set_to_none=True)
        objective.discriminator.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            features = None if l1_only else objective.features(image)
            total = objective.total(objective.self_content(image, features, l1_only=l1_only))
        total.backward(inputs=objective.self_content_parameters())  # type: ignore[no-untyped-call]
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            losses, completed = objective.inferred_content(image, holes, features, l1_only=l1_only)
            total = objective.total(losses)
        total.backward(inputs=objective.inferred_content_parameters())  # type: ignore[no-untyped-call]
        if not l1_only:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                total = objective.total(objective.adversary(image, holes, completed))
            total.backward(inputs=list(objective.discriminator.parameters()))  # type: ignore[no-untyped-call]


def _add_kept(add: Callable[..., None], compiled: bool) -> None:
    add("full objective, float32, instance_norm", ("group norm", "folded"), bf16=False, l1_only=False)
    add("+ norm as group_norm", ("folded",), bf16=False, l1_only=False)
    add("+ upsampling folded", (), bf16=False, l1_only=False)
    add("+ bfloat16", (), bf16=True, l1_only=False)
    add("+ channels last", (), bf16=True, l1_only=False, channels_last=True)
    add("L1 first (no VGG, GAN, re-encoding, swap)", (), bf16=True, l1_only=True, channels_last=True)
    if compiled:
        add("+ channels last + torch.compile", (), bf16=True, l1_only=False, channels_last=True, is_compiled=True)
        add("L1 first + torch.compile", (), bf16=True, l1_only=True, channels_last=True, is_compiled=True)


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="small", show_default=True)
@click.option("--size", type=int, default=128, show_default=True)
@click.option("--batch", type=int, default=8, show_default=True)
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--vgg", type=click.Path(path_type=Path), help="File of VGG-16 weights; default: torchvision's, fetched.")
@click.option("--compile", "compiled", is_flag=True, help="Rows with torch.compile, too (minutes of compilation).")
@click.option("--combinations", is_flag=True, help="Layouts, precisions and torch.compile, and the limit.")
def bench(
    preset: str, size: int, batch: int, rounds: int, device: str, vgg: Path | None, compiled: bool, combinations: bool
) -> None:
    """Images/s of a training step with one optimisation after another."""
    variants: list[tuple[str, tuple[str, ...], _Step]] = []

    def add(
        name: str,
        missing: tuple[str, ...],
        *,
        bf16: bool,
        l1_only: bool,
        is_compiled: bool = False,
        channels_last: bool = False,
    ) -> None:
        step = _Step(preset, vgg, device, bf16=bf16, l1_only=l1_only, compiled=is_compiled, channels_last=channels_last)
        variants.append((name, missing, step))

    if combinations:
        for is_compiled, bf16, last in itertools.product(*[(False, True)] * 3):
            if compiled or not is_compiled:
                layout, precision = "channels_last" if last else "contiguous", "bfloat16" if bf16 else "float32"
                name = f"{precision}, {layout}{', torch.compile' * is_compiled}"
                add(name, (), bf16=bf16, l1_only=False, is_compiled=is_compiled, channels_last=last)
    else:
        _add_kept(add, compiled)
    image = torch.rand(batch, 3, size, size, device=device) * 2 - 1
    holes = (torch.rand(batch, 2, 1, size // 16, size // 16, device=device) < 0.25).float()
    holes = holes.repeat_interleave(16, 3).repeat_interleave(16, 4)
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in variants}
    for round_number in range(rounds + 1):
        for name, missing, step in variants:
            with _without(*missing):
                elapsed = _timed(lambda step=step: step(image, holes), device)  # type: ignore[misc]
            if round_number:  # the first warms up
                seconds[name].append(elapsed)
    slowest = statistics.median(seconds[variants[0][0]])
    click.echo(f"preset {preset}, {batch} images of {size}x{size}, torch {torch.__version__}, {device}")
    for name, times in seconds.items():
        median = statistics.median(times)
        click.echo(f"{name:<44} {batch / median:>8.2f} images/s  {slowest / median:>5.2f} x")
    if combinations:
        for line in _limits(variants[0][2], image, holes, device) + _operators(variants, image, holes):
            click.echo(line)


def _limits(step: _Step, image: Tensor, holes: Tensor, device: str) -> list[str]:
    """How fast an iteration would be if all of it ran at the speed of a matrix product."""
    with FlopCounterMode(display=False) as counter:
        step(image, holes)
    gflop = counter.get_total_flops() / 1e9
    lines = [f"{gflop / len(image):.1f} GFLOP an image, forward and backward (convolutions and linear layers)"]
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.rand(_MATRIX, _MATRIX, device=device).to(dtype) for _ in range(2))
        seconds = min(_timed(functools.partial(torch.mm, a, b), device) for _ in range(7))
        speed = 2.0 * _MATRIX**3 / 1e9 / seconds
        name = str(dtype).removeprefix("torch.")
        lines.append(
            f"limit of a {name} matrix product: {speed:.0f} GFLOP/s, {len(image) * speed / gflop:.2f} images/s"
        )
    return lines


def _operators(variants: list[tuple[str, tuple[str, ...], _Step]], image: Tensor, holes: Tensor) -> list[str]:
    """Shares of the operators in the time of each variant without torch.compile."""
    lines = []
    for name, _, step in variants:
        if "compile" in name:
            continue
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step(image, holes)
        times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
        largest = sorted(times, key=lambda key: -times[key])[:_SHOWN]
        shares = ", ".join(f"{key.removeprefix('aten::')} {times[key] / sum(times.values()):.0%}" for key in largest)
        lines.append(f"{name}: {shares}")
    return lines


def _timed(run: Callable[[], object], device: str) -> float:
    """Seconds. On the CPU with one thread (OMP_NUM_THREADS=1) those that the process had a core: on a machine that does
    other work rows can still be compared."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    bench()
