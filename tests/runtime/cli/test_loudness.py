"""What commands say: nothing on stdout with --quiet, one object with --json."""

import json
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import run_in_process
from tests.support.networks import PHOTOS

PHOTO, MASK = PHOTOS / "balloon.jpg", PHOTOS / "balloon.mask.png"


def run(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = run_in_process(import_module(module).main, *arguments)
    assert result.returncode == status, result.stderr
    return result


def only_object(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (line,) = result.stdout.splitlines()
    return dict(json.loads(line))


def cases(folder: Path, graph: Path) -> dict[str, tuple[str, tuple[object, ...]]]:
    """A module for each command that runs in a second, and arguments that it succeeds with."""
    made, photo = folder / "made", ("--mask", MASK, "--model", graph)
    return {
        "run": ("cisi_runtime.cli.run", (PHOTO, *photo, "-o", folder / "out.jpg")),
        "run, several": ("cisi_runtime.cli.run", (PHOTO, PHOTOS / "yurt.jpg", *photo, "-o", made, "--overwrite")),
        "parity": ("cisi_runtime.cli.parity", (graph,)),
        "triton": ("cisi_runtime.cli.triton", (folder / "triton", "--model", graph)),
        "pack": ("cisi_train.cli_pack", ("--data", PHOTOS, "--out", folder / "packed")),
        "eval": ("cisi_train.cli_eval", ("--data", PHOTOS, "--baseline", "mean", "--size", 64)),
        "info": ("cisi_export.cli_info", (graph,)),
    }


NAMES = tuple(cases(Path(), Path()))


@pytest.mark.parametrize("name", NAMES)
def test_quiet_says_nothing_where_nothing_is_wrong(name: str, tmp_path: Path, tiny_graph: Path) -> None:
    result = run(*_call(name, tmp_path, tiny_graph), "--quiet")
    assert (result.stdout, [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]) == (
        "",
        [],
    )


@pytest.mark.parametrize("name", NAMES)
def test_json_is_one_object_and_no_words(name: str, tmp_path: Path, tiny_graph: Path) -> None:
    report = only_object(run(*_call(name, tmp_path, tiny_graph), "--json"))
    keys = {
        "run": {"output", "width", "height", "hole_fraction", "milliseconds", "report", "notes", "backend"},
        "run, several": {"output", "written", "existing", "without_hole", "with_large_hole", "failed", "failures"},
        "parity": {"artifact", "comparisons", "weights", "passed"},
        "triton": {"folder", "models", "precision", "max_batch"},
        "pack": {"out", "pictures", "bytes"},
        "eval": {"data", "method", "psnr_db"},
        "info": {"contract", "flop", "fixed"},
    }[name]
    assert keys <= set(report)


def test_a_run_with_failures_reports_them_and_fails(tmp_path: Path, tiny_graph: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    arguments = (PHOTO, bad, "--mask", MASK, "--model", tiny_graph, "-o", tmp_path / "out", "--json", "-q")
    result = run("cisi_runtime.cli.run", *arguments, status=1)
    report = only_object(result)
    assert (report["written"], report["failed"], report["failures"]) == (1, 1, str(tmp_path / "out" / "failures.jsonl"))
    assert "bad.jpg: not a picture that can be read" in result.stderr


def test_json_and_the_picture_do_not_share_stdout(tiny_graph: Path) -> None:
    result = run("cisi_runtime.cli.run", PHOTO, "--mask", MASK, "-o", "-", "--json", "--model", tiny_graph, status=2)
    assert "--json and the picture both go to standard output" in result.stderr


def _call(name: str, folder: Path, graph: Path) -> tuple[Any, ...]:
    module, arguments = cases(folder, graph)[name]
    return module, *arguments
