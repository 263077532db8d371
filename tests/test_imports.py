"""Who may import whom, and what a command may load."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cisi_runtime.backends.registry import SHIPPED_GRAPH
from tests.support.networks import PHOTOS, ROOT

ALLOWED = {
    "runtime": set(),
    "calibration": {"cisi_runtime"},
    "train": {"cisi_runtime"},
    "export": {"cisi_runtime", "cisi_train", "cisi_calibration"},
}
# The libraries that a package must not import anywhere, also not inside a function.
FORBIDDEN = {"runtime": {"torch", "onnx"}, "calibration": {"torch"}}
# The layers of `cisi_runtime`, lowest first: a package imports itself and packages of lower layers. See
# docs/architecture.md.
LAYERS = (
    {"errors", "codec", "metrics"},
    {"files", "architecture", "face", "strict_json", "token_file", "allocator", "child_process", "cuda", "console"},
    {"contract", "export_record", "progress_on_stderr"},
    {"pictures", "engines"},
    {"backends", "storage"},
    {"parity"},
    {"inpainting"},
    {"building", "batch"},
    {"bench", "serve", "triton", "integrations"},
    {"cli"},
)


def imported_modules(path: Path) -> set[str]:
    """Everything that a file imports, also inside functions. Names taken from a module count as sub-modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(path)}


def modules_of(package: str) -> dict[str, Path]:
    """The files of a package by their module names."""
    files = {path.relative_to(ROOT / package).with_suffix(""): path for path in (ROOT / package).rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


@pytest.mark.parametrize("package", ALLOWED)
def test_only_the_packages_that_the_design_names(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = {name for name in imported(path) if name.startswith("cisi_")} - {f"cisi_{package}"}
        assert ours <= ALLOWED[package], path
        assert not imported(path) & FORBIDDEN.get(package, set()), path


def test_no_layer_imports_upwards() -> None:
    layer_of = {package: number for number, packages in enumerate(LAYERS) for package in packages}
    modules = modules_of("runtime")
    for module, path in modules.items():
        if module == "cisi_runtime":
            continue  # what the package offers
        package = module.split(".")[1]
        for name in imported_modules(path) & set(modules):
            other = name.split(".")[1] if "." in name else "cisi_runtime"
            if other != package:
                assert layer_of.get(other, len(LAYERS)) < layer_of[package], f"{module} imports {name}"


@pytest.mark.parametrize("package", ALLOWED)
def test_no_files_import_each_other_in_a_cycle(package: str) -> None:
    modules = modules_of(package)
    graph = {name: imported_modules(path) & set(modules) - {name} for name, path in modules.items()}
    top = f"cisi_{package}"
    graph = {name: others - {top} for name, others in graph.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def test_no_two_modules_have_one_name() -> None:
    names = [path.stem for package in ALLOWED for path in modules_of(package).values()]
    repeated = {name for name in names if names.count(name) > 1} - {"__init__"}
    assert not repeated


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_runtime_loads_no_heavy_library() -> None:
    modules = modules_after("import cisi_runtime")
    assert "cisi_runtime.inpainting.inpainter" in modules
    assert not modules & {"torch", "onnx", "onnxruntime", "scipy", "cv2", "tqdm", "huggingface_hub"}


def test_importing_every_part_of_the_runtime_loads_neither_torch_nor_onnx() -> None:
    names = [
        ".".join(path.relative_to(ROOT / "runtime").with_suffix("").parts)
        for path in (ROOT / "runtime" / "cisi_runtime").rglob("*.py")
    ]
    modules = modules_after("\n".join(f"import {name.removesuffix('.__init__')}" for name in names))
    assert "onnxruntime" in modules
    assert not modules & {"torch", "onnx", "scipy", "cv2", "huggingface_hub"}


@pytest.mark.parametrize(
    "module",
    [
        *("cisi_train.cli_train", "cisi_train.cli_eval", "cisi_export.cli_export", "cisi_calibration.cli_calibrate"),
        *("cisi_runtime.cli.run", "cisi_runtime.cli.bench", "cisi_runtime.cli.serve", "cisi_runtime.cli.triton"),
    ],
)
def test_a_commands_help_loads_no_heavy_library(module: str) -> None:
    run = "try:\n    m.main()\nexcept SystemExit:\n    pass"
    modules = modules_after(f"import sys; sys.argv = ['x', '--help']\nimport {module} as m\n{run}")
    assert not modules & {"torch", "onnx", "onnxruntime", "tqdm", "matplotlib"}


def without(libraries: Sequence[str], module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that lacks some libraries."""
    lacking = f"import sys; sys.modules.update(dict.fromkeys({list(libraries)!r}))"
    program = f"{lacking}; sys.argv = {['x', *map(str, arguments)]!r}\nimport {module} as m\nm.main()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "arguments", "named"),
    [
        ("cisi_export.cli_export", ["--ckpt", "x.pt"], "needs torch: pip install 'cisi-net[train]'"),
        ("cisi_export.cli_info", [SHIPPED_GRAPH], "needs onnx: pip install 'cisi-net[parity]'"),
        ("cisi_export.cli_info", [SHIPPED_GRAPH.with_suffix(".pt")], "needs torch: pip install 'cisi-net[train]'"),
        (
            "cisi_calibration.cli_calibrate",
            [SHIPPED_GRAPH, "--data", PHOTOS],
            "needs onnx: pip install 'cisi-net[parity]'",
        ),
        (
            "cisi_train.cli_eval",
            ["--data", PHOTOS, "--baseline", "mean", "--lpips", "fetch"],
            "--lpips: needs torch: pip install 'cisi-net[train]', or no --lpips",
        ),
        (
            "cisi_train.cli_eval",
            ["--data", PHOTOS, "--ckpt", "x.pt"],
            "--ckpt: torch is not installed: pip install 'cisi-net[train]'",
        ),
    ],
)
def test_a_missing_library_is_named_with_the_smallest_extra_that_brings_it(
    module: str, arguments: list[object], named: str
) -> None:
    result = without(["torch", "onnx"], module, *arguments)
    assert result.returncode == 1
    expected = re.escape(named)
    assert re.fullmatch(f"x: error: {expected}|cisi-\\w+: error: {expected}", result.stderr.splitlines()[-1])


def test_graphs_and_baselines_are_evaluated_without_pytorch() -> None:
    arguments = ["--data", PHOTOS, "--baseline", "mean", "--onnx", SHIPPED_GRAPH, "--size", 64, "--json"]
    result = without(["torch", "onnx"], "cisi_train.cli_eval", *arguments)
    assert result.returncode == 0, result.stderr
    assert [json.loads(line)["method"] for line in result.stdout.splitlines()] == ["mean", "small.onnx"]
