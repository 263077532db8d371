"""Folders and pipes: what is skipped, what fails alone, what a killed run leaves."""

import dataclasses
import json
import os
import platform
import signal
import subprocess
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.batch import workers
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.photograph import PhotographOptions
from cisi_runtime.batch.workers import WorkerOptions, run_jobs, start_workers
from cisi_runtime.errors import DataError
from cisi_runtime.files import remove_left_over
from cisi_runtime.pictures.reading import read_picture
from tests.support.folder_runs import PROGRAM, SIZE, cisi_run, interrupted_run, photographs, touch
from tests.support.shared import TIMEOUT_S


def test_jobs_run_side_by_side_and_one_failure_is_its_own(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / str(number), None, tmp_path) for number in range(6)]
    side_by_side = threading.Barrier(2, timeout=TIMEOUT_S)  # breaks, and fails the test, where one runs alone

    def run(job: Job) -> JobSummary:
        side_by_side.wait()
        if job.image.name == "3":
            raise DataError("bad")
        if job.image.name == "4":
            raise MemoryError
        if job.image.name == "5":
            raise ZeroDivisionError("a bug")
        return JobSummary(True, 0, job.image.name)

    results = {job.image.name: done for job, done in run_jobs(jobs, run, ThreadPoolExecutor(2), 4)}
    assert sorted(results) == list("012345")
    assert str(results["3"]) == "bad"
    assert "not enough memory" in str(results["4"])
    assert str(results["5"]).endswith("5: ZeroDivisionError: a bug")
    assert all(isinstance(results[name], JobSummary) for name in "012")


def test_a_folder(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 3)
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    Image.new("L", SIZE[::-1]).save(tmp_path / "masks" / "1.png")
    result = cisi_run(*arguments)
    assert result.returncode == 0, result.stderr
    assert "3 written, 0 there already, 0 failed" in result.stdout
    assert "1 of them without a hole" in result.stdout
    assert "image/s" in result.stderr
    # As one by one.
    for name in ("0", "1", "below/2"):
        mask = tmp_path / "masks" / f"{name}.png"
        cisi_run(tmp_path / "photos" / f"{name}.png", "--mask", mask, "-o", tmp_path / "one.png", "--model", tiny_graph)
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / f"{name}.png").read_bytes()
    # Results are kept, unless they are asked for again.
    (tmp_path / "out" / "0.png").write_bytes(b"mine")
    (tmp_path / "out" / "1.png").unlink()
    assert "1 written, 2 there already, 0 failed" in cisi_run(*arguments).stdout
    assert (tmp_path / "out" / "0.png").read_bytes() == b"mine"
    assert "3 written, 0 there already" in cisi_run(*arguments, "--overwrite").stdout
    assert read_picture(tmp_path / "out" / "0.png").size == SIZE
    # One mask for all.
    shared = (tmp_path / "photos", "--mask", tmp_path / "masks" / "0.png", "-o", tmp_path / "shared")
    assert "3 written" in cisi_run(*shared, "--model", tiny_graph).stdout


def test_links_below_the_output(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)
    photos, masks, out, far = (tmp_path / name for name in ("photos", "masks", "out", "far"))
    model = ("--model", tiny_graph, "--threads", 1)
    for folder in (out, far):
        folder.mkdir()
    (out / "below").symlink_to(far)
    arguments = (photos, "--mask", masks, "-o", out, *model)
    assert "2 written, 0 there already" in cisi_run(*arguments).stdout
    assert "0 written, 2 there already" in cisi_run(*arguments).stdout
    assert (far / "1.png").exists()
    # A link back to the photographs would write over one.
    (out / "below").unlink()
    (photos / "other").mkdir()
    original = b"an original"
    (photos / "other" / "1.png").write_bytes(original)
    (masks / "other").mkdir()
    (masks / "other" / "1.png").write_bytes((masks / "0.png").read_bytes())
    (out / "below").symlink_to(photos / "other")
    refused = cisi_run(*arguments, "--overwrite")
    assert refused.returncode == 1
    assert "below: is a link into" in refused.stderr
    assert (photos / "other" / "1.png").read_bytes() == original
    table = tmp_path / "files.csv"
    table.write_text("image,mask,output\nphotos/0.png,masks/0.png,below/1.png\nphotos/other/1.png,masks/0.png,x.png\n")
    refused = cisi_run("--manifest", table, "-o", out, "--overwrite", *model)
    assert "is an original, expected another output" in refused.stderr
    assert (photos / "other" / "1.png").read_bytes() == original


def test_names_of_any_bytes_and_links_in_circles(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 1)
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    name = os.fsdecode(b"\xff.png")
    for folder in (photos, masks):
        (folder / name).write_bytes((folder / "below" / "0.png").read_bytes())
        (folder / "circle.png").symlink_to("circle.png")
    (photos / os.fsdecode(b"bad\xfe.png")).write_bytes(b"text")
    arguments = (photos, "--mask", masks, "-o", tmp_path / "out", "--model", tiny_graph, "--threads", 1)
    result = cisi_run(*arguments)
    assert "2 written, 0 there already, 1 failed" in result.stdout, result.stderr
    assert (tmp_path / "out" / name).exists()
    (failure,) = map(json.loads, (tmp_path / "out" / "failures.jsonl").read_text().splitlines())
    assert failure["image"] == str(photos / os.fsdecode(b"bad\xfe.png"))


def test_a_list_of_somebody_else_is_kept(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 1)
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "failures.jsonl"
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    for text in ("mine", '{"a": 1}', "[]"):
        mine.write_text(text)
        result = cisi_run(*arguments)
        assert result.returncode == 1
        assert "is no list of this command's; move it" in result.stderr
        assert mine.read_text() == text
    mine.unlink()
    mine.mkdir()
    assert "is no list of this command's" in cisi_run(*arguments).stderr


def test_pipes(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2, ".jpg")
    photo, mask = tmp_path / "photos" / "0.jpg", tmp_path / "masks" / "0.png"
    cisi_run(photo, "--mask", mask, "-o", tmp_path / "out.jpg", "--model", tiny_graph)
    command = [*PROGRAM, "-", "--mask", str(mask), "-o", "-", "--model", str(tiny_graph)]
    piped = subprocess.run(command, input=photo.read_bytes(), capture_output=True, check=True)
    assert piped.stdout == (tmp_path / "out.jpg").read_bytes()
    assert b"known pixels" in piped.stderr
    command = [*PROGRAM, str(photo), "--mask", "-", "-o", str(tmp_path / "b.jpg"), "--model", str(tiny_graph)]
    subprocess.run(command, input=mask.read_bytes(), capture_output=True, check=True)
    assert (tmp_path / "b.jpg").read_bytes() == piped.stdout
    broken = subprocess.run(
        [*PROGRAM, "-", "--mask", str(mask), "-o", "-"], input=b"text", capture_output=True, check=False
    )
    assert broken.returncode == 1
    assert broken.stdout == b""
    assert b"IMAGE: standard input: not a picture that can be read" in broken.stderr


def test_an_original_is_never_overwritten(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)
    photo, mask = tmp_path / "photos" / "0.png", tmp_path / "masks" / "0.png"
    before = photo.read_bytes(), mask.read_bytes()
    (tmp_path / "link.png").symlink_to(photo)
    sheet = cisi_run(photo, "--mask", mask, "-o", tmp_path / "o.png", "--sheet", tmp_path / "link.png")
    assert sheet.returncode == 1
    assert "--sheet: " in sheet.stderr
    assert not (tmp_path / "o.png").exists()
    for output, words in (
        (photo, "is the photograph itself"),
        (tmp_path / "link.png", "is the photograph itself"),
        (mask, "is the mask itself"),
    ):
        result = cisi_run(photo, "--mask", mask, "-o", output, "--model", tiny_graph)
        assert result.returncode == 1
        assert words in result.stderr
    assert (photo.read_bytes(), mask.read_bytes()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--mask", "masks", "-o", "-"], "expected a folder as --output"),
        (["photos", "--mask", "masks", "-o", "out", "--sheet", "s.png"], "no --sheet"),
        (
            ["photos/0.png", "--mask", "masks", "-o", "o.png"],
            "--output o.png: expected a folder, because photographs or masks are in one",
        ),
        (
            ["photos/0.png", "--mask", "masks", "-o", "o.png", "--sheet", "s.png"],
            "masks is a folder: expected a folder as",
        ),
        (["photos/0.png", "--mask", "masks", "-o", "out", "--watch"], "--watch is for a folder of this machine"),
        (["photos/0.png", "--mask", "masks/0.png", "-o", "o.png", "--overwrite"], "--overwrite is for folders"),
        (["-", "--mask", "-", "-o", "o.png"], "IMAGE and --mask are both standard input"),
        (["photos/0.png", "--mask", "masks/0.png", "-o", "o.png", "--max-megapixels", "0"], "--max-megapixels"),
        (["photos/0.png", "--mask", "masks/0.png", "-o", "o.png", "--max-megapixels", "nan"], "not a finite number"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], words: str) -> None:
    photographs(tmp_path, 2)
    result = cisi_run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_pattern_that_finds_one_photograph(tmp_path: Path, tiny_graph: Path) -> None:
    """The same as one that finds two: masks in a folder, and results that are recorded and skipped."""
    photographs(tmp_path, 3)
    model = ("--model", tiny_graph, "--threads", 1)

    def run(*images: str, mask: str = "masks", more: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
        paths = [tmp_path / "photos" / image for image in images]
        return cisi_run(*paths, "--mask", tmp_path / mask, "-o", tmp_path / "out", *model, *more)

    assert "1 written, 0 there already" in run("0.png").stdout
    assert "1 written, 1 there already" in run("0.png", "1.png").stdout
    before = (tmp_path / "out" / "0.png").read_bytes()
    refused = run("0.png", mask="masks/1.png", more=("--dilate", 9))
    assert refused.returncode == 1
    assert "its results were made otherwise: --dilate was 0, now 9" in refused.stderr
    assert (tmp_path / "out" / "0.png").read_bytes() == before
    # One of them again, with a better mask: its own, as those of the others are theirs.
    assert "0 written, 1 there already" in run("0.png", mask="masks/1.png").stdout
    assert "1 written" in run("0.png", mask="masks/1.png", more=("--overwrite",)).stdout
    assert (tmp_path / "out" / "0.png").read_bytes() != before
    assert "0 written, 2 there already" in run("0.png", "1.png").stdout


def test_a_mask_among_the_photographs_is_none_of_them(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 3)
    mask = tmp_path / "photos" / "the mask.png"
    (tmp_path / "masks" / "0.png").rename(mask)
    result = cisi_run(
        tmp_path / "photos", "--mask", mask, "-o", tmp_path / "out", "--model", tiny_graph, "--threads", 1
    )
    assert "3 written" in result.stdout
    assert not (tmp_path / "out" / mask.name).exists()


def test_what_killed_processes_leave_is_removed(tmp_path: Path) -> None:
    gone, ended = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    gone.wait()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the table of processes
    here = platform.node()
    mine = [f".cisi-{gone.pid}@{here}-x.png", f"below/.cisi-{gone.pid}@{here}-y.png"]
    mine += [f".cisi-{os.getpid()}@{here}-z.jpg", f".cisi-{ended.pid}@{here}-v.png"]
    others = [f".cisi-{os.getppid()}@{here}-x.png", f".cisi-{gone.pid}@elsewhere-x.png", ".cisi-x.png", "a.png"]
    old = f".cisi-{gone.pid}@a-container-x.png"
    touch(tmp_path, *mine, *others, old)
    a_day_ago = time.time() - 86_500.0
    for name in (old, "a.png", ".cisi-x.png"):
        os.utime(tmp_path / name, (a_day_ago, a_day_ago))
    remove_left_over(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == sorted(others)
    ended.wait()


def test_ctrl_c_again_kills_the_workers(tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = WorkerOptions(tiny_graph, BackendOptions("onnxruntime", threads=1), detail=False, job=PhotographOptions())
    pool, _ = start_workers(options, options.open(), 2)
    assert isinstance(pool, ProcessPoolExecutor)
    for _ in range(2):
        pool.submit(time.sleep, 10 * TIMEOUT_S)
    processes = list(pool._processes.values())
    assert len(processes) == 2
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(ProcessPoolExecutor, "shutdown", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.shutdown()
    # They would sleep for much longer. Their exit codes may go to the pool's own thread.
    for process in processes:
        assert wait([process.sentinel], TIMEOUT_S) == [process.sentinel]
    pool.shutdown()


def test_workers_open_what_was_chosen_and_say_why_they_cannot(tiny_graph: Path, tmp_path: Path) -> None:
    options = WorkerOptions(None, BackendOptions("onnxruntime", threads=1), detail=False, job=PhotographOptions())
    graph = tmp_path / "tiny.onnx"
    graph.write_bytes(tiny_graph.read_bytes())
    inpainter = dataclasses.replace(options, model=graph).open()
    graph.unlink()
    pool, work = start_workers(options, inpainter, 2)
    ((_, result),) = run_jobs([Job(tmp_path / "a.png", None, tmp_path / "b.png")], work, pool, 4)
    assert str(result) == f"{graph}: no such file"


def test_all_workers_start_at_once_and_refuse_another_network(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that started after days of a watched folder could find another file, and mix results of both."""
    options = WorkerOptions(tiny_graph, BackendOptions("onnxruntime", threads=1), detail=False, job=PhotographOptions())
    monkeypatch.setattr(workers, "_digest", lambda _: "that of what was there")
    pool, work = start_workers(options, options.open(), 2)
    assert isinstance(pool, ProcessPoolExecutor)
    assert len(pool._processes) == 2
    ((_, result),) = run_jobs([Job(tmp_path / "a.png", None, tmp_path / "b.png")], work, pool, 4)
    assert str(result) == f"{tiny_graph}: is another file than when the run began"


def test_a_pool_that_breaks_while_jobs_are_handed_out(tmp_path: Path) -> None:
    class Breaking(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any, **more: Any) -> Any:
            self.count += 1
            if self.count > 2:
                raise BrokenProcessPool("gone")
            return super().submit(*arguments, **more)

    jobs = [Job(tmp_path / str(number), None, tmp_path) for number in range(4)]
    results = [result for _, result in run_jobs(jobs, lambda job: JobSummary(True, 0, job.image.name), Breaking(1), 4)]
    assert [isinstance(result, JobSummary) for result in results] == [False, False, True, True]
    assert "a worker was killed" in str(results[0])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_between_photographs(tmp_path: Path, tiny_graph: Path, how: signal.Signals) -> None:
    photographs(tmp_path, 40, ".jpg")
    arguments = [tmp_path / "photos", "--mask", tmp_path / "masks", "--model", tiny_graph]
    result = interrupted_run(tmp_path / "out", 3, how, *arguments)
    assert result.returncode == 130
    assert len(list((tmp_path / "out").rglob("*.jpg"))) < 40
    errors = result.stderr
    assert "Traceback" not in errors
    for path in (tmp_path / "out").rglob("*"):
        assert not path.name.startswith(".cisi-")
        if path.suffix == ".jpg":
            with Image.open(path) as image:
                image.load()


KILLED_WORKER = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith(os.environ["KILLED_AT"]):
        assert "spawn_main" in " ".join(sys.orig_argv)
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""


def test_a_worker_that_is_killed_is_said_and_nothing_is_half_written(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 6, ".jpg")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILLED_WORKER)
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph)
    environment = {"PYTHONPATH": str(tmp_path / "hook"), "KILLED_AT": "photos/3.jpg"}
    result = cisi_run(*arguments, "--threads", 2, env=os.environ | environment)
    assert result.returncode == 1
    assert "3.jpg: not done, because a worker was killed, perhaps for want of memory" in result.stderr
    assert "Traceback" not in result.stderr
    again = cisi_run(*arguments)
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 6
    assert not (tmp_path / "out" / "failures.jsonl").exists()
