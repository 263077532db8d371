"""`python -m benchmarks.cpu_profile GRAPH`: where ONNX Runtime and OpenVINO spend their time, node by node.

One picture of one size, with each runtime's own profiler. Times are medians of a node over the rounds; profiling itself
costs some percent.
"""

from __future__ import annotations

import collections
import contextlib
import json
import statistics
import tempfile
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnxruntime
import openvino

from cisi_runtime.backends.graph import CPU_PROVIDER, GraphInfo, read_graph
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH
from cisi_runtime.pictures.masks import centre_hole

# Milliseconds of every run, by kind of node and name.
Profile = dict[tuple[str, str], list[float]]
Inputs = dict[str, npt.NDArray[np.generic]]

_WARM_UP_ROUNDS = 2
_CONVOLUTIONS = ("Conv", "QLinearConv", "Convolution")


def profile_onnxruntime(info: GraphInfo, inputs: Inputs, threads: int, rounds: int) -> Profile:
    """Kernel times of ONNX Runtime's CPU provider, fully optimised."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        session = onnxruntime.InferenceSession(info.serialised(), options, providers=[CPU_PROVIDER])
        for _ in range(_WARM_UP_ROUNDS + rounds):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    profile: Profile = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            profile[event["args"]["op_name"], name].append(event["dur"] / 1e3)
    return {key: times[_WARM_UP_ROUNDS:] for key, times in profile.items()}


def profile_openvino(info: GraphInfo, inputs: Inputs, threads: int, rounds: int) -> Profile:
    """Node times of OpenVINO's CPU plug-in, compiled for this size. The kind of a node includes its kernel."""
    core = openvino.Core()
    model = core.read_model(info.serialised())
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    request = core.compile_model(model, "CPU", {**config, "INFERENCE_NUM_THREADS": threads}).create_infer_request()
    profile: Profile = collections.defaultdict(list)
    for number in range(_WARM_UP_ROUNDS + rounds):
        request.infer(inputs)
        for node in request.profiling_info if number >= _WARM_UP_ROUNDS else ():
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                kind = f"{node.node_type} {node.exec_type.removeprefix('brgconv_').removeprefix('jit_')}"
                profile[kind, node.node_name].append(1e3 * node.real_time.total_seconds())
    return profile


def table(profile: Profile, nodes: int) -> str:
    """A line for each kind of node, the costliest first, then the costliest nodes."""
    medians = {key: statistics.median(times) for key, times in profile.items()}
    total = sum(medians.values())
    kinds: collections.Counter[str] = collections.Counter()
    counts = collections.Counter(kind for kind, _ in medians)
    for (kind, _), milliseconds in medians.items():
        kinds[kind] += milliseconds  # type: ignore[assignment]
    rest = sum(ms for kind, ms in kinds.items() if kind.split()[0] not in _CONVOLUTIONS)
    lines = [f"all nodes {total:.1f} ms, of them not convolutions {rest / total:.0%}"]
    lines += [f"{ms:8.2f} ms {ms / total:6.1%}  {counts[kind]:>3} x {kind}" for kind, ms in kinds.most_common(12)]
    costliest = sorted(medians.items(), key=lambda item: -item[1])[:nodes]
    lines += [f"{ms:8.2f} ms {ms / total:6.1%}  {kind}: {name[:60]}" for (kind, name), ms in costliest]
    return "\n".join(lines)


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_INT8_GRAPH)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=9, show_default=True)
@click.option("--nodes", type=int, default=8, show_default=True, help="How many single nodes to show.")
def main(graph: Path, size: int, threads: int, rounds: int, nodes: int) -> None:
    """Profile GRAPH (default: the INT8 graph that ships)."""
    info = read_graph(graph)
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    inputs: Inputs = dict(info.contract.io.inputs(image, centre_hole(size, size)[None]))
    for name, profile in (("ONNX Runtime", profile_onnxruntime), ("OpenVINO", profile_openvino)):
        click.echo(f"{name}, {graph.name}, {size}x{size}, {threads} threads, medians of {rounds} rounds")
        click.echo(table(profile(info, inputs, threads, rounds), nodes))


if __name__ == "__main__":
    main()
