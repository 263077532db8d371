"""`python -m benchmarks.cpu_threads GRAPH`: how many threads, pinned or not, one picture at a time or several.

Latency of one 256x256 picture with 1, 2, ... threads; pictures a second with batches, and with several pictures at a
time that have one thread each. Everything takes turns within one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import onnxruntime
import openvino

from benchmarks.cpu_graphs import cpu_name
from cisi_runtime.backends.cores import available_cores
from cisi_runtime.backends.graph import CPU_PROVIDER
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH
from cisi_runtime.bench.measure import interleaved
from cisi_runtime.pictures.masks import centre_hole

_SIZE = 256
# Pictures of a call where throughput is measured.
_PICTURES = 8


def in_onnxruntime(
    graph: bytes, threads: int, *, pinned: bool, batch: int = 1, at_a_time: int = 1
) -> Callable[[], object]:
    """A call that takes `_PICTURES` pictures through, or one where `batch` and `at_a_time` are 1.

    threads: of each session. pinned: every thread to a core, which ONNX Runtime does by itself where it chooses their
    number.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if pinned and threads > 1:
        # The first core is that of the calling thread. Cores count from 1.
        options.add_session_config_entry(
            "session.intra_op_thread_affinities", ";".join(str(core) for core in range(2, threads + 1))
        )
    session = onnxruntime.InferenceSession(graph, options, providers=[CPU_PROVIDER])
    inputs = _inputs(batch)
    return _calls(lambda: session.run(None, inputs), batch, at_a_time)


def in_openvino(
    graph: bytes, threads: int, *, pinned: bool, batch: int = 1, at_a_time: int = 1
) -> Callable[[], object]:
    """As `in_onnxruntime`; threads are of all streams together, and there is a stream for each picture at a time."""
    core = openvino.Core()
    model = core.read_model(graph)
    inputs = _inputs(batch)
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    config = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": pinned}
    compiled = core.compile_model(
        model, "CPU", {**config, "INFERENCE_NUM_THREADS": threads * at_a_time, "NUM_STREAMS": at_a_time}
    )
    if at_a_time == 1:
        request = compiled.create_infer_request()
        return _calls(lambda: request.infer(inputs), batch, 1)
    queue = openvino.AsyncInferQueue(compiled, at_a_time)

    def streams() -> None:
        for _ in range(_PICTURES // batch):
            queue.start_async(inputs)
        queue.wait_all()

    return streams


def _calls(call: Callable[[], object], batch: int, at_a_time: int) -> Callable[[], object]:
    if batch == at_a_time == 1:
        return call
    pool = ThreadPoolExecutor(at_a_time)
    return lambda: list(pool.map(lambda _: call(), range(_PICTURES // batch)))


def _inputs(batch: int) -> dict[str, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (batch, _SIZE, _SIZE, 3), dtype=np.uint8)
    hole = np.stack([centre_hole(_SIZE, _SIZE)] * batch)
    return {"image": image, "hole_mask": hole.astype(np.uint8) * np.uint8(255)}


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_INT8_GRAPH)
@click.option("--rounds", type=int, default=11, show_default=True)
def main(graph: Path, rounds: int) -> None:
    """Measure GRAPH (default: the INT8 graph that ships)."""
    model, cores = graph.read_bytes(), available_cores()
    latency: dict[str, Callable[[], object]] = {}
    throughput: dict[str, Callable[[], object]] = {}
    for name, runtime in (("ONNX Runtime", in_onnxruntime), ("OpenVINO", in_openvino)):
        for threads in sorted({1, 2, cores}):
            for pinned in (False, True):
                label = f"{name}, {threads} thread{'s' * (threads > 1)}, {'' if pinned else 'not '}pinned"
                latency[label] = runtime(model, threads, pinned=pinned)
        throughput[f"{name}, batches of 4, {cores} threads"] = runtime(model, cores, pinned=False, batch=4)
        throughput[f"{name}, {cores} at a time, 1 thread each"] = runtime(model, 1, pinned=False, at_a_time=cores)
    calls = {**latency, **throughput}
    times = interleaved(list(calls.values()), rounds, warm=True)
    medians = {name: statistics.median(each) for name, each in zip(calls, times, strict=True)}
    click.echo(f"{graph.name}, {_SIZE}x{_SIZE}, {cores} cores, medians of {rounds} rounds; {cpu_name()}")
    for name in latency:
        click.echo(f"{name:<44} {medians[name]:7.1f} ms  {1e3 / medians[name]:6.1f}/s")
    for name in throughput:
        click.echo(f"{name:<44} {'':>10}  {_PICTURES * 1e3 / medians[name]:6.1f}/s")


if __name__ == "__main__":
    main()
