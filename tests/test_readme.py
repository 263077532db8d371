"""The README says what is so: its links lead somewhere and its example runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.inpainter import SHIPPED_GRAPH
from cisi_runtime.pictures import read_mask, read_picture
from cisi_runtime.whole import WholePicture
from tests.conftest import PHOTOS, ROOT

README = (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        if not link.startswith("https://"):
            assert (ROOT / link).exists(), link


def test_commands_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for command in set(re.findall(r"\bcisi-[a-z]+(?= )", README)) - {"cisi-net"}:
        assert f"\n{command} = " in project, command


def test_the_example_needs_numpy_and_onnxruntime_alone(tmp_path: Path) -> None:
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "onnxruntime" in block]
    assert len(example.strip().splitlines()) <= 20
    image = read_picture(PHOTOS / "beetle.jpg").rgb
    hole = read_mask(PHOTOS / "beetle.mask.png", image.shape[:2])
    np.save(tmp_path / "photo.npy", image)
    np.save(tmp_path / "hole.npy", hole)
    (tmp_path / "small.onnx").write_bytes(SHIPPED_GRAPH.read_bytes())
    alone = f"{example}\nimport sys\nassert not [name for name in sys.modules if name.startswith('cisi_r')]\n"
    subprocess.run([sys.executable, "-c", alone], cwd=tmp_path, check=True)
    ours = WholePicture(OnnxRuntimeBackend(SHIPPED_GRAPH))(image, hole)
    assert np.array_equal(np.load(tmp_path / "completed.npy"), ours)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_in_the_makefile(target: str) -> None:
    assert f"make {target}" in README
    assert f"\n{target}: $(INSTALLED)\n" in (ROOT / "Makefile").read_text()
