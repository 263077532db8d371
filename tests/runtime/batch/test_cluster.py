"""Photographs on a Ray cluster: real nodes and workers on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.batch import cluster as cluster_module
from cisi_runtime.batch.cluster import MAX_LOST, ClusterOptions, parse_cluster, run_on_cluster
from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.photograph import PhotographOptions
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.errors import CisiError, ClusterError, GraphError
from tests.support.folder_runs import PROGRAM, cisi_run, cisi_run_alone, photographs
from tests.support.shared import TIMEOUT_S

# In each process of a cluster. A worker that opens a photograph named in the folder `do` does what the file of that
# name there says: `die`, `die once`, or `wait`: it writes `NAME.waits`, and waits until `NAME.go` is there.
HOOK = """
import os, sys, time
from pathlib import Path
do = Path(os.environ["CISI_TEST_DO"])
def hook(event, arguments):
    if event != "open" or not str(arguments[0]).endswith(".png") or "photos" not in str(arguments[0]):
        return
    order = do / Path(str(arguments[0])).stem
    if not order.exists():
        return
    what = order.read_text()
    if what == "die once":
        order.unlink()
    if what.startswith("die"):
        with (do / f"{order.name}.deaths").open("a") as deaths:
            deaths.write("x")
        os.kill(os.getpid(), 9)
    # Whole or not there: the test reads it as soon as it is.
    (do / f"{order.name}.begins").write_text(os.environ.get("CISI_TEST_NODE", ""))
    (do / f"{order.name}.begins").rename(do / f"{order.name}.waits")
    while not (do / f"{order.name}.go").exists():
        time.sleep(0.05)
sys.addaudithook(hook)
"""


class Nodes:
    """A cluster of several nodes on this machine. do: what its workers do at a photograph (see `HOOK`)."""

    def __init__(self, folder: Path) -> None:
        self.do = folder / "do"
        self.do.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(HOOK)
        self._environment = {"PYTHONPATH": str(folder), "CISI_TEST_DO": str(self.do)}
        # The head has no CPU for workers, as on Kubernetes.
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.address = str(self.cluster.address)

    def add(self, name: str) -> Any:
        """A node for one worker."""
        return self.cluster.add_node(num_cpus=1, env_vars=self._environment | {"CISI_TEST_NODE": name})

    def run(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`cisi-run` on this cluster."""
        return cisi_run_alone(*arguments, "--cluster", "auto", env=os.environ | {"RAY_ADDRESS": self.address}, cwd=cwd)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The same in the background."""
        command = [*PROGRAM, *map(str, arguments), "--cluster", "auto"]
        environment = os.environ | {"RAY_ADDRESS": self.address}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path / "nodes")
    yield made
    ray.shutdown()
    made.cluster.shutdown()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def options(graph: Path | None) -> WorkerOptions:
    return WorkerOptions(graph, BackendOptions(threads=1), detail=False, job=PhotographOptions())


def jobs_of(folder: Path) -> list[Job]:
    with plan_folder(folder / "photos", folder / "masks", folder / "out") as plan:
        jobs = list(plan.jobs())
    for job in jobs:
        assert isinstance(job.output, Path)
        job.output.parent.mkdir(parents=True, exist_ok=True)
    return jobs


def reference(folder: Path, graph: Path) -> dict[str, bytes]:
    """What a folder run of this machine makes of the photographs, by name."""
    arguments = (folder / "photos", "--mask", folder / "masks", "-o", folder / "reference", "--model", graph)
    assert cisi_run(*arguments, "--no-detail").returncode == 0
    return contents(folder / "reference")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, without the one that says what made them."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_the_command_does_what_a_folder_run_does(tmp_path: Path, tiny_graph: Path, nodes: Nodes) -> None:
    photographs(tmp_path, 7)
    expected = reference(tmp_path, tiny_graph)
    for name in "ab":
        nodes.add(name)
    out = tmp_path / "out"
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", out, "--model", tiny_graph, "--no-detail")
    result = nodes.run(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{out}: 7 written, 0 there already, 0 failed")
    assert "image/s" in result.stderr
    assert f"{tiny_graph.name}: onnxruntime on the CPU" in result.stderr
    assert contents(out) == expected

    # From another folder, and with failures: as without a cluster, to the letter.
    (out / "1.png").unlink()
    (tmp_path / "masks" / "2.png").unlink()
    (tmp_path / "photos" / "1.png").write_bytes(b"damaged")
    relative = ("photos", "--mask", "masks", "-o", "out", "--model", tiny_graph, "--no-detail")
    lists = []
    for run in (nodes.run, cisi_run):
        again = run(*relative, cwd=tmp_path)
        assert again.returncode == 1
        assert "0 written, 5 there already, 2 failed" in again.stdout
        lists.append((out / "failures.jsonl").read_text())
    assert lists[0] == lists[1]
    reasons = {entry["image"]: entry["reason"] for entry in map(json.loads, lists[0].splitlines())}
    assert "expected one mask of this name" in reasons["photos/2.png"]
    assert "not a picture that can be read" in reasons["photos/1.png"]


@pytest.mark.slow
def test_a_lost_worker_costs_no_photograph_and_a_deadly_one_only_itself(
    tmp_path: Path, tiny_graph: Path, nodes: Nodes
) -> None:
    photographs(tmp_path, 8)
    expected = reference(tmp_path, tiny_graph)
    for name in "ab":
        nodes.add(name)
    (nodes.do / "2").write_text("die once")
    (nodes.do / "4").write_text("die")
    results = dict(run_on_cluster(jobs_of(tmp_path), ClusterOptions(nodes.address), options(tiny_graph), print))
    assert len(results) == 8
    failed = {job.output.name: result for job, result in results.items() if isinstance(result, CisiError)}
    assert list(failed) == ["4.png"]
    assert f"4.png: not done, {MAX_LOST} workers were lost over it: " in str(failed["4.png"])
    assert "\n" not in str(failed["4.png"])
    assert (nodes.do / "2.deaths").read_text() == "x"
    assert (nodes.do / "4.deaths").read_text() == "x" * MAX_LOST
    del expected["4.png"]
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_node_that_goes_and_one_that_comes(
    tmp_path: Path, tiny_graph: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_LOOK_S", 0.2)
    monkeypatch.setattr(cluster_module, "_TELL_S", 0.0)
    photographs(tmp_path, 10)
    expected = reference(tmp_path, tiny_graph)
    (nodes.do / "3").write_text("wait")
    told: list[str] = []
    state: dict[str, Any] = {}

    def tell(line: str) -> None:
        told.append(line)
        if "waiting for a worker of 1 CPU: the cluster has 0 CPU" in line and not state:
            state["goes"] = nodes.add("goes")

    results = {}
    for job, result in run_on_cluster(jobs_of(tmp_path), ClusterOptions(nodes.address), options(tiny_graph), tell):
        results[job] = result
        if job.image.name == "2.png":
            # The node holds photograph 3 for ever. It goes, and another one comes.
            try:
                wait_for((nodes.do / "3.waits").exists)
                assert (nodes.do / "3.waits").read_text() == "goes"
            except BaseException:
                (nodes.do / "3.go").touch()  # otherwise the end of the run waits for it
                raise
            (nodes.do / "3").unlink()
            nodes.cluster.remove_node(state["goes"], allow_graceful=False)
            state["comes"] = nodes.add("comes")
    assert all(isinstance(result, JobSummary) for result in results.values()), results
    assert len(results) == 10
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_ctrl_c_finishes_what_is_being_worked_on(tmp_path: Path, tiny_graph: Path, nodes: Nodes) -> None:
    photographs(tmp_path, 12)
    nodes.add("a")
    (nodes.do / "3").write_text("wait")
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    with nodes.start(*arguments) as process:
        wait_for((nodes.do / "3.waits").exists)
        process.send_signal(signal.SIGINT)
        (nodes.do / "3.go").touch()
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("error: interrupted")
    written = contents(tmp_path / "out")
    assert "3.png" in written
    assert len(written) < 12
    assert not [name for name in written if ".cisi-" in name]


@pytest.mark.slow
def test_a_command_that_is_killed_is_gone_on_with(tmp_path: Path, tiny_graph: Path, nodes: Nodes) -> None:
    photographs(tmp_path, 8)
    expected = reference(tmp_path, tiny_graph)
    nodes.add("a")
    (nodes.do / "3").write_text("wait")
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    with nodes.start(*arguments, "--no-detail") as process:
        wait_for((nodes.do / "3.waits").exists)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    written = {name: data for name, data in contents(tmp_path / "out").items() if ".cisi-" not in name}
    assert 0 < len(written) < 8
    assert written.items() <= expected.items()
    (nodes.do / "3").unlink()
    again = nodes.run(*arguments, "--no-detail")
    assert again.returncode == 0, again.stderr
    assert f"{8 - len(written)} written, {len(written)} there already" in again.stdout
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_workers_that_cannot_open_the_network_end_the_run(tmp_path: Path, tiny_graph: Path, nodes: Nodes) -> None:
    photographs(tmp_path, 2)
    nodes.add("a")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(tiny_graph.read_bytes()[:1000])
    with pytest.raises(GraphError, match=r"damaged\.onnx"):
        list(run_on_cluster(jobs_of(tmp_path), ClusterOptions(nodes.address), options(damaged), print))
    with pytest.raises(GraphError, match="no such file"):
        list(run_on_cluster([], ClusterOptions(nodes.address), options(tmp_path / "none.onnx"), print))
    # Another version of this package would make other pictures.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_module, "version", lambda _: "0.0.0")
        with pytest.raises(ClusterError, match=rf"has cisi-net {version('cisi-net')}, expected 0\.0\.0 as on"):
            list(run_on_cluster(jobs_of(tmp_path), ClusterOptions(nodes.address), options(tiny_graph), print))
    assert not any((tmp_path / "out").rglob("*.png"))


@pytest.mark.slow
def test_few_photographs_are_taken_from_the_list_at_a_time(tmp_path: Path, tiny_graph: Path, nodes: Nodes) -> None:
    photographs(tmp_path, 1)
    nodes.add("a")
    (job,) = jobs_of(tmp_path)
    taken = 0

    def many() -> Iterator[Job]:
        nonlocal taken
        for _ in range(40):
            taken += 1
            yield job

    for done, _ in enumerate(run_on_cluster(many(), ClusterOptions(nodes.address), options(tiny_graph), print), 1):
        assert taken <= done + cluster_module._HELD + 1
    assert taken == 40


def test_addresses_of_clusters() -> None:
    assert parse_cluster("auto") == ("auto", None)
    assert parse_cluster("local") == ("local", None)
    assert parse_cluster("local:3") == ("local", 3)
    assert parse_cluster("ray://head:10001") == ("ray://head:10001", None)
    for text in ("", "local:", "local:0", "local:x", "ray://", "ray:///", "ray://h:x", "head:6379", "AUTO"):
        with pytest.raises(ClusterError, match=r"expected auto, local, local:N or ray://HOST:PORT"):
            parse_cluster(text)


def test_no_cluster_is_said(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 1)
    result = cisi_run_alone(
        tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph,
        "--cluster", "auto", env=os.environ | {"RAY_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert result.returncode == 1
    assert "expected a running cluster (ray start --head), or --cluster local" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_cluster_of_this_machine_cannot_have(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 1)
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    result = cisi_run_alone(*arguments, "--cluster", "local:1", "--cpus-per-worker", 2)
    assert result.returncode == 1
    assert "a worker needs 2 CPU, and the cluster has 1 CPU and 0 GPU" in result.stderr
    # A worker for a backend of a GPU asks for one.
    result = cisi_run_alone(*arguments, "--cluster", "local:1", "--device", "cuda")
    assert "a worker needs 1 CPU and 1 GPU, and the cluster has 1 CPU and 0 GPU" in result.stderr
    result = cisi_run_alone(*arguments, "--cluster", "auto", env=os.environ | {"RAY_ADDRESS": "local"})
    assert "RAY_ADDRESS is local, which is no cluster that runs" in result.stderr
    assert "--cpus-per-worker is for --cluster" in cisi_run(*arguments, "--cpus-per-worker", 2).stderr


# A worker as Ray makes one, and what it leaves.
WORKER = """
import sys
from pathlib import Path
from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.batch.cluster_worker import PhotographWorker
from cisi_runtime.batch.job import Job
from cisi_runtime.batch.photograph import PhotographOptions
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.inpainting.model_copy import ModelCopy
folder, graph = map(Path, sys.argv[1:])
options = WorkerOptions(graph, BackendOptions(threads=1), detail=False, job=PhotographOptions())
worker = PhotographWorker(options, ModelCopy.read(graph), folder)
print(worker.open())
print(worker.run(Job(Path("photos/below/0.png"), Path("masks/below/0.png"), Path("out.png"))))
"""


def test_a_worker_leaves_no_files_and_works_in_the_folder_of_the_command(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 1)
    (tmp_path / "temporary").mkdir()
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(tiny_graph)]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/", env=environment)
    assert f"{tiny_graph.name}: onnxruntime on the CPU" in result.stdout
    assert "JobSummary(hole_fraction=0." in result.stdout
    assert (tmp_path / "out.png").exists()
    assert not any((tmp_path / "temporary").glob("cisi-*"))


def test_without_ray_the_extra_is_named(tmp_path: Path) -> None:
    photographs(tmp_path, 1)
    program = "import sys; sys.modules['ray'] = None; import cisi_runtime.cli.run as m; m.main()"
    command = [sys.executable, "-c", program, "photos", "--mask", "masks", "-o", "out", "--cluster", "local"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 1
    assert "needs ray: pip install 'cisi-net[ray]'" in result.stderr
