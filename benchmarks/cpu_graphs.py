"""`python -m benchmarks.cpu_graphs`: what each rewrite, and INT8, does to arithmetic, nodes and latency on a CPU.

The variants take turns within one run, and the table gives medians: compare its rows with each other only.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from pathlib import Path

import click
import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from cisi_calibration.observation import observed_tensors
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import Range, RangeTable
from cisi_export.cost import cost_of
from cisi_export.inference_graph import Uint8Face
from cisi_export.onnx_graph import unchecked_graph
from cisi_export.rewrites import fold_upsampling, use_instance_norm_nodes, write_out_statistics
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.openvino import OpenVinoBackend
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.pictures.masks import centre_hole
from cisi_train.checkpoint import load_checkpoint
from cisi_train.inpaint import inpaint_pixels
from cisi_train.network import Generator

_DEPLOYED = "upsampling folded: the cpu lowering"
_VARIANTS = {
    "as trained (norms as nodes)": (use_instance_norm_nodes,),
    _DEPLOYED: (fold_upsampling, use_instance_norm_nodes),
    "statistics written out: the tensorrt lowering": (fold_upsampling, write_out_statistics),
}


@click.command()
@click.option("--ckpt", type=click.Path(path_type=Path), help="Checkpoint; default: random weights of --preset.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=15, show_default=True)
def bench(ckpt: Path | None, preset: str, size: int, threads: int, rounds: int) -> None:
    """Arithmetic, nodes and latency of one picture, rewrite by rewrite, with PyTorch eager for comparison."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    generator = Generator(PRESETS[preset]).eval() if ckpt is None else load_checkpoint(ckpt).generator()
    backends: dict[str, Backend] = {}
    rows: dict[str, str] = {}
    for name, rewrites in _VARIANTS.items():
        network = copy.deepcopy(generator)
        del network.self_content
        for rewrite in rewrites:
            rewrite(network)
        model = _graph(Uint8Face(network), generator)
        cost = cost_of(model, _contract(generator), size, size)
        rows[name] = f"{cost.flop / 1e9:>7.1f} GFLOP  {cost.nodes:>4} nodes"
        backends[name] = OnnxRuntimeBackend(model.SerializeToString(), threads=threads)
        if rewrites == _VARIANTS[_DEPLOYED]:
            backends[f"{_DEPLOYED}, in OpenVINO"] = OpenVinoBackend(model.SerializeToString(), threads=threads)
            int8 = _int8(model).SerializeToString()
    backends["INT8, all candidates, in ONNX Runtime"] = OnnxRuntimeBackend(int8, threads=threads)
    backends["INT8, all candidates, in OpenVINO"] = OpenVinoBackend(int8, threads=threads)
    for name in backends:
        rows.setdefault(name, f"{'':>13}  {'':>10}")
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    hole = centre_hole(size, size)
    eager = "PyTorch eager"
    rows[eager] = f"{'':>13}  {'':>10}"
    milliseconds: dict[str, list[float]] = {name: [] for name in rows}
    for round_number in range(rounds + 2):
        for name in rows:
            start = time.perf_counter()
            if name == eager:
                inpaint_pixels(generator, image, hole, torch.device("cpu"))
            else:
                backends[name].run_pixels(image[None], hole[None])
            if round_number >= 2:  # the first two warm up
                milliseconds[name].append(1000.0 * (time.perf_counter() - start))
    medians = {name: statistics.median(times) for name, times in milliseconds.items()}
    slowest = medians[next(iter(_VARIANTS))]
    dim = generator.decoder.to_rgb.in_channels
    click.echo(f"dim {dim}, {size}x{size}, {threads} threads, medians of {rounds} rounds")
    for name, row in rows.items():
        click.echo(f"{name:<46} {row}  {medians[name]:>6.0f} ms  {slowest / medians[name]:>5.2f} x")


def _graph(module: nn.Module, generator: Generator) -> ModelProto:
    return unchecked_graph(module.eval().requires_grad_(False), _contract(generator), None, None)


def _int8(model: ModelProto) -> ModelProto:
    """INT8 in every candidate. How fast it is does not depend on the ranges: none are observed."""
    ranges = dict.fromkeys(observed_tensors(model), Range((-2.0, 2.0), 2.0))
    return quantise(model, None, RangeTable("", "none", 0, "", ranges), [])


def _contract(generator: Generator) -> Contract:
    dim = generator.decoder.to_rgb.in_channels
    architecture = next(architecture for architecture in PRESETS.values() if architecture.dim == dim)
    provenance = Provenance("none", "none", "", 0, 0, "none")
    return dataclasses.replace(Contract(architecture, provenance), target="cpu", face="uint8")


if __name__ == "__main__":
    bench()
