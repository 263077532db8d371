"""The whole path, by the commands as processes: photographs, training, checkpoint, graph, inpainted photograph."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.pictures.reading import read_picture
from tests.support.networks import PHOTOS

pytestmark = pytest.mark.slow


def command(module: str, *arguments: object) -> str:
    program = [sys.executable, "-c", f"import {module} as m; m.main()", *map(str, arguments)]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


def test_from_photographs_to_an_inpainted_photograph(photo_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--preset", "tiny", "--size", 64, "--steps", 4, "--data-licence", "CC0", "--no-perceptual")
    command("cisi_train.cli_train", "--data", photo_folder, "--out", run, *options)
    table = command("cisi_export.cli_export", "--ckpt", run / "best.pt", "--verbose")
    assert (
        len(re.findall(" pass$", table, re.MULTILINE)) == 3 * 12 + 3
    )  # variants and golden cases; all; the weights; types
    assert "parity: 36 comparisons, all pass" in table
    assert "FAIL" not in table
    out = tmp_path / "out.png"
    photo, mask = PHOTOS / "beetle.jpg", PHOTOS / "beetle.mask.png"
    stdout = command("cisi_runtime.cli.run", photo, "--mask", mask, "-o", out, "--model", run / "best.onnx")
    assert stdout.startswith(f"{out}: 299x299")
    hole = np.asarray(Image.open(mask))
    before, after = read_picture(photo).rgb, read_picture(out).rgb
    assert np.array_equal(after[~hole], before[~hole])
    assert not np.array_equal(after[hole], before[hole])
