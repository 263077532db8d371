"""A float16 graph, its engine, and a cache for each test."""

from pathlib import Path

import pytest

from cisi_runtime.building import make
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import Sidecar, load_engine
from cisi_runtime.errors import CudaError

Graphs = dict[tuple[str, str, str], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def graph(tiny_graphs: Graphs) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    return tiny_graphs["float16", "tensorrt", "uint8"]


@pytest.fixture(scope="module")
def made(tiny_graphs: Graphs, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Sidecar]:
    """An engine with its sidecar."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    out = tmp_path_factory.mktemp("made") / "tiny.engine"
    graph = tiny_graphs["float16", "tensorrt", "uint8"]
    with pytest.MonkeyPatch.context() as patch:
        # As on a machine without a GPU.
        patch.setattr(make, "find_gpu", lambda: (_ for _ in ()).throw(CudaError("none here")))
        make.make_engine(graph, out, BuildOptions(capabilities=("8.9",)), use_cache=False)
    return load_engine(out)
