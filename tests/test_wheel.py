"""The wheel, installed with the extra `cpu` alone in an environment of its own, runs from an empty folder."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.pictures.reading import read_picture
from tests.support.networks import PHOTOS, ROOT
from tests.support.shared import shared_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(shared_folder(tmp_path_factory, "wheel", build).glob("cisi_net-*.whl"))


def build(out: Path) -> None:
    # From a copy: building leaves folders in the source tree.
    source = out / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in tracked.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)], check=True)


def test_the_wheel_holds_our_packages_and_the_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"cisi_runtime", "cisi_calibration", "cisi_train", "cisi_export"}
    for name in ("small.onnx", "small.golden.npz", "MODEL_CARD.md", "ATTRIBUTION.tsv"):
        assert f"cisi_runtime/weights/{name}" in names
    page = ROOT / "runtime" / "cisi_runtime" / "serve" / "page"
    assert {f"cisi_runtime/serve/page/{path.name}" for path in page.iterdir()} <= set(names)
    assert all(f"{top}/py.typed" in names for top in tops)
    assert any(name.endswith("LICENSE") for name in names)


def test_installed_alone_it_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "environment")], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = ["install", "--quiet", "--no-compile", "-c", str(ROOT / "constraints.txt"), f"{wheel}[cpu]"]
    subprocess.run([*pip, *install], check=True)
    listed = subprocess.run([*pip, "list"], capture_output=True, text=True, check=True).stdout
    installed = {line.split()[0] for line in listed.splitlines()[2:] if line}
    assert "onnxruntime" in installed
    assert not installed & {"torch", "onnx", "onnxscript", "tensorboard", "scipy"}
    empty = tmp_path / "empty"
    empty.mkdir()
    photo, mask = PHOTOS / "balloon.jpg", PHOTOS / "balloon.mask.png"
    command = [python.parent / "cisi-run", photo, "--mask", mask, "-o", "out.png"]
    subprocess.run([str(part) for part in command], cwd=empty, check=True)
    hole = np.asarray(Image.open(mask))
    assert np.array_equal(read_picture(empty / "out.png").rgb[~hole], read_picture(photo).rgb[~hole])
    parity_without_pytorch(python, empty)
    group = subprocess.run([str(python.parent / "cisi"), "export", "--ckpt", "x"], capture_output=True, text=True)
    assert group.returncode == 1
    assert re.fullmatch(r"cisi: error: needs \w+: pip install 'cisi-net\[train\]'\n", group.stderr)
    service = subprocess.run([str(python.parent / "cisi-serve")], cwd=empty, capture_output=True, text=True)
    assert service.returncode == 1
    assert re.fullmatch(r"cisi-serve: error: needs \w+: pip install 'cisi-net\[serve\]'\n", service.stderr)


def parity_without_pytorch(python: Path, folder: Path) -> None:
    """`cisi-parity` from the graph and its golden file alone; with a graph that lies it exits with 1."""
    (weights,) = (python.parent.parent / "lib").glob("python*/site-packages/cisi_runtime/weights")
    for name in ("small.onnx", "small.golden.npz"):
        (folder / name).write_bytes((weights / name).read_bytes())
    command = [str(python.parent / "cisi-parity"), "small.onnx", "--verbose"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert len(re.findall(" pass$", result.stdout, re.MULTILINE)) == 2 * 12 + 2
    assert "parity: 24 comparisons, all pass" in result.stdout
    assert "weights: not compared one by one" in result.stdout
    graph = (folder / "small.onnx").read_bytes()
    # The epsilon of a norm, in the bytes of the file.
    wrong = graph.replace(np.float32(1e-5).tobytes(), np.float32(1e-2).tobytes())
    assert wrong != graph
    (folder / "small.onnx").write_bytes(wrong)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert re.search(r"small.onnx: \d+ of 25 comparisons failed; --ckpt would name the layer\n$", result.stderr)
    (folder / "small.onnx").write_bytes(graph)
    said = graph.replace(b'"precision": "float32"', b'"precision": "float16"')
    assert said != graph
    (folder / "half.onnx").write_bytes(said)
    command = [str(python.parent / "cisi-parity"), "half.onnx", "--golden", "small.golden.npz"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "the contract says precision float16, but the graph holds no float16 weight" in result.stderr
    command = [str(python.parent / "cisi-parity"), str(weights / "small.int8.cpu.onnx")]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "structure: the file as exported  pass" in result.stdout
    assert "not compared: it needs onnx, pip install 'cisi-net[parity]'" in result.stdout
