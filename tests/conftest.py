"""Fixtures of many tests: a tiny network with weights that hide no error, its exports, made photographs."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from PIL import Image

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.writing import write_picture
from tests.support.commands import run_in_process
from tests.support.networks import provenance, roughen
from tests.support.shared import exported_once, once, shared_folder

# Runs a command's main function in this process, with arguments: exit status, stdout, stderr.
RunMain = Callable[..., tuple[int, str, str]]

_PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS

# Read when PyTorch is imported, here and in the processes that tests start. The workers of a run share the cores: two
# threads for a tiny network mostly wait for each other. The test of Ctrl-C took 35 s with two, and takes 4 s with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run; `make fuzz` draws new ones. No deadline: machines differ.
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread for ONNX Runtime too, which does not read OMP_NUM_THREADS, unless a test asks for more."""
    import onnxruntime

    options = onnxruntime.SessionOptions
    open_session = onnxruntime.InferenceSession.__init__

    def open_with_one_thread(
        self: Any, source: Any, sess_options: Any = None, providers: Any = None, **rest: Any
    ) -> None:
        sess_options = options() if sess_options is None else sess_options
        sess_options.intra_op_num_threads = sess_options.intra_op_num_threads or 1
        open_session(self, source, sess_options, providers, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "__init__", open_with_one_thread)
        yield


@pytest.fixture(autouse=True)
def _pillows_own_limit() -> None:
    """Commands that earlier tests ran in this process took it away."""
    Image.MAX_IMAGE_PIXELS = _PILLOWS_LIMIT


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suite neither reads nor writes the user's cache; children inherit it."""
    os.environ["CISI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> None:
    """A shell without a terminal starts background jobs with SIGINT ignored, and their children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_tiny_checkpoint(folder: Path) -> None:
    import torch

    from cisi_train.checkpoint import save_checkpoint
    from cisi_train.network import Generator

    torch.manual_seed(11)
    generator = Generator(PRESETS["tiny"])
    roughen(generator)
    with torch.no_grad():
        generator.decoder.to_rgb.weight.mul_(0.5)
    contract = Contract(PRESETS["tiny"], provenance())
    save_checkpoint(folder / "tiny.pt", contract, generator.state_dict(), configuration={})


class TinyGraphs(Mapping[tuple[str, str, str], Path]):
    """Exports of the tiny checkpoint by (precision, target, face), made by the command when first asked for, once for
    all workers. They lie beside the checkpoint, with one golden file."""

    _OPTIONS: ClassVar[dict[tuple[str, str, str], tuple[str, list[str]]]] = {
        ("float32", "cpu", "uint8"): ("tiny.onnx", []),
        ("float32", "cpu", "tensor"): ("tiny.tensor.onnx", ["--io", "tensor"]),
        ("float16", "tensorrt", "uint8"): ("tiny.fp16.onnx", ["--fp16"]),
        ("float32", "tensorrt", "tensor"): ("tiny.tensor.tensorrt.onnx", ["--target", "tensorrt", "--io", "tensor"]),
    }

    def __init__(self, factory: pytest.TempPathFactory, checkpoint: Path) -> None:
        self._factory, self._checkpoint = factory, checkpoint

    def __getitem__(self, key: tuple[str, str, str]) -> Path:
        name, options = self._OPTIONS[key]
        path = self._checkpoint.with_name(name)
        once(self._factory, name, lambda: self._export(path, options))
        return path

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(self._OPTIONS)

    def __len__(self) -> int:
        return len(self._OPTIONS)

    def _export(self, path: Path, options: list[str]) -> None:
        from click.testing import CliRunner

        from cisi_export.cli_export import export

        command = ["--ckpt", str(self._checkpoint), *options, "--out", str(path)]
        with exported_once(self._factory):
            assert CliRunner().invoke(export, command, catch_exceptions=False).exit_code == 0


@pytest.fixture(scope="session")
def tiny_checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of preset tiny whose weights are far from their initialisation."""
    return shared_folder(tmp_path_factory, "tiny", _write_tiny_checkpoint) / "tiny.pt"


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint_path: Path) -> TinyGraphs:
    """Exports of the tiny checkpoint by (precision, target, face)."""
    return TinyGraphs(tmp_path_factory, tiny_checkpoint_path)


@pytest.fixture(scope="session")
def tiny_graph(tiny_graphs: TinyGraphs) -> Path:
    return tiny_graphs["float32", "cpu", "uint8"]


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty made photographs of 80x96 pixels, some in a folder below."""
    from cisi_export.golden_cases import natural_picture

    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    rng = np.random.default_rng(5)
    for number in range(20):
        parent = folder / "below" if number % 3 == 0 else folder
        write_picture(parent / f"{number:02}.png", Picture(natural_picture(80, 96, rng)))
    return folder


@pytest.fixture
def shared_exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests that use this share their exports, as `exported_once` says."""
    with exported_once(tmp_path_factory):
        yield


@pytest.fixture
def run_main() -> RunMain:
    def run(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        done = run_in_process(main, *arguments)
        return done.returncode, done.stdout, done.stderr

    return run


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
    """Figures that tests recorded as "summary" stand at the end of every run."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(str(value))
