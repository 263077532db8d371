"""Fixtures that several rooms share: a tiny network with weights that hide nothing, and its exports."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.pictures import Picture
from cisi_runtime.writing import write_picture

if TYPE_CHECKING:
    from cisi_train.network import Generator

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "tests" / "photos"
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    # Tiny networks gain nothing from more, and with two runs on one machine the threads wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> None:
    """A shell without a terminal starts background jobs with SIGINT ignored, and their children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def provenance() -> Provenance:
    return Provenance("made for tests", "CC0", "0" * 64, 3, 7, "tiny")


def roughen(generator: Generator) -> None:
    """Biases and scales that are not all alike, and styles that differ: what a fresh network would hide."""
    import torch

    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("bias") or parameter.ndim == 3:
                parameter.add_(0.1 * torch.randn_like(parameter))
        generator.style.to_code.weight.mul_(1.5)


@pytest.fixture(scope="session")
def tiny_checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of preset tiny whose weights are far from their initialisation: a fresh network renders almost
    nothing and has one style, and would hide errors."""
    import torch

    from cisi_train.checkpoint import save_checkpoint
    from cisi_train.network import Generator

    torch.manual_seed(11)
    generator = Generator(PRESETS["tiny"])
    roughen(generator)
    with torch.no_grad():
        generator.decoder.to_rgb.weight.mul_(0.5)
    path = tmp_path_factory.mktemp("tiny") / "tiny.pt"
    save_checkpoint(path, Contract(PRESETS["tiny"], provenance()), generator.state_dict(), configuration={})
    return path


@pytest.fixture(scope="session")
def tiny_graphs(tiny_checkpoint_path: Path) -> dict[tuple[str, str, str], Path]:
    """Exports of the tiny checkpoint by (precision, target, face), made by the command itself."""
    from click.testing import CliRunner

    from cisi_export.cli import export

    folder = tiny_checkpoint_path.parent
    options = {
        ("float32", "cpu", "uint8"): [],
        ("float32", "cpu", "tensor"): ["--io", "tensor", "--out", str(folder / "tiny.tensor.onnx")],
        ("float16", "tensorrt", "uint8"): ["--fp16"],
        ("float32", "tensorrt", "tensor"): ["--target", "tensorrt", "--io", "tensor"],
    }
    graphs = {}
    for key, arguments in options.items():
        result = CliRunner().invoke(export, ["--ckpt", str(tiny_checkpoint_path), *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        graphs[key] = Path(result.output.splitlines()[-2].split(": ")[0])
    return graphs


@pytest.fixture(scope="session")
def tiny_graph(tiny_graphs: dict[tuple[str, str, str], Path]) -> Path:
    return tiny_graphs["float32", "cpu", "uint8"]


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty made photographs of 80x96 pixels, some in a folder below."""
    from cisi_export.golden_cases import natural_picture

    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    rng = np.random.default_rng(5)
    for number in range(20):
        place = folder / "below" if number % 3 == 0 else folder
        write_picture(place / f"{number:02}.png", Picture(natural_picture(80, 96, rng)))
    return folder


@pytest.fixture
def rewritten_contract() -> Callable[..., str]:
    """The JSON of a tiny contract with some keys replaced, unchecked."""

    def rewrite(**changes: object) -> str:
        import json

        values = dataclasses.asdict(Contract(PRESETS["tiny"], provenance()))
        return json.dumps(values | changes)

    return rewrite


@pytest.fixture
def picture() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Figures that tests recorded as "shown" stand at the end of every run."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "shown":
                terminalreporter.write_line(str(value))
