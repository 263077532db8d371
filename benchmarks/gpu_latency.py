"""`python -m benchmarks.gpu_latency`: this network on a GPU, from uint8 in host memory to uint8 in host memory.

PyTorch as people write it, our buffers, stream and captured graph around the same network, ONNX Runtime's CUDA
provider, and an engine where the card takes one. All take turns within one run: compare only rows of one run.
`--rehearse` runs on the CPU what needs no CUDA. Our runner, ONNX Runtime's CUDA provider and engines need it.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import json
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn

from cisi_calibration.model_contract import contract_of
from cisi_export.cost import cost_of
from cisi_export.exporting import float_graph
from cisi_export.inference_graph import inference_module
from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.gpu import GpuBackend, face_tensors
from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend
from cisi_runtime.backends.registry import open_backend
from cisi_runtime.backends.tensorrt import TensorRtBackend
from cisi_runtime.cli.command import PATH, run_command
from cisi_runtime.contract import Contract
from cisi_runtime.cuda.driver import counting, find_gpu
from cisi_runtime.cuda.memory import open_memory
from cisi_runtime.cuda.runner import DeviceArray, Enqueue, Runner
from cisi_runtime.cuda.runner import Tensor as DeviceTensor
from cisi_runtime.errors import CisiError, error_prefix
from cisi_runtime.face import BatchSize
from cisi_runtime.files import atomic_file
from cisi_train.checkpoint import Checkpoint, load_checkpoint

Array = Any
# Two ways to call a method: from host memory to host memory, and for tensors on the device (None: there is none).
Calls = tuple[Callable[[Array, Array], Array], Callable[[Tensor, Tensor], object] | None]
_PERCENTILES = (50, 95, 99)
# torch.compile's backend on a GPU, and in a rehearsal, where generating code would take minutes.
_COMPILER = ("inductor", "aot_eager")


@dataclasses.dataclass
class Method:
    """A way to run the network.

    run: from host memory to host memory.
    on_device: for PyTorch's tensors on the device, complete when it returns; None if there is no such way.
    """

    name: str
    run: Callable[[Array, Array], Array]
    on_device: Callable[[Tensor, Tensor], object] | None


class TorchWork:
    """A PyTorch module as work for a `Runner`: it reads and writes the runner's own device memory."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # Nobody else may get the memory of captured work.
        self._pool = torch.cuda.MemPool()

    def plan(self, tensors: Sequence[DeviceTensor], addresses: Mapping[str, int]) -> Enqueue:
        """Views of the addresses, with the module between them."""
        views = [torch.as_tensor(DeviceArray(addresses[t.name], t), device="cuda") for t in tensors]
        image, hole_mask, completed = views

        def enqueue(stream: int) -> None:
            ours = torch.cuda.ExternalStream(stream)  # type: ignore[no-untyped-call]
            with torch.inference_mode(), torch.cuda.stream(ours), torch.cuda.use_mem_pool(self._pool):
                completed.copy_(self._module(image, hole_mask))

        return enqueue


@click.command()
@click.option("--ckpt", type=PATH, required=True, help="Checkpoint that cisi-train wrote.")
@click.option("--engine", type=PATH, help="Engine of the same checkpoint, for this card.")
@click.option("--sizes", default="256,512", show_default=True, help="Sides of square pictures.")
@click.option("--batches", default="1,4,16", show_default=True)
@click.option("--rounds", type=click.IntRange(3), default=200, show_default=True)
@click.option("--rehearse", is_flag=True, help="On the CPU, with what it has.")
@click.option("--out", type=PATH, help="The lines of JSON, too.")
def bench(
    ckpt: Path, engine: Path | None, sizes: str, batches: str, rounds: int, rehearse: bool, out: Path | None
) -> None:
    """Latency of this network on a GPU, in ms: 50th, 95th and 99th percentile, pictures a second, GPU memory."""
    if not rehearse and not torch.cuda.is_available():
        raise click.UsageError("PyTorch finds no CUDA device here, expected one, or --rehearse")
    with error_prefix("--ckpt"):
        checkpoint = load_checkpoint(ckpt)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    # Each size is compiled; beyond the limit PyTorch would run eager under the name of compiled.
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    device = torch.device("cpu" if rehearse else "cuda")
    about = _about(device)
    click.echo(json.dumps(about), err=True)
    lines = [json.dumps(about)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = float_graph(checkpoint, precision="float32", target="cpu", face="uint8")
        methods = [
            Method(name, *calls)
            for name, make in _methods(checkpoint, model, folder, engine, device, rehearse=rehearse)
            if (calls := _prepared(name, make)) is not None
        ]
        peak = _peak_tflops(device)
        for side in map(int, sizes.split(",")):
            flop = cost_of(model, contract_of(model), side, side).flop
            for batch in map(int, batches.split(",")):
                for row in _measure(methods, (batch, side, side), rounds, flop, peak, device):
                    lines.append(json.dumps(row))
                    click.echo(_format_row(row))
                    _write(out, lines)
        memory = round(torch.cuda.max_memory_reserved() / 2**20) if device.type == "cuda" else None
        lines.append(json.dumps({"peak_tflops": peak, "most_pytorch_mib": memory}))
        _write(out, lines)
        for method in methods:
            try:
                lines.append(json.dumps({"method": method.name, "calls": _cuda_calls(method, (1, 256, 256))}))
            except (CisiError, RuntimeError, ValueError) as error:  # an engine of another size, for example
                click.echo(f"{method.name}, calls: {' '.join(str(error).split())}", err=True)
                continue
            click.echo(lines[-1])
            _write(out, lines)


def _write(out: Path | None, lines: Sequence[str]) -> None:
    """What was measured so far."""
    if out is not None:
        with error_prefix("--out"), atomic_file(out) as temporary:
            temporary.write_text("\n".join(lines) + "\n")


def _methods(
    checkpoint: Checkpoint,
    model: ModelProto,
    folder: Path,
    engine: Path | None,
    device: torch.device,
    *,
    rehearse: bool,
) -> Iterator[tuple[str, Callable[[], Calls]]]:
    """Names, and functions that make each of them ready. model: the float32 graph for CPUs."""
    plain = inference_module(checkpoint.generator(), target="cpu", face="uint8", as_float16=False).to(device)
    yield "PyTorch eager float32", lambda: _torch_calls(plain, device)
    fp16_module: nn.Module
    if rehearse:
        fp16_module = _Autocast(copy.deepcopy(plain), torch.bfloat16)
    else:
        fp16_module = inference_module(checkpoint.generator(), target="tensorrt", face="uint8", as_float16=True)
        fp16_module = fp16_module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    yield "PyTorch half, channels last", lambda: _torch_calls(fp16_module, device)
    compiled: Any = torch.compile(fp16_module, dynamic=False, backend=_COMPILER[rehearse])
    yield "PyTorch half, torch.compile", lambda: _torch_calls(compiled, device)
    if rehearse:
        graph = folder / "float32.onnx"
        graph.write_bytes(model.SerializeToString())
        yield "ONNX Runtime CPU, float32", lambda: (open_backend(graph)[0].run, None)
        return
    graphs = {}
    for precision in ("float32", "float16"):
        for_gpus = float_graph(checkpoint, precision=precision, target="tensorrt", face="uint8")
        graphs[precision] = folder / f"{precision}.onnx"
        graphs[precision].write_bytes(for_gpus.SerializeToString())
    contract = dataclasses.replace(checkpoint.contract, face="uint8")
    for name, module in {"eager half": fp16_module, "compiled half": compiled}.items():
        yield f"our runner around {name}", lambda module=module: _gpu_calls(_runner_around(module, contract))  # type: ignore[misc]
    for precision, path in graphs.items():
        yield f"ONNX Runtime CUDA, {precision}", lambda path=path: _gpu_calls(OnnxRuntimeCudaBackend(path))  # type: ignore[misc]
    if engine is not None:
        yield engine.name, lambda: _gpu_calls(TensorRtBackend.open(engine))


def _prepared(name: str, make: Callable[[], Calls]) -> Calls | None:
    try:
        return make()
    except (CisiError, RuntimeError) as error:
        click.echo(f"{name}: not measured: {' '.join(str(error).split())}", err=True)
        return None


class _Autocast(nn.Module):
    """Half precision on the CPU, for rehearsals."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._module, self._dtype = module, dtype

    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        """As the module's."""
        with torch.autocast("cpu", dtype=self._dtype):
            completed: Tensor = self._module(image, hole_mask)
        return completed


def _runner_around(module: nn.Module, contract: Contract) -> GpuBackend:
    runner = Runner(open_memory(), *face_tensors(contract, (16, 512, 512)), TorchWork(module).plan)
    return GpuBackend("PyTorch", contract, FixedShape(), runner)


def _torch_calls(module: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> Calls:
    def run(image: Array, hole_mask: Array) -> Array:
        with torch.inference_mode():
            return module(torch.from_numpy(image).to(device), torch.from_numpy(hole_mask).to(device)).cpu().numpy()

    def on_device(image: Tensor, hole_mask: Tensor) -> None:
        with torch.inference_mode():
            module(image, hole_mask)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run, on_device


def _gpu_calls(backend: GpuBackend) -> Calls:
    return backend.run, backend.run_on_device


def _measure(
    methods: Sequence[Method], sides: BatchSize, rounds: int, flop: float, peak: float | None, device: torch.device
) -> Iterator[dict[str, Any]]:
    """All methods in turn, `rounds` times, after three rounds that warm up. One that fails is reported and left out."""
    batch, height, width = sides
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    hole_mask = np.zeros((batch, height, width), dtype=np.uint8)
    hole_mask[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    on_device = torch.from_numpy(image).to(device), torch.from_numpy(hole_mask).to(device)
    jobs: dict[tuple[str, str], Callable[[], object]] = {}
    agreement: dict[str, int] = {}
    reference: Array | None = None
    for method in methods:
        try:
            for _ in range(3):
                completed = method.run(image, hole_mask)
                if method.on_device is not None:
                    method.on_device(*on_device)
        except (CisiError, RuntimeError, ValueError) as error:
            click.echo(f"{method.name}, {batch}x{width}x{height}: {' '.join(str(error).split())}", err=True)
            continue
        reference = completed if reference is None else reference
        agreement[method.name] = int(np.abs(completed.astype(int) - reference).max())
        jobs[method.name, "host"] = functools.partial(method.run, image, hole_mask)
        if method.on_device is not None:
            jobs[method.name, "device"] = functools.partial(method.on_device, *on_device)
    times: dict[tuple[str, str], list[float]] = {job: [] for job in jobs}
    for _ in range(rounds):
        for job, work in jobs.items():
            start = time.perf_counter()
            work()
            times[job].append(1e3 * (time.perf_counter() - start))
    for (name, where), values in times.items():
        figures = {f"p{p}_ms": round(float(np.percentile(values, p)), 4) for p in _PERCENTILES}
        tflops = flop * batch / figures["p50_ms"] / 1e9
        yield {
            "method": name,
            "pixels_on": where,
            "batch": batch,
            "side": height,
            **figures,
            "images_per_s": round(1e3 * batch / figures["p50_ms"], 1),
            "tflops": round(tflops, 2),
            "of_measured_peak": round(tflops / peak, 3) if peak else None,
            "levels_from_the_first": agreement[name],
        }


def _peak_tflops(device: torch.device) -> float | None:
    """What the card does in float16, in TFLOP/s: the best of ten large matrix products. The roof of the roofline."""
    if device.type != "cuda":
        return None
    side = 8192
    matrix = torch.randn(side, side, device=device, dtype=torch.float16)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.matmul(matrix, matrix)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best / 1e12


def _cuda_calls(method: Method, sides: BatchSize) -> dict[str, float]:
    """Calls into CUDA and copies by kind for each picture of the hot loop, whoever makes them, as the profiler sees
    them."""
    rounds = 20
    image = np.zeros((*sides, 3), dtype=np.uint8)
    hole_mask = np.full(sides, 255, dtype=np.uint8)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile, counting() as counts:
        for _ in range(rounds):
            method.run(image, hole_mask)
    names = [event.name for event in profile.events() if re.match(r"cu[A-Z]|cuda[A-Z]|Mem(cpy|set)", event.name)]
    # Of the driver API the profiler sees only launches of kernels. Our calls are counted separately.
    profiled = {name: count / rounds for name, count in collections.Counter(names).most_common()}
    return profiled | {f"ours: {name}": count / rounds for name, count in counts.items()}


def _format_row(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name[:3]} {row[name]:>8.3f}" for name in row if name.endswith("_ms"))
    return (
        f"{row['method']:<34} {row['pixels_on']:<6} {row['batch']:>2} x {row['side']:>4}  {times} ms  "
        f"{row['images_per_s']:>8.1f} images/s  {row['tflops']:>7.2f} TFLOP/s  {row['levels_from_the_first']:>3} levels"
    )


def _about(device: torch.device) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
    if device.type == "cpu":
        return {"rehearsal": True, "device": "cpu", **versions}
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"rehearsal": False, "device": str(find_gpu()), "cuda": torch.version.cuda, "cudnn": cudnn, **versions}


def main() -> None:
    """Entry point of `python -m benchmarks.gpu_latency`."""
    run_command(bench, "python -m benchmarks.gpu_latency")


if __name__ == "__main__":
    main()
