"""The engine cache: what is believed of it, and what a write that fails leaves. No engine is built."""

import dataclasses
import json
from pathlib import Path

import pytest

from cisi_runtime.architecture import PRESETS
from cisi_runtime.building import make
from cisi_runtime.building.cache import cached_engine, store_engine, write_engine
from cisi_runtime.contract import Contract
from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import Sidecar, file_sha256, load_engine, sidecar_path
from cisi_runtime.errors import EngineError, OutputError
from tests.runtime.test_files import full_after
from tests.support.networks import provenance

OLD, NEW = b"an engine", b"another, which is longer" * 100
KEY = "0" * 32


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an engine in the cache."""
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))
    store_engine(KEY, OLD, sidecar_of(OLD))
    return tmp_path / "cache" / "engines" / f"{KEY}.engine"


def sidecar_of(engine: bytes) -> Sidecar:
    contract = Contract(PRESETS["tiny"], provenance())
    about = (file_sha256(engine), len(engine), BuildOptions(), "1.7.1.116", "", "", Audit((), 1, 0), 1.0, None)
    return Sidecar(contract, "best.onnx", "0" * 64, "1" * 64, (None, None, None), *about)


@pytest.mark.usefixtures("entry")
def test_what_is_stored_is_found() -> None:
    assert cached_engine(KEY) == (OLD, sidecar_of(OLD))
    assert cached_engine("1" * 32) is None


@pytest.mark.parametrize(("new", "limit"), [(NEW, len(NEW) - 1), (NEW[:9], 99)], ids=["engine", "sidecar"])
def test_a_full_disk_leaves_the_old_engine_with_its_sidecar(tmp_path: Path, new: bytes, limit: int) -> None:
    path = tmp_path / "best.engine"
    write_engine(path, OLD, sidecar_of(OLD))
    with full_after(limit), pytest.raises(OutputError, match="cannot be written: File too large"):
        write_engine(path, new, sidecar_of(new))
    assert load_engine(path) == (OLD, sidecar_of(OLD))
    assert sorted(tmp_path.iterdir()) == [path, sidecar_path(path)]


def test_a_write_that_is_cut_between_the_renames_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.engine"
    write_engine(path, OLD, sidecar_of(OLD))
    replace = Path.replace

    def cut(self: Path, target: Path) -> Path:
        if target == sidecar_path(path):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        write_engine(path, NEW, sidecar_of(NEW))
    with pytest.raises(EngineError, match="or not the engine that best.engine.json describes .* cisi-build best.onnx"):
        load_engine(path)


def test_a_sidecar_of_another_engine_is_not_written(tmp_path: Path) -> None:
    of_another = dataclasses.replace(sidecar_of(b"as many "), engine_bytes=len(OLD))
    with pytest.raises(EngineError, match="the sidecar is of another engine"):
        write_engine(tmp_path / "best.engine", OLD, of_another)
    assert list(tmp_path.iterdir()) == []


def test_engines_and_sidecars_that_were_exchanged(entry: Path) -> None:
    entry.write_bytes(NEW)
    with pytest.raises(
        EngineError, match=f"{KEY}.engine: is damaged, or not the engine that {KEY}.engine.json describ"
    ):
        cached_engine(KEY)
    entry.write_bytes(OLD)
    sidecar_path(entry).write_text(sidecar_of(NEW).to_json())
    with pytest.raises(
        EngineError, match=f"{KEY}.engine: is damaged, or not the engine that {KEY}.engine.json describ"
    ):
        cached_engine(KEY)


@pytest.mark.parametrize(
    ("name", "value"), [("fixed", [1, 2]), ("seconds", "9"), ("engine_bytes", -1), ("options", {}), ("audit", None)]
)
def test_a_sidecar_that_was_edited(entry: Path, name: str, value: object) -> None:
    values = json.loads(sidecar_of(OLD).to_json())
    sidecar_path(entry).write_text(json.dumps(values | {name: value}))
    with pytest.raises(EngineError, match=f"{KEY}.engine.json: sidecar"):
        cached_engine(KEY)


@pytest.mark.parametrize("who", ["others can write", "everybody may replace"])
def test_what_another_user_could_have_put_there_is_not_read(entry: Path, who: str) -> None:
    (entry.parent if who == "others can write" else entry.parent.parent).chmod(0o777)
    before = {path: path.read_bytes() for path in entry.parent.iterdir()}
    with pytest.raises(OutputError, match="can write to it"):
        cached_engine(KEY)
    with pytest.raises(OutputError, match="can write to it"):
        store_engine(KEY, NEW, sidecar_of(NEW))
    assert {path: path.read_bytes() for path in entry.parent.iterdir()} == before


def test_a_link_in_the_cache_is_replaced_not_followed(entry: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(OLD)
    entry.unlink()
    entry.symlink_to(theirs)
    store_engine(KEY, NEW, sidecar_of(NEW))
    assert theirs.read_bytes() == OLD
    assert cached_engine(KEY) == (NEW, sidecar_of(NEW))


@pytest.mark.parametrize("of", ["another graph", "other options"])
def test_an_entry_under_the_name_of_another_is_not_used(tmp_path: Path, entry: Path, of: str) -> None:
    graph_sha256, level = ("1" * 64, 3) if of == "another graph" else ("0" * 64, 5)
    order = make._Order(None, tmp_path / "mine.onnx", graph_sha256, "1" * 64, BuildOptions(level=level), None)
    for path in (entry, sidecar_path(entry)):
        path.rename(path.with_name(path.name.replace(KEY, order.key)))
    notes: list[str] = []
    assert make._from_cache(order, notes) is None
    assert notes == [
        "the cached engine is not used, a new one is built: it is of another graph, best.onnx, or of other options"
    ]
    same = dataclasses.replace(order, graph_sha256="0" * 64, options=BuildOptions())
    store_engine(same.key, OLD, sidecar_of(OLD))
    assert make._from_cache(same, notes) == (OLD, sidecar_of(OLD))
