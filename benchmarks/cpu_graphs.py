"""`python -m benchmarks.cpu_graphs`: how near each runtime and precision comes to the limit of this CPU.

PyTorch, ONNX Runtime and OpenVINO in float32, bfloat16 (where the CPU has it) and INT8, with the rewrites of the export
taken in one by one; beside them what the same arithmetic would take at the rate of a plain matrix product. Everything
takes turns within one run, and the table gives medians: compare its rows with each other only.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable

import click
import numpy as np
import openvino
import torch
from onnx import ModelProto

from cisi_calibration.convolutions import PIXEL_READERS, TO_RGB
from cisi_calibration.observation import observed_tensors
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import Range, RangeTable
from cisi_export.cost import cost_of
from cisi_export.inference_graph import Uint8Face
from cisi_export.onnx_graph import unchecked_graph
from cisi_export.rewrites import fold_output, fold_upsampling, use_instance_norm_nodes, write_out_statistics
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.machine import instruction_sets
from cisi_runtime.backends.openvino import OpenVinoBackend
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.bench.measure import interleaved
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.pictures.masks import centre_hole
from cisi_train.network import Generator

Call = Callable[[], object]
Rewrite = Callable[[Generator], None]

# Rows, terms of a sum and columns of the matrix product whose rate is the limit.
_PRODUCT = (2048, 2048, 2048)
# Before the output is folded the convolution to RGB has a name of its own.
_PIXELS = (*PIXEL_READERS, TO_RGB, "decoder.to_rgb")
_LATEST, _WRITTEN_OUT = "output folded", "statistics written out"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. call: one picture, or one matrix product. flop: of that product, or None."""

    name: str
    call: Call
    flop: int | None = None


@click.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=15, show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, help="Also torch.compile, which takes a minute.")
def bench(preset: str, size: int, threads: int, rounds: int, compiled: bool) -> None:
    """Latency of one picture with random weights of PRESET, beside the limit of this machine."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    generator = Generator(PRESETS[preset]).eval().requires_grad_(False)
    graphs = {
        "as trained": _graph(generator, preset, use_instance_norm_nodes),
        "upsampling folded": _graph(generator, preset, fold_upsampling, use_instance_norm_nodes),
        _LATEST: _graph(generator, preset, fold_upsampling, _fold_output, use_instance_norm_nodes),
        _WRITTEN_OUT: _graph(generator, preset, fold_upsampling, _fold_output, write_out_statistics),
    }
    flop = {name: cost_of(model, _contract(preset), size, size).flop for name, model in graphs.items()}
    rows = [*_torch_rows(generator, size, compiled=compiled), *_runtime_rows(graphs, size, threads), *_limits()]
    times = interleaved([row.call for row in rows], rounds, warm=True)
    medians = {row.name: statistics.median(each) for row, each in zip(rows, times, strict=True)}
    eager = medians[rows[0].name]
    click.echo(f"preset {preset}, {size}x{size}, {threads} threads, medians of {rounds} rounds; {cpu_name()}")
    click.echo("arithmetic: " + ", ".join(f"{name} {count / 1e9:.1f} GFLOP" for name, count in flop.items()))
    click.echo(f"{'':<64} {'ms':>7} {'eager / it':>11} {'GFLOP/s':>8}")
    for row in rows:
        milliseconds, rate = medians[row.name], ""
        if row.flop is not None:
            per_second = row.flop / medians[row.name] * 1e3
            rate, milliseconds = f"{per_second / 1e9:8.0f}", flop[_LATEST] / per_second * 1e3
        click.echo(f"{row.name:<64} {milliseconds:7.1f} {eager / milliseconds:10.2f}x {rate}")


def _torch_rows(generator: Generator, size: int, *, compiled: bool) -> list[Row]:
    image = torch.rand(1, 3, size, size) * 2 - 1
    hole = torch.from_numpy(centre_hole(size, size)[None, None].astype(np.float32))

    def run(network: Callable[..., object], *, as_bf16: bool = False) -> Call:
        def call() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=as_bf16):
                network(image, hole)

        return call

    rows = [Row("PyTorch float32, eager", run(generator.inpaint))]
    if compiled:
        rows.append(Row("PyTorch float32, compiled", run(torch.compile(generator.inpaint))))
    if _has_bf16():
        rows.append(Row("PyTorch bf16, eager", run(generator.inpaint, as_bf16=True)))
    return rows


def _runtime_rows(graphs: dict[str, ModelProto], size: int, threads: int) -> list[Row]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    hole = centre_hole(size, size)[None]
    mask = hole.astype(np.uint8) * np.uint8(255)
    rows: list[Row] = []

    def in_ort(name: str, model: ModelProto) -> None:
        backend = OnnxRuntimeBackend(model.SerializeToString(), threads=threads)
        rows.append(Row(f"ONNX Runtime {name}", lambda: backend.run(image, mask)))

    def in_openvino(name: str, model: ModelProto, precision: str = "stored") -> None:
        backend = OpenVinoBackend(model.SerializeToString(), threads=threads, precision=precision)
        backend.prepare((1, size, size))
        rows.append(Row(f"OpenVINO {name}", lambda: backend.run(image, mask)))

    def in_openvino_of_any_size(name: str, model: ModelProto) -> None:
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
        request = compiled.create_infer_request()
        rows.append(Row(f"OpenVINO {name}, of any size", lambda: request.infer({"image": image, "hole_mask": mask})))

    for name, model in graphs.items():
        in_ort(f"float32, {name}", model)
    latest, before = graphs[_LATEST], graphs["upsampling folded"]
    in_openvino_of_any_size("float32, upsampling folded", before)
    for name in ("upsampling folded", _LATEST):
        in_openvino(f"float32, {name}", graphs[name])
    if _has_bf16():
        in_openvino(f"bf16, {_LATEST}", latest, "bf16")
    int8 = {
        "INT8, upsampling folded, pixels in float": _int8(before, kept_float=_PIXELS),
        f"INT8, {_LATEST}, pixels in float": _int8(latest, kept_float=_PIXELS),
        f"INT8, {_LATEST}, all of it": _int8(latest),
    }
    for name, model in int8.items():
        in_ort(name, model)
    in_openvino_of_any_size("INT8, upsampling folded, pixels in float", next(iter(int8.values())))
    for name, model in int8.items():
        in_openvino(name, model)
    return rows


def _limits() -> list[Row]:
    """Matrix products that take as long as their arithmetic, in PyTorch (oneDNN)."""
    height, depth, width = _PRODUCT
    flop = 2 * height * depth * width
    a, b = torch.rand(height, depth), torch.rand(depth, width)
    a8, b8 = (torch.randint(-127, 128, shape, dtype=torch.int8) for shape in (a.shape, b.shape))
    products = {"float32": _product(a, b)}
    if _has_bf16():
        products["bf16"] = _product(a.bfloat16(), b.bfloat16())
    products["INT8"] = lambda: torch._int_mm(a8, b8)
    return [
        Row(f"limit: the same arithmetic in a plain {name} matrix product", call, flop)
        for name, call in products.items()
    ]


def _product(a: torch.Tensor, b: torch.Tensor) -> Call:
    out = a @ b
    return lambda: torch.mm(a, b, out=out)


def _graph(generator: Generator, preset: str, *rewrites: Rewrite) -> ModelProto:
    network = copy.deepcopy(generator)
    del network.self_content
    for rewrite in rewrites:
        rewrite(network)
    return unchecked_graph(Uint8Face(network).eval().requires_grad_(False), _contract(preset), None, None)


def _fold_output(network: Generator) -> None:
    fold_output(network.decoder)


def _int8(model: ModelProto, kept_float: tuple[str, ...] = ()) -> ModelProto:
    """How fast it is does not depend on the ranges: none are observed."""
    ranges = dict.fromkeys(observed_tensors(model), Range((-2.0, 2.0), 2.0))
    return quantise(model, None, RangeTable("", "none", 0, "", ranges), kept_float)


def _contract(preset: str) -> Contract:
    provenance = Provenance("none", "none", "", 0, 0, "none")
    return dataclasses.replace(Contract(PRESETS[preset], provenance), target="cpu", face="uint8")


def _has_bf16() -> bool:
    # oneDNN may be held at AVX2 by its environment variable.
    return torch.cpu._is_avx512_bf16_supported() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_name() -> str:
    """The instruction sets that matter here."""
    used = f"PyTorch uses {torch.backends.cpu.get_cpu_capability()}"
    return f"{used}; the CPU has {', '.join(instruction_sets()) or 'unknown instruction sets'}"


if __name__ == "__main__":
    bench()
