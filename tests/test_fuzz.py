"""The fuzzer itself: damage that repeats and gets behind checksums, and faults that it must find."""

import os
import random
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from cisi_runtime.errors import PictureError
from tests import fuzz
from tests.support import fuzz_workers
from tests.support.fuzz_readers import READERS, Reader
from tests.support.fuzz_workers import Worker, make_input, minimise
from tests.support.mutations import mutate

LIMIT_BYTES = 64 << 20


def seeds() -> dict[str, bytes]:
    return {"a.bin": b"fine"}


def planted(path: Path, _: Path) -> None:
    """Does what the file says."""
    faults: dict[bytes, Callable[[], object]] = {
        b"refuse": lambda: fail(PictureError("no")),
        b"clear": lambda: fail(PictureError(" " * 20_000)),
        b"crash": lambda: fail(ValueError("a fault")),
        b"memory": lambda: fail(MemoryError()),
        b"touch": lambda: b"x" * (LIMIT_BYTES + (8 << 20)),
        b"die": lambda: os.kill(os.getpid(), 9),
        b"hang": lambda: time.sleep(60),
    }
    for word, fault in faults.items():
        if word in path.read_bytes():
            fault()


def fail(error: Exception) -> None:
    raise error


@pytest.mark.slow
def test_every_kind_of_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(Reader("planted", seeds, planted), seeds(), tmp_path / "log", LIMIT_BYTES) as worker:

        def kind(data: bytes) -> str:
            return worker.read(("a.bin", data)).kind

        words = (b"fine", b"refuse", b"clear", b"crash", b"memory", b"touch")
        assert [kind(word) for word in words] == ["done", "refused", "crashed", "crashed", "memory", "memory"]
        crash = worker.read(("a.bin", b"so to crash it"))
        assert crash.signature.startswith("ValueError at ")
        smallest = minimise(b"so to crash it", lambda data: worker.read(("a.bin", data)) == crash, 60.0)
        assert smallest == b"crash"
        died = worker.read(("a.bin", b"die"))
        assert (died.kind, died.signature) == ("crashed", "process died, status -9")
        assert kind(b"fine") == "done"  # in a new process
        monkeypatch.setattr(fuzz_workers, "LIMIT_S", 0.2)
        assert kind(b"hang") == "hung"


@pytest.mark.slow
def test_a_campaign_counts_every_input(tmp_path: Path) -> None:
    arguments = ["--inputs", "60", "--seed", "3", "--reader", "options", "--workers", "1", "--findings", str(tmp_path)]
    result = CliRunner().invoke(fuzz.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    name, inputs, *counts = result.output.splitlines()[2].split()[:-1]  # without the seconds
    assert (name, inputs, sum(map(int, counts))) == ("options", "60", 60)
    assert min(map(int, counts[:2])) > 0


@pytest.mark.parametrize("name", READERS)
def test_undamaged_files_are_read(name: str) -> None:
    reader = READERS[name]
    files = reader.seeds() | {path.name: path.read_bytes() for path in reader.large}
    outcomes = {file: fuzz_workers.attempt(reader, file, data) for file, data in files.items()}
    assert {file: outcome.text for file, outcome in outcomes.items() if outcome.kind != "done"} == {}


@pytest.mark.parametrize("name", ["pictures", "masks", "golden files", "sidecars", "graphs", "manifests"])
def test_the_same_seed_gives_the_same_damage(name: str) -> None:
    reader = READERS[name]
    files = reader.seeds()
    inputs = [make_input(files, reader, 1, number) for number in range(40)]
    assert inputs == [make_input(files, reader, 1, number) for number in range(40)]
    assert len({data for _, data in inputs}) > 20
    assert sum(data == files.get(name) for name, data in inputs) < 8


def test_damage_gets_behind_checksums() -> None:
    png = READERS["masks"].seeds()["mask.png"]
    golden = READERS["golden files"].seeds()["small.golden.npz"]
    whole, members = 0, 0
    for number in range(60):
        damaged = mutate(png, [png], random.Random(number))
        whole += damaged not in (png, png[: len(damaged)]) and has_checksums(damaged)
        archive = mutate(golden, [golden], random.Random(number))
        members += archive != golden and zipfile.is_zipfile(BytesIO(archive)) and is_sound(archive)
    assert whole > 20
    assert members > 20


def has_checksums(data: bytes) -> bool:
    at, chunks = 8, 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunk, checksum = data[at + 4 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if checksum != struct.pack(">I", zlib.crc32(chunk)):
            return False
        at, chunks = at + 12 + length, chunks + 1
    return chunks > 0 and at == len(data)


def is_sound(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError):
        return False
