"""Who may import whom (design), and what the runtime may load."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ALLOWED = {
    "runtime": set(),
    "calibration": {"cisi_runtime"},
    "train": {"cisi_runtime"},
    "export": {"cisi_runtime", "cisi_train", "cisi_calibration"},
}
# The libraries that a package must not import anywhere, also not inside a function.
FORBIDDEN = {"runtime": {"torch", "onnx"}, "calibration": {"torch"}}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", ALLOWED)
def test_only_the_rooms_that_the_design_names(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        ours = {name for name in imported(path) if name.startswith("cisi_")} - {f"cisi_{room}"}
        assert ours <= ALLOWED[room], path
        assert not imported(path) & FORBIDDEN.get(room, set()), path


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_runtime_loads_no_heavy_library() -> None:
    modules = modules_after("import cisi_runtime")
    assert "cisi_runtime.inpainter" in modules
    assert not modules & {"torch", "onnx", "onnxruntime", "scipy", "cv2", "tqdm"}


def test_importing_every_part_of_the_runtime_loads_neither_torch_nor_onnx() -> None:
    names = [
        ".".join(path.relative_to(ROOT / "runtime").with_suffix("").parts)
        for path in (ROOT / "runtime" / "cisi_runtime").rglob("*.py")
    ]
    modules = modules_after("\n".join(f"import {name.removesuffix('.__init__')}" for name in names))
    assert "onnxruntime" in modules
    assert not modules & {"torch", "onnx", "scipy", "cv2"}


@pytest.mark.parametrize(
    "module",
    [
        *("cisi_train.cli", "cisi_train.cli_eval", "cisi_export.cli", "cisi_calibration.cli"),
        *("cisi_runtime.cli_run", "cisi_runtime.cli_bench"),
    ],
)
def test_a_commands_help_loads_no_heavy_library(module: str) -> None:
    run = "try:\n    m.main()\nexcept SystemExit:\n    pass"
    modules = modules_after(f"import sys; sys.argv = ['x', '--help']\nimport {module} as m\n{run}")
    assert not modules & {"torch", "onnx", "onnxruntime", "tqdm", "matplotlib"}


def test_a_missing_library_is_named_with_its_extra() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['cisi-export', '--ckpt', 'x.pt']"
    program = f"{code}\nimport cisi_export.cli as m\nm.main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().endswith("needs torch, expected an installation with pip install 'cisi-net[train]'")
