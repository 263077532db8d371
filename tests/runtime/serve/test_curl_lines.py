"""The lines of curl in docs/serving.md, on a running service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.pictures.reading import read_mask, read_picture
from tests.runtime.serve.test_service import mask_png, picture, with_exif
from tests.support.networks import ROOT
from tests.support.service import running
from tests.support.shared import TIMEOUT_S

PAGE = (ROOT / "docs" / "serving.md").read_text()
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl " in block]


def test_each_of_them(tiny_graph: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt install curl")
    (tmp_path / "photo.jpg").write_bytes(with_exif(picture(1), "JPEG"))
    (tmp_path / "mask.png").write_bytes(mask_png(7, (200, 150)))
    picture(2, "RGBA").save(tmp_path / "cut-out.png")
    hole = read_mask(tmp_path / "mask.png", (200, 150))
    known = read_picture(tmp_path / "photo.jpg").rgb[~hole]
    identity, answers = "", []
    with running("--model", tiny_graph, "--workers", 1) as service:
        for line in "".join(BLOCKS).splitlines():
            if line.startswith("cisi-parity"):
                continue  # of the shipped network; test_kserve.py has it
            # Failures count, and nothing but the answer is printed.
            line = line.replace("curl ", "curl -fsS ").replace("http://127.0.0.1:8000", service.url)
            line = line.replace("/ID/", f"/{identity}/")
            (tmp_path / "out.png").unlink(missing_ok=True)
            done = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            assert done.returncode == 0, (line, done.stderr)
            if done.stdout:
                answers.append(json.loads(done.stdout))
                identity = answers[-1].get("id", identity)
            if "mask=@mask.png" in line and "-o out.png" in line and "dilate" not in line:
                assert np.array_equal(read_picture(tmp_path / "out.png").rgb[~hole], known), line
            if " out.png " in line:
                Image.open(tmp_path / "out.png").verify()
    assert [set(answer) & {"image", "id", "parameters"} for answer in answers] == [{"image"}, {"id"}, {"parameters"}]
    assert "CISI-Photograph".lower() in (tmp_path / "headers.txt").read_text().lower()
