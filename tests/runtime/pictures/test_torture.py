"""Every kind of file in one folder, through each command that reads folders: a right result or a clear error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cisi_calibration.photographs import choose_photographs
from cisi_runtime.batch.report import FAILURES
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.errors import PictureError
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import check_picture, decode_picture, read_mask, read_picture
from cisi_train.data import open_folder
from cisi_train.evaluate import HoleSet, Metrics, baseline_method, evaluate
from tests.support.shared import TIMEOUT_S, shared_folder
from tests.support.torture import TORTURES, Torture, mask_of, write_torture_folder

IN_THE_PHOTOGRAPH = [torture for torture in TORTURES if torture.mask is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory, "torture", write_torture_folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_graph: Path) -> subprocess.CompletedProcess[str]:
    """One run over all of it, which must end by itself."""

    def run_all(results: Path) -> None:
        result = cisi_run(folder, tiny_graph)
        (results / "run.json").write_text(json.dumps([result.returncode, result.stdout, result.stderr]))

    results = shared_folder(tmp_path_factory, "torture-run", run_all)
    status, stdout, stderr = json.loads((results / "run.json").read_text())
    return subprocess.CompletedProcess([], status, stdout, stderr)


def cisi_run(folder: Path, graph: Path) -> subprocess.CompletedProcess[str]:
    program = "import cisi_runtime.cli.run as m; m.main()"
    arguments = [folder / "photos", "--mask", folder / "masks", "-o", folder / "out", "--model", graph]
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_the_run_ends_with_a_list(folder: Path, run: subprocess.CompletedProcess[str]) -> None:
    bad = [torture for torture in TORTURES if torture.error is not None]
    assert run.returncode == 1, run.stderr
    assert f"{len(TORTURES) - len(bad)} written, 0 there already, {len(bad)} failed" in run.stdout
    assert run.stderr.splitlines()[-1].startswith("cisi-run: error: ")
    assert f"{len(bad)} photographs failed" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    written = {path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file()}
    assert written == {RECORD, FAILURES, *(torture.name for torture in TORTURES if torture.error is None)}


@pytest.mark.parametrize("torture", TORTURES, ids=lambda torture: torture.name)
def test_each(folder: Path, run: subprocess.CompletedProcess[str], torture: Torture) -> None:
    photo, out = folder / "photos" / torture.name, folder / "out" / torture.name
    if torture.error is not None:
        lines = [line for line in run.stderr.splitlines() if torture.name in line]
        assert len(lines) == 1, run.stderr
        assert torture.error in lines[0]
        assert not out.exists()
        return
    before, after = read_picture(photo), read_picture(out)
    hole = read_mask(mask_of(folder, torture), before.size)
    if not hole.any():
        assert out.read_bytes() == photo.read_bytes()
    with Image.open(photo) as source, Image.open(out) as result:
        assert ("JPEG" if source.format == "MPO" else source.format) == result.format
        assert source.size == result.size  # as it is stored
        expected_modes = {"1": "L", "P": result.mode if result.mode in ("RGB", "RGBA") else "RGB"}
        assert result.mode == expected_modes.get(source.mode, source.mode)
    assert after.size == before.size
    change = np.abs(after.rgb.astype(int) - before.rgb)
    if torture.lossless:
        assert not change[~hole].any()
        assert (after.alpha is None) == (before.alpha is None)
        if before.alpha is not None and after.alpha is not None:
            assert np.array_equal(after.alpha, before.alpha)
    elif (~hole).any():
        # Measured 27, in blocks that the hole's edge crosses. Margin: half of it.
        assert change[~hole].max() <= 40
    if hole.sum() > 1 and hole.mean() < 1:
        assert change[hole].any()  # something was done


def test_no_original_is_touched(folder: Path, run: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert run.returncode == 1
    write_torture_folder(tmp_path)
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            assert (folder / path.relative_to(tmp_path)).read_bytes() == path.read_bytes(), path


def test_a_second_run_skips_what_is_there(
    folder: Path, run: subprocess.CompletedProcess[str], tiny_graph: Path
) -> None:
    assert run.returncode == 1
    out = sorted(path for path in (folder / "out").rglob("*") if path.name != FAILURES)
    times = [path.stat().st_mtime_ns for path in out]
    again = cisi_run(folder, tiny_graph)
    assert again.returncode == 1
    good = sum(torture.error is None for torture in TORTURES)
    assert f"0 written, {good} there already, {len(TORTURES) - good} failed" in again.stdout
    assert sorted(path for path in (folder / "out").rglob("*") if path.name != FAILURES) == out
    assert [path.stat().st_mtime_ns for path in out] == times


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_readers_of_other_commands(folder: Path) -> None:
    readable = set()
    for torture in IN_THE_PHOTOGRAPH:
        path = folder / "photos" / torture.name
        if torture.error is None:
            check_picture(path)
            readable.add(path)
        else:
            with pytest.raises(PictureError, match=r"^[^\n]*$") as error:
                check_picture(path)
            assert torture.error in str(error.value)
    training = open_folder(folder / "photos")
    assert readable <= set(training.training) | set(training.held_out)
    assert training.unreadable
    # Figures over what happened to be readable could not be compared: these two refuse the folder.
    with pytest.raises(PictureError):
        choose_photographs(folder / "photos", 100)
    holes = HoleSet("centre", lambda _: centre_hole(64, 64))
    with pytest.raises(PictureError):
        evaluate("mean", baseline_method("mean"), folder / "photos", holes, Metrics())


# Decoders warn of what they meet in damaged files.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif", "bmp"])
def test_damaged_bytes_are_never_a_crash(folder: Path, suffix: str) -> None:
    data = (folder / "photos" / f"plain.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else 200, rng.integers(1, 20)):
            damaged[place] = rng.integers(256)
        try:
            outcomes.add(decode_picture(bytes(damaged), "it").size)
        except PictureError as error:
            outcomes.add(str(error)[:4])
    assert "it: " in outcomes
    assert all(outcome == "it: " or isinstance(outcome, tuple) for outcome in outcomes)
