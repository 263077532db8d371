"""A run does not take the results of another one for its own."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.batch.run_record import RECORD, RunRecord
from cisi_runtime.errors import OutputError
from tests.support.folder_runs import cisi_run, photographs


def begin(record: RunRecord, *, has_results: bool, overwrite: bool) -> None:
    record.check(has_results=has_results, overwrite=overwrite)
    record.begin()


def test_what_differs_is_said(tmp_path: Path) -> None:
    first = {"--model": "a.onnx (12)", "--dilate": "0"}
    begin(RunRecord(tmp_path, first), has_results=True, overwrite=False)
    written = (tmp_path / RECORD).read_bytes()
    begin(RunRecord(tmp_path, first), has_results=True, overwrite=False)
    begin(RunRecord(tmp_path, first), has_results=False, overwrite=True)
    assert (tmp_path / RECORD).read_bytes() == written
    for changed, words in (
        (
            {"--model": "b.onnx (34)", "--dilate": "0"},
            "made otherwise: --model was a.onnx (12), now b.onnx (34), expected",
        ),
        (
            {"--model": "b.onnx (34)", "--dilate": "2"},
            "made otherwise: --dilate was 0, now 2; --model was a.onnx (12), now b.onnx",
        ),
        ({"--model": "a.onnx (12)"}, "made otherwise: --dilate was 0, now not given"),
    ):
        with pytest.raises(OutputError) as raised:
            begin(RunRecord(tmp_path, changed), has_results=True, overwrite=False)
        assert words in str(raised.value)
        assert "expected --overwrite, or another folder" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"made_with": {"--dilate": "\xff"}, "is_mixed": false, "revision": 1}', "not JSON in UTF-8"),
        (b'{"made_with": {}, "made_with": {}, "is_mixed": false, "revision": 1}', "the key 'made_with' is there twice"),
        (b" " * (1 << 20) + b"{}", "has more than 1048576 bytes"),
    ],
)
def test_a_record_that_no_run_wrote_stays(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / RECORD).write_bytes(text)
    with pytest.raises(OutputError, match=f"{RECORD}: {message}"):
        begin(RunRecord(tmp_path, {}), has_results=False, overwrite=True)
    assert (tmp_path / RECORD).read_bytes() == text


def test_a_record_that_cannot_be_read_is_not_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / RECORD).mkdir()
    with pytest.raises(OutputError, match=f"{RECORD}: cannot be read: Is a directory"):
        begin(RunRecord(tmp_path, {}), has_results=False, overwrite=False)


def test_without_results_anything_may_follow(tmp_path: Path) -> None:
    begin(RunRecord(tmp_path, {"--backend": "openvino"}), has_results=False, overwrite=False)
    # That run could not begin, for example.
    second = RunRecord(tmp_path, {"--backend": "auto"})
    begin(second, has_results=False, overwrite=False)
    second.finish()
    begin(RunRecord(tmp_path, {"--backend": "auto"}), has_results=True, overwrite=False)
    with pytest.raises(OutputError, match="made otherwise: --backend was auto, now openvino"):
        begin(RunRecord(tmp_path, {"--backend": "openvino"}), has_results=True, overwrite=False)


def test_results_of_two_kinds_are_not_taken_for_one(tmp_path: Path) -> None:
    begin(RunRecord(tmp_path, {"--dilate": "0"}), has_results=True, overwrite=False)
    killed = RunRecord(tmp_path, {"--dilate": "2"})
    begin(killed, has_results=False, overwrite=True)
    for dilate in ("0", "2"):
        with pytest.raises(OutputError, match="and not replaced by the run that followed, expected --overwrite"):
            begin(RunRecord(tmp_path, {"--dilate": dilate}), has_results=True, overwrite=False)
    again = RunRecord(tmp_path, {"--dilate": "2"})
    begin(again, has_results=False, overwrite=True)
    again.finish()
    begin(RunRecord(tmp_path, {"--dilate": "2"}), has_results=True, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_of_other_photographs_leaves_results_of_two_kinds(
    tmp_path: Path, tiny_graph: Path, overwrite: bool
) -> None:
    photographs(tmp_path, 4)  # the last one in a folder below
    photos, masks, out = (tmp_path / name for name in ("photos", "masks", "out"))

    def run(*names: str, more: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        images = [photos / name for name in names]
        return cisi_run(*images, "--mask", masks, "-o", out, "--model", tiny_graph, "--threads", 1, *more)

    assert "2 written" in run("0.png", "1.png", more=("--no-detail",)).stdout
    before = (out / "0.png").read_bytes()
    if not overwrite:
        refused = run("2.png")
        assert "its results were made otherwise: --no-detail was given, now not given" in refused.stderr
    else:
        assert "2 written" in run("1.png", "2.png", more=("--overwrite",)).stdout
        refused = run("0.png", "1.png", "2.png")
        assert "some of its results were made with other options" in refused.stderr
    assert refused.returncode == 1
    assert (out / "0.png").read_bytes() == before
    # All of them anew: one kind is left. Originals that lie there are no results.
    (out / "originals").mkdir()
    for number in ("0", "1", "2"):
        (photos / f"{number}.png").rename(out / "originals" / f"{number}.png")
    photos = out / "originals"
    assert (
        "3 written"
        in cisi_run(photos, "--mask", masks, "-o", out, "--model", tiny_graph, "--threads", 1, "--overwrite").stdout
    )
    assert "0 written, 3 there already" in run("0.png", "1.png", "2.png").stdout
    assert (out / "0.png").read_bytes() != before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"revision": 1}', '{"revision": 9}', '{"revision": 1, "made_with": 3}']
)
def test_one_that_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(OutputError, match=RECORD):
        begin(RunRecord(tmp_path, {}), has_results=True, overwrite=False)


def test_a_folder_run_with_other_options(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)

    def run(*more: object, mask: str = "masks") -> subprocess.CompletedProcess[str]:
        arguments = (tmp_path / "photos", "--mask", tmp_path / mask, "-o", tmp_path / "out", "--model", tiny_graph)
        return cisi_run(*arguments, "--threads", 1, *more)

    assert run().returncode == 0
    before = (tmp_path / "out" / "0.png").read_bytes()
    assert json.loads((tmp_path / "out" / RECORD).read_text())["made_with"]["--dilate"] == "0"
    Image.fromarray(np.full((160, 200), 255, dtype=np.uint8)).save(tmp_path / "one.png")
    for more, mask, words in (
        (("--dilate", 3), "masks", "--dilate was 0, now 3"),
        (("--no-detail",), "masks", "--no-detail was not given, now given"),
        ((), "one.png", "--mask was of each photograph, now one.png ("),
    ):
        refused = run(*more, mask=mask)
        assert refused.returncode == 1
        assert words in refused.stderr
        assert (tmp_path / "out" / "0.png").read_bytes() == before
    # One that never had a network changed nothing, and says nothing to the next.
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    record = (tmp_path / "out" / RECORD).read_bytes()
    refused = run("--model", tmp_path / "damaged.onnx", "--overwrite")
    assert refused.returncode == 1
    assert "damaged.onnx" in refused.stderr
    assert (tmp_path / "out" / RECORD).read_bytes() == record
    assert "0 written, 2 there already" in run().stdout
    assert "2 written, 0 there already" in run("--dilate", 3, "--overwrite").stdout
    assert (tmp_path / "out" / "0.png").read_bytes() != before
    assert "0 written, 2 there already" in run("--dilate", 3).stdout
