"""`cisi-bench`: what it prints, what it refuses, and that its figures are of what it says."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH
from cisi_runtime.bench.measure import Latency, _quality_db, interleaved
from cisi_runtime.cli.bench import main
from cisi_runtime.inpainting.timing import STAGES, StageTimer
from tests.support.commands import run_in_process


def test_percentiles_by_hand() -> None:
    latency = Latency.of([float(x) for x in range(1, 102)], pictures=4)
    assert (latency.p50, latency.p95, latency.p99, latency.minimum) == (51.0, 96.0, 100.0, 1.0)
    assert latency.per_second == pytest.approx(4 * 1000 / 51)


def test_calls_take_turns_and_the_first_rounds_do_not_count() -> None:
    order: list[str] = []
    times = interleaved([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert order == ["a", "b"] * 5
    assert [len(values) for values in times] == [3, 3]


def test_warm_calls_come_once_more_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    calls = []

    def call() -> None:
        nonlocal now
        calls.append(now)
        now += 2.0

    assert interleaved([call], 3, warm=True) == [[2000.0] * 3]
    assert len(calls) == 2 * 5


def test_stages_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.010, 5.0, 5.020])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    stages = StageTimer()
    assert tuple(stages.milliseconds) == STAGES
    for _ in range(2):
        with stages("run"):
            pass
    assert stages.milliseconds["run"] == pytest.approx(30)
    assert sum(stages.milliseconds.values()) == stages.milliseconds["run"]
    monkeypatch.undo()
    with pytest.raises(KeyError), stages("lunch"):
        pass


@pytest.mark.slow
def test_graph_and_checkpoint_side_by_side(tmp_path: Path, tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    plot = tmp_path / "bench.png"
    arguments = (tiny_graph, tiny_checkpoint_path, "--backend", "onnxruntime", "--backend", "torch", "--threads", 1)
    result = run_in_process(main, *arguments, "--rounds", 3, "--size", 64, "--batch", "1,2", "--plot", plot, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    settings = [(row["setting"]["backend"], row["setting"]["threads"]) for row in report["photograph"]]
    assert settings == [("onnxruntime", 1), ("torch", 1)]
    for row in report["photograph"]:
        latency = row["latency"]
        assert 0 < latency["minimum"] <= latency["p50"] <= latency["p95"] <= latency["p99"]
        assert set(row["stages"]) == set(STAGES)
        assert all(row["stages"][stage] > 0 for stage in ("decode", "prepare", "run", "finish", "encode", "check"))
        assert row["cold_start"]["peak_mb"] > 50
        assert row["quality_db"] == "exact" or row["quality_db"] > 60
    peaks = [row["cold_start"]["peak_mb"] for row in report["photograph"]]
    assert peaks[1] > 1.2 * peaks[0]  # PyTorch
    assert [row["batch"] for row in report["network"]] == [1, 2] * 2
    with Image.open(plot) as image:
        assert image.width > 500


def test_the_quality_of_an_int8_graph_is_a_number() -> None:
    quality_db = _quality_db(SHIPPED_INT8_GRAPH, OnnxRuntimeBackend(SHIPPED_INT8_GRAPH))
    assert quality_db is not None
    assert 35.0 < quality_db < 60.0


@pytest.mark.slow
def test_the_tables_are_for_people(tiny_graph: Path) -> None:
    result = run_in_process(main, tiny_graph, "--threads", "1,2", "--rounds", 3, "--size", 64, "--batch", "1")
    assert result.returncode == 0, result.stderr
    assert f" 1  {tiny_graph.name} · auto, 1 thread\n 2  {tiny_graph.name} · auto, 2 threads\n" in result.stdout
    for title in (
        "from file to file, 3 rounds",
        "median of each stage",
        "first photograph of a process",
        "alone, 64x64",
    ):
        assert title in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["none.onnx"], 1, "ARTIFACTS: none.onnx: no such file"),
        (["GRAPH", "--backend", "torch"], 1, "none of torch takes it"),
        (["GRAPH", "--precision", "bf16"], 1, "--precision bf16: expected a float32 graph with --backend openvino"),
        (["INT8", "--backend", "openvino", "--precision", "bf16"], 1, "--precision bf16: expected a float32 graph"),
        (["GRAPH", "--threads", "two"], 2, "--threads: 'two', expected numbers from 0 on"),
        (["GRAPH", "--batch", "0"], 2, "--batch: '0', expected numbers from 1 on"),
        (["GRAPH", "--image", "a.jpg"], 2, "--image and --mask go together"),
        (["GRAPH", "--plot", "none/a.png"], 1, "--plot: "),
        (["GRAPH", "--plot", "a.xyz"], 2, "--plot: a.xyz: expected a name that ends with .png"),
        (["GRAPH", "--size", "100"], 1, "not batch 1 of 100x100: choose --size and --batch"),
        (["GRAPH", "--image", "a.jpg", "--mask", "b.png"], 1, "--image: a.jpg: no such file"),
    ],
)
def test_refusals(tiny_graph: Path, arguments: list[str], status: int, words: str) -> None:
    graphs = {"GRAPH": tiny_graph, "INT8": SHIPPED_INT8_GRAPH}
    result = run_in_process(main, *[graphs.get(argument, argument) for argument in arguments])
    assert result.returncode == status
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
