"""Graphs from folders and from a stand-in for the Hugging Face Hub over loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cisi_runtime import Inpainter
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH
from cisi_runtime.errors import ContractError, CpuError, GraphError, HubError
from cisi_runtime.inpainting.model_hub import find_graph
from cisi_runtime.parity.golden import golden_path

if TYPE_CHECKING:
    from tests.support.hub_server import HubServer

NAME = "owner/name"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """With one repository: one graph, its golden file, and files that must not be fetched."""
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub: pip install 'cisi-net[hub]'")
    from tests.support.hub_server import Repository, running_hub

    monkeypatch.chdir(tmp_path)  # no folder is named as a repository is
    with running_hub(monkeypatch, str(tmp_path / "cache")) as server:
        files = {"best.onnx": b"a graph", "best.golden.npz": b"golden", "best.pt": b"pickle", "README.md": b"card"}
        server.repositories[NAME] = Repository(files, revisions=("main", "v1"))
        yield server


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_folder_with_one_graph(tiny_graph: Path, picture: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "best.onnx").write_bytes(tiny_graph.read_bytes())
    (tmp_path / "best.pt").write_bytes(b"")
    hole = np.zeros(picture.shape[:2], dtype=np.bool_)
    hole[20:50, 30:60] = True
    with (
        Inpainter.from_pretrained(tmp_path, threads=1, detail=False) as fetched,
        Inpainter(tiny_graph, threads=1, detail=False) as direct,
    ):
        assert fetched.model == tmp_path / "best.onnx"
        assert repr(fetched) == "Inpainter('best.onnx', backend='onnxruntime', threads=1, detail=False)"
        assert np.array_equal(fetched(picture, hole), direct(picture, hole))


def test_what_a_folder_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=r"holds no graph at its top, expected an \.onnx file written by cisi-export"):
        find_graph(tmp_path)
    (tmp_path / "below").mkdir()
    for name in ("b.onnx", "a.int8.cpu.onnx", "below/c.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(HubError, match=r"several graphs, expected file= with one of: a\.int8\.cpu\.onnx, b\.onnx$"):
        find_graph(tmp_path)
    assert find_graph(tmp_path, "b.onnx") == tmp_path / "b.onnx"
    assert find_graph(str(tmp_path), "below/c.onnx") == tmp_path / "below" / "c.onnx"
    with pytest.raises(HubError, match=r"holds no d\.onnx, expected one of: a\.int8\.cpu\.onnx, b\.onnx$"):
        find_graph(tmp_path, "d.onnx")
    for file in ("best.pt", "best.engine", "../b.onnx", "/b.onnx"):
        with pytest.raises(HubError, match=r"expected the path of an \.onnx file below its top"):
            find_graph(tmp_path, file)
    with pytest.raises(HubError, match=r"is a folder, which has no revisions, expected none and not 'v1'"):
        find_graph(tmp_path, "b.onnx", "v1")
    with pytest.raises(HubError, match=r"is a file, expected a folder or a repository; Inpainter\('b\.onnx'\) opens"):
        find_graph("b.onnx")
    for name in (Path("not/there"), "there", "a/b/c", "https://huggingface.co/a/b", "~/models", "", "a" * 300):
        with pytest.raises(HubError, match=r"no such folder, and no repository .*, expected owner/name"):
            find_graph(name)


def test_only_the_graph_and_its_golden_file_are_fetched_and_only_once(hub: HubServer) -> None:
    path = find_graph(NAME)
    assert path.read_bytes() == b"a graph"
    assert golden_path(path).read_bytes() == b"golden"
    assert sorted(hub.fetched) == ["best.golden.npz", "best.onnx"]
    assert {file.name for file in path.parent.iterdir()} == {"best.golden.npz", "best.onnx"}
    assert find_graph(NAME) == find_graph(NAME, revision="v1") == path
    assert len(hub.fetched) == 2


def test_a_new_commit_is_fetched_and_an_old_one_stays(hub: HubServer) -> None:
    first, old = find_graph(NAME), hub.repositories[NAME].commit
    hub.repositories[NAME].files["best.onnx"] = b"another graph"
    assert find_graph(NAME).read_bytes() == b"another graph"
    assert find_graph(NAME, revision=old) == first
    assert first.read_bytes() == b"a graph"


def test_several_graphs_must_be_chosen_from(hub: HubServer) -> None:
    files = hub.repositories[NAME].files
    files |= {"best[1].onnx": b"with a pattern in its name", "best1.onnx": b"that it would match", "x/d.onnx": b"below"}
    with pytest.raises(
        HubError, match=r"^owner/name: holds several graphs, .* best\.onnx, best1\.onnx, best\[1\]\.onn"
    ):
        find_graph(NAME)
    assert find_graph(NAME, "best[1].onnx").read_bytes() == b"with a pattern in its name"
    assert hub.fetched == ["best[1].onnx"]
    assert find_graph(NAME, "x/d.onnx").read_bytes() == b"below"
    with pytest.raises(HubError, match=r"owner/name: holds no c\.onnx, expected one of: best\.onnx, best1"):
        find_graph(NAME, "c.onnx")
    for name in [name for name in files if name.endswith(".onnx") and "/" not in name]:
        del files[name]
    with pytest.raises(HubError, match=r"owner/name: holds no graph at its top"):
        find_graph(NAME)


def test_offline_the_cache_gives_what_the_hub_gave(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].files["b.onnx"] = b"second"
    path = find_graph(NAME, "best.onnx")
    go_offline(monkeypatch)
    before = hub.requests
    assert find_graph(NAME, "best.onnx") == path
    # One of two graphs is in the cache: the choice is the caller's still.
    with pytest.raises(HubError, match="holds several graphs"):
        find_graph(NAME)
    with pytest.raises(HubError, match=r"owner/name: expected it complete in the cache /.*, because HF_HUB_OFFLINE is"):
        find_graph(NAME, "b.onnx")
    with pytest.raises(HubError, match=r"expected revision 'v1' complete in the cache /.*, because HF_HUB_OFFLINE is"):
        find_graph(NAME, "best.onnx", "v1")
    with pytest.raises(HubError, match=r"owner/other: .*, because HF_HUB_OFFLINE is set$"):
        find_graph("owner/other")
    assert hub.requests == before


@pytest.mark.usefixtures("hub")
def test_without_a_connection_the_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_graph(NAME)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        port = silent.getsockname()[1]
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
        assert find_graph(NAME) == path
        with pytest.raises(
            HubError, match=rf"owner/other: expected it .*, because http://127\.0\.0\.1:{port} says: .*ref"
        ):
            find_graph("owner/other")


def test_what_the_hub_does_not_have_is_said(hub: HubServer) -> None:
    with pytest.raises(
        HubError, match=r"^owner/other: no such model repository, or one that is private, expected a tok"
    ):
        find_graph("owner/other")
    with pytest.raises(
        HubError, match=r"^owner/name: has no revision 'v2', expected a branch, a tag or a commit of it$"
    ):
        find_graph(NAME, revision="v2")
    with pytest.raises(HubError, match="^owner/name: has no revision '0{40}'"):
        find_graph(NAME, revision="0" * 40)
    with pytest.raises(HubError, match=r"^owner/na\.\.me: no name of a repository, expected owner/name: Cannot have"):
        find_graph("owner/na..me")
    assert hub.fetched == []


def test_what_the_hub_refuses_is_said(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME].gated = True
    for token in ("", hub.strangers_token):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(
            HubError, match=r"owner decides who may read it, expected access asked for at http.*/name and"
        ):
            find_graph(NAME)
    hub.repositories[NAME].private = True
    for token in ("", hub.strangers_token):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubError, match="no such model repository, or one that is private"):
            find_graph(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(
        HubError, match=r"access denied \(401\), expected a token that may read it: hf auth login, or HF_"
    ):
        find_graph(NAME)
    assert hub.fetched == []
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert find_graph(NAME).read_bytes() == b"a graph"


def test_nothing_of_an_interrupted_download_is_used(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the library's tries
    hub.cuts = [3] * 100
    with pytest.raises(HubError, match=r"^owner/name: could not be fetched, and no part of it is used: ."):
        find_graph(NAME)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and b"a g" in path.read_bytes()]
    with monkeypatch.context() as offline:
        go_offline(offline)
        with pytest.raises(HubError, match="because HF_HUB_OFFLINE is set"):
            find_graph(NAME)
    hub.cuts = [3]  # once: the library tries again
    assert find_graph(NAME).read_bytes() == b"a graph"


def test_a_graph_of_the_hub_runs_and_is_checked_with_its_golden_file(hub: HubServer, picture: np.ndarray) -> None:
    files = hub.repositories[NAME].files
    files.clear()
    for path in (SHIPPED_GRAPH, SHIPPED_INT8_GRAPH, golden_path(SHIPPED_GRAPH)):
        files[path.name] = path.read_bytes()
    hole = np.zeros(picture.shape[:2], dtype=np.bool_)
    hole[20:50, 30:60] = True
    with (
        Inpainter.from_pretrained(NAME, file="small.onnx", threads=1) as fetched,
        Inpainter(SHIPPED_GRAPH, threads=1) as direct,
    ):
        assert np.array_equal(fetched(picture, hole), direct(picture, hole))
    try:
        with Inpainter.from_pretrained(NAME, file="small.int8.cpu.onnx", threads=1) as int8:
            assert int8.warning is None
    except CpuError:
        pass  # this CPU saturates, which the check has found
    assert sorted(hub.fetched) == ["small.golden.npz", "small.int8.cpu.onnx", "small.onnx"]


def test_foreign_graphs_are_refused_with_the_name_of_the_repository(hub: HubServer) -> None:
    with pytest.raises(GraphError, match=r"^owner/name: .*best\.onnx: is not an ONNX file"):
        Inpainter.from_pretrained(NAME)
    onnx = pytest.importorskip("onnx", reason="needs onnx: pip install 'cisi-net[parity]'")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "foreign", [value], [output])
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    hub.repositories[NAME].files["best.onnx"] = model.SerializeToString()
    with pytest.raises(ContractError, match=r"^owner/name: .*best\.onnx: has no CISI-net contract"):
        Inpainter.from_pretrained(NAME)


def test_the_librarys_own_variables_lead_to_a_hub_and_a_cache(hub: HubServer, tmp_path: Path) -> None:
    cache = tmp_path / "elsewhere"
    program = "import sys; from cisi_runtime.inpainting.model_hub import find_graph; print(find_graph(sys.argv[1]))"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache)}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}  # not the user's token or wish
    command = [sys.executable, "-c", program, NAME]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    path = Path(result.stdout.strip())
    assert path.is_relative_to(cache)
    assert path.read_bytes() == b"a graph"


@pytest.mark.parametrize("missing", ["huggingface_hub", "huggingface_hub.errors"])
def test_a_missing_or_old_library_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        HubError, match=r"owner/name: needs huggingface_hub 1\.33 or newer: pip install 'cisi-net\[hub\]'"
    ):
        find_graph(NAME)
    (tmp_path / NAME).mkdir(parents=True)
    (tmp_path / NAME / "best.onnx").touch()
    assert find_graph(NAME) == Path(NAME) / "best.onnx"  # a folder does not need it
