"""S3 over loopback: runs of `cisi-run` from and to a store, and what becomes of them when it fails."""

import functools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.cli.run import main
from cisi_runtime.errors import OutputError, PictureError, StorageError
from cisi_runtime.storage import remote
from cisi_runtime.storage.access import find_names, is_folder, is_present, read_address, remove_address, write_address
from cisi_runtime.storage.addresses import Url, parse_address
from tests.conftest import RunMain
from tests.support.folder_runs import PROGRAM, cisi_run_alone, photographs
from tests.support.s3_server import Store, running_store
from tests.support.service import wait_until
from tests.support.shared import TIMEOUT_S

FOLDERS = ("s3://photos/", "--mask", "s3://masks/", "-o", "s3://out/")
# A name that takes quoting, in an address, a header and a listing.
QUOTED = "below/é #?%20+&'\"=.png"
NAMES = ("0.png", "1.png", "2.png", "3.png", "below/4.png", QUOTED)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def running() -> Iterator[Store]:
    with running_store() as store:
        yield store


@pytest.fixture
def store(running: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Three empty buckets, and an environment in which this process and its children find them."""
    running.reset()
    running.make("photos", "masks", "out")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    _forget()
    yield running
    _forget()


def _forget() -> None:
    """Clients of earlier tests have another environment."""
    remote._filesystem.cache_clear()
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` and `masks`."""
    folder = photographs(tmp_path_factory.mktemp("originals"), 5)
    for place in ("photos", "masks"):
        (folder / place / QUOTED).write_bytes((folder / place / "0.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def expected(originals: Path, tiny_graph: Path) -> dict[str, bytes]:
    """What a run on this machine writes."""
    out = originals / "out"
    arguments = (originals / "photos", "--mask", originals / "masks", "-o", out, "--model", tiny_graph, "--threads", 1)
    result = cisi_run_alone(*arguments, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.suffix == ".png"}
    assert sorted(files) == sorted(NAMES)
    return files


@pytest.fixture
def filled(store: Store, originals: Path) -> Store:
    """A store with the photographs and their masks."""
    for place in ("photos", "masks"):
        store.upload(originals / place, place)
    return store


@pytest.fixture
def run(run_main: RunMain, tiny_graph: Path) -> Run:
    """`cisi-run` in this process, one photograph at a time."""
    return lambda *arguments: run_main(main, *arguments, "--model", tiny_graph, "--threads", 1)


def failures(store: Store) -> dict[str, dict[str, Any]]:
    """The list of failures, by the output."""
    lines = [json.loads(line) for line in store.get("out", "failures.jsonl").decode().splitlines()]
    assert all(set(line) == {"image", "mask", "output", "reason"} for line in lines)
    by_output = {line["output"].removeprefix("s3://out/"): line for line in lines}
    assert len(by_output) == len(lines)
    return by_output


def read(store: Store) -> list[str]:
    """Photographs whose bytes were asked for."""
    return sorted(name.removeprefix("photos/") for name in store.proxy.names("GET") if name.startswith("photos/"))


def test_a_folder_as_on_this_machine(filled: Store, expected: dict[str, bytes], tiny_graph: Path) -> None:
    for name in ("below/", ".hidden.png", ".below/0.png", "notes.txt"):
        filled.put("photos", name, b"")
    filled.put("out", "mine.txt", b"mine")
    filled.proxy.page_size = 2
    result = cisi_run_alone(*FOLDERS, "--model", tiny_graph, "--threads", 2, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    assert "s3://out: 6 written, 0 there already, 0 failed" in result.stdout
    # Neither an empty file that it tried with, nor a list of failures.
    assert filled.objects("out") == expected | {"mine.txt": b"mine"}
    for bucket in ("photos", "masks", "out"):
        assert filled.unfinished_uploads(bucket) == []
    # Ten names of photographs are five pages, and the question whether there are any is one more.
    assert filled.proxy.names("LIST").count("photos/") == 6
    assert read(filled) == sorted(NAMES)


def test_pages_of_a_listing(filled: Store) -> None:
    filled.proxy.page_size = 2
    pages = find_names(parse_address("s3://photos"))
    first = next(pages)
    assert filled.proxy.names("LIST") == ["photos/"]  # the rest is asked for when it is wanted
    assert [first, *pages] == [["0.png", "1.png"], ["2.png", "3.png"], sorted(NAMES[4:])]
    assert [name for page in find_names(parse_address("s3://photos/below/")) for name in page] == [
        QUOTED.removeprefix("below/"),
        "4.png",
    ][::-1]
    filled.proxy.log.clear()
    assert is_folder(parse_address("s3://photos"))
    assert is_folder(parse_address("s3://photos/below"))
    assert not is_folder(parse_address("s3://photos/0.png"))
    assert not is_folder(parse_address("s3://photos/belo"))
    assert len(filled.proxy.log) == 4  # a page each, however many names there are
    assert is_present(parse_address("s3://photos/0.png"))
    assert is_present(parse_address("s3://out"))
    assert not is_present(parse_address("s3://photos/belo"))
    assert not is_present(parse_address("s3://nothing"))


def test_one_photograph(filled: Store, expected: dict[str, bytes], originals: Path, tmp_path: Path, run: Run) -> None:
    status, out, errors = run(f"s3://photos/{QUOTED}", "--mask", "s3://masks/0.png", "-o", f"s3://out/a/{QUOTED}")
    assert status == 0, errors
    assert out.startswith(f"s3://out/a/{QUOTED}: 200x160, hole ")
    assert filled.objects("out") == {f"a/{QUOTED}": expected[QUOTED]}
    # From one kind of place to the other.
    assert run("s3://photos/0.png", "--mask", originals / "masks" / "0.png", "-o", tmp_path / "0.png")[0] == 0
    assert (tmp_path / "0.png").read_bytes() == expected["0.png"]
    assert run(originals / "photos" / "0.png", "--mask", "s3://masks/0.png", "-o", "s3://out/0.png")[0] == 0
    assert filled.get("out", "0.png") == expected["0.png"]
    # An original is kept.
    for output, what in (("s3a://photos/0.png/", "photograph"), ("s3://masks/0.png", "mask")):
        status, _, errors = run("s3://photos/0.png", "--mask", "s3://masks/0.png", "-o", output)
        assert status == 1
        assert f"is the {what} itself" in errors
    assert filled.get("photos", "0.png") == (originals / "photos" / "0.png").read_bytes()
    assert filled.get("masks", "0.png") == (originals / "masks" / "0.png").read_bytes()
    # What is missing is named.
    status, _, errors = run("s3://photos/none.png", "--mask", "s3://masks/0.png", "-o", "s3://out/none.png")
    assert (status, errors) == (1, "cisi-run: error: IMAGE: s3://photos/none.png: no such file or folder\n")


def test_nothing_is_read_when_everything_is_there(filled: Store, expected: dict[str, bytes], run: Run) -> None:
    for name in expected:
        filled.put("out", name, b"mine")
    status, out, errors = run(*FOLDERS)
    assert status == 0, errors
    assert "0 written, 6 there already, 0 failed" in out
    assert filled.proxy.names("GET") == []
    assert filled.proxy.names("PUT") == ["out/.cisi-probe"]
    assert set(filled.objects("out").values()) == {b"mine"}
    filled.delete("out", QUOTED)
    filled.proxy.log.clear()
    assert "1 written, 5 there already" in run(*FOLDERS)[1]
    assert read(filled) == [QUOTED]
    assert filled.get("out", QUOTED) == expected[QUOTED]
    assert "6 written, 0 there already" in run(*FOLDERS, "--overwrite")[1]
    assert filled.objects("out") == expected


@pytest.mark.parametrize("moment", ["in the middle of an upload", "behind it"])
def test_killed_and_started_again(
    filled: Store, expected: dict[str, bytes], tiny_graph: Path, run: Run, moment: str
) -> None:
    process: Future[int] = Future()

    def kill() -> None:
        os.kill(process.result(TIMEOUT_S), signal.SIGKILL)

    if moment == "behind it":
        filled.proxy.add("PUT", "out/*.png", after=2, behind=kill)
    else:
        filled.proxy.add("PUT", "out/*.png", after=2, before=kill, cut="upload")
    command = [*PROGRAM, *FOLDERS, "--model", str(tiny_graph), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        process.set_result(killed.pid)
        assert killed.wait(TIMEOUT_S) == -signal.SIGKILL
    there = filled.objects("out")
    assert len(there) == (3 if moment == "behind it" else 2)
    assert there.items() <= expected.items()  # what is there is whole
    filled.proxy.log.clear()
    status, out, errors = run(*FOLDERS)
    assert status == 0, errors
    assert f"{6 - len(there)} written, {len(there)} there already, 0 failed" in out
    assert read(filled) == sorted(expected.keys() - there.keys())
    assert filled.objects("out") == expected


def test_large_objects_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # s3fs uploads in parts from 100 MiB on. S3 and moto take no parts below 5 MiB.
    filesystem = remote._filesystem("s3")
    monkeypatch.setattr(filesystem, "pipe_file", functools.partial(filesystem.pipe_file, chunksize=5 << 20))
    data = bytes(range(256)) * (11 << 12)  # 11 MiB
    url = Url("s3", "out/large.png")
    write_address(url, data)
    assert store.proxy.names("PUT") == ["out/large.png"] * 3
    assert store.get("out", "large.png") == data
    assert read_address(url) == data
    # One part that fails leaves what was there, and no parts.
    store.proxy.log.clear()
    store.proxy.add("PUT", "out/large.png", after=1, answer=(403, "AccessDenied"))
    with pytest.raises(StorageError, match=r"^s3://out/large\.png: access denied: AccessDenied by the proxy$"):
        write_address(url, data[::-1])
    wait_until(lambda: len(store.proxy.names("PUT")) == 3)  # s3fs does not wait for the other parts
    assert store.get("out", "large.png") == data
    assert store.unfinished_uploads("out") == []
    remove_address(url)
    remove_address(url)
    with pytest.raises(PictureError, match=r"^s3://out/large\.png: no such file$"):
        read_address(url)


def test_a_photograph_that_vanishes(filled: Store, expected: dict[str, bytes], originals: Path, run: Run) -> None:
    filled.proxy.add("GET", "photos/0.png", behind=lambda: filled.delete("photos", "1.png"))
    status, out, errors = run(*FOLDERS)
    assert status == 1
    assert "5 written, 0 there already, 1 failed" in out
    assert errors.splitlines()[-1] == (
        "cisi-run: error: s3://photos: 1 photographs failed, named in s3://out/failures.jsonl"
    )
    reason = "IMAGE: s3://photos/1.png: no such file"
    assert reason in errors
    assert failures(filled) == {
        "1.png": {
            "image": "s3://photos/1.png",
            "mask": "s3://masks/1.png",
            "output": "s3://out/1.png",
            "reason": reason,
        }
    }
    done = filled.objects("out")
    del done["failures.jsonl"]
    assert done == {name: data for name, data in expected.items() if name != "1.png"}
    # It comes back. A run without failures takes the list away.
    filled.upload(originals / "photos", "photos")
    status, out, errors = run(*FOLDERS)
    assert status == 0, errors
    assert "1 written, 5 there already, 0 failed" in out
    assert filled.objects("out") == expected


def test_faults_that_pass(filled: Store, expected: dict[str, bytes], run: Run) -> None:
    busy, broken = (503, "SlowDown"), (500, "InternalError")
    proxy = filled.proxy
    proxy.page_size = 2
    proxy.add("LIST", "photos/", after=2, answer=busy)
    proxy.add("GET", "photos/0.png", answer=busy)
    proxy.add("GET", "photos/1.png", cut="download")
    proxy.add("GET", "masks/0.png", answer=broken)
    proxy.add("HEAD", "photos/2.png", answer=busy)
    proxy.add("PUT", "out/0.png", answer=broken)
    proxy.add("PUT", "out/1.png", cut="upload")
    proxy.add("PUT", "out/.cisi-probe", answer=busy)
    status, out, errors = run(*FOLDERS)
    assert status == 0, errors
    assert "6 written, 0 there already, 0 failed" in out
    assert filled.objects("out") == expected
    assert proxy.names("GET").count("photos/0.png") == 2
    assert proxy.names("GET").count("photos/1.png") == 2
    assert proxy.names("PUT").count("out/0.png") == 2
    assert proxy.names("PUT").count("out/1.png") == 2


def test_faults_that_stay(filled: Store, expected: dict[str, bytes], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # its pauses grow
    filled.put("out", "2.png", b"the one before")
    filled.proxy.add("GET", "photos/1.png", None, answer=(500, "InternalError"))
    filled.proxy.add("PUT", "out/2.png", None, cut="upload")
    filled.proxy.add("PUT", "out/3.png", None, answer=(403, "AccessDenied"))
    status, out, errors = run(*FOLDERS, "--overwrite")
    assert status == 1
    assert "3 written, 0 there already, 3 failed" in out
    for name in ("1.png", "2.png", "3.png"):
        assert errors.count(failures(filled)[name]["reason"]) == 1
    reasons = {name: line["reason"] for name, line in failures(filled).items()}
    assert reasons.keys() == {"1.png", "2.png", "3.png"}
    assert reasons["1.png"] == "IMAGE: s3://photos/1.png: InternalError by the proxy"
    assert "--output: s3://out/2.png: Connection was closed before" in reasons["2.png"]
    assert "--output: s3://out/3.png: access denied: AccessDenied by the proxy" in reasons["3.png"]
    done = filled.objects("out")
    assert done.pop("2.png") == b"the one before"
    del done["failures.jsonl"]
    assert done == {name: data for name, data in expected.items() if name not in reasons}


@pytest.mark.parametrize(
    "arguments",
    [
        FOLDERS,
        ("{photos}", "--mask", "s3://masks", "-o", "{photos}/out"),
        ("{photos}", "--mask", "{masks}", "-o", "s3://out"),
    ],
    ids=["photographs", "masks", "results"],
)
def test_no_credentials(
    store: Store, originals: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, _, errors = run(
        *(word.format(photos=originals / "photos", masks=originals / "masks") for word in arguments)
    )
    assert status == 1
    assert len(errors.splitlines()) == 1
    assert ": no credentials (Unable to locate credentials), expected AWS_ACCESS_KEY_ID and AWS_SECRET" in errors
    assert store.proxy.log == []


def test_wrong_credentials(filled: Store, run: Run) -> None:
    for kind in ("LIST", "GET", "HEAD", "PUT"):
        filled.proxy.add(kind, "*", None, answer=(403, "InvalidAccessKeyId"))
    status, _, errors = run(*FOLDERS)
    assert status == 1
    assert errors == "cisi-run: error: s3://photos: access denied: InvalidAccessKeyId by the proxy\n"
    assert len(filled.proxy.log) == 1  # which no retry would change


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("s3://nothing/a", "--mask", "s3://masks", "-o", "s3://out"),
            "IMAGE: s3://nothing/a: no such file or folder",
        ),
        (("s3://nothing", "-o", "s3://out"), "IMAGE: s3://nothing: no such file or folder"),
        (
            ("s3://photos", "--mask", "s3://nothing/a", "-o", "s3://out"),
            "--mask: s3://nothing/a: no such file or folder",
        ),
        (("s3://photos", "--mask", "s3://masks/a", "-o", "s3://out"), "--mask: s3://masks/a: no such file or folder"),
        (
            ("s3://photos", "--mask", "s3://masks", "-o", "s3://nothing/a"),
            "--output: s3://nothing/a/.cisi-probe: cannot be written: no such bucket",
        ),
        (("s3://out", "--mask", "s3://masks", "-o", "s3://out/a"), "IMAGE: s3://out: no photographs found"),
    ],
)
def test_what_is_not_there_is_told_first(filled: Store, run: Run, arguments: tuple[str, ...], error: str) -> None:
    status, out, errors = run(*arguments)
    assert (status, out, errors) == (1, "", f"cisi-run: error: {error}\n")
    assert read(filled) == []
    assert filled.objects("out") == {}


def test_a_folder_that_takes_no_files_is_told_first(filled: Store, run: Run) -> None:
    filled.proxy.add("PUT", "out/*", None, answer=(403, "AccessDenied"))
    status, out, errors = run(*FOLDERS)
    assert (status, out) == (1, "")
    assert errors == "cisi-run: error: --output: s3://out/.cisi-probe: access denied: AccessDenied by the proxy\n"
    assert filled.proxy.names("GET") == []
    assert filled.proxy.names("LIST").count("photos/") == 1  # whether it is a folder, and no more


def test_a_folder_that_may_not_be_cleaned_takes_files(filled: Store, expected: dict[str, bytes], run: Run) -> None:
    filled.proxy.add("DELETE", "out/*", None, answer=(403, "AccessDenied"))
    status, _, errors = run(*FOLDERS)
    assert status == 0, errors
    assert filled.objects("out") == expected | {".cisi-probe": b""}


def test_folders_of_originals_by_other_names(filled: Store, run: Run) -> None:
    before = filled.objects("photos"), filled.objects("masks")
    for folders, output, what in (
        (("s3://photos", "s3://masks"), "s3a://photos///", "photographs"),
        (("s3a://photos/below/", "s3://masks"), "s3://photos/below", "photographs"),
        (("s3://photos", "s3a://masks"), "s3://masks/", "masks"),
    ):
        status, _, errors = run(folders[0], "--mask", folders[1], "-o", output, "--overwrite")
        assert status == 1
        assert f"is the folder of the {what}, expected another: an original is kept" in errors
    assert (filled.objects("photos"), filled.objects("masks")) == before
    assert filled.proxy.names("PUT") == []


def test_results_above_the_originals(filled: Store, expected: dict[str, bytes], originals: Path, run: Run) -> None:
    """Photographs in a folder, results in the one that holds it."""
    photo, mask = ((originals / place / "0.png").read_bytes() for place in ("photos", "masks"))
    before = {"x/0.png": photo, "x/x/0.png": photo, "y/0.png": mask, "y/x/0.png": mask, "x/y/0.png": photo}
    before["y/y/0.png"] = mask
    for name, data in before.items():
        filled.put("out", name, data)
    status, out, errors = run("s3a://out/x", "--mask", "s3://out/y/", "-o", "s3://out", "--overwrite")
    assert status == 1
    assert "1 written, 0 there already, 2 failed" in out
    assert "s3://out/x/x/0.png: its result would be s3://out/x/0.png, which is in a folder of originals" in errors
    done = filled.objects("out")
    assert {line["output"] for line in failures(filled).values()} == {"s3://out/x/0.png", "s3://out/y/0.png"}
    del done["failures.jsonl"]
    assert done == before | {"0.png": expected["0.png"]}


def test_names_that_no_file_has(filled: Store, originals: Path, tmp_path: Path, run: Run) -> None:
    photo = (originals / "photos" / "0.png").read_bytes()
    outside = tmp_path / "outside.png"
    for name in (str(outside), "below//4.png", "../outside.png", "below/../../outside.png"):
        filled.put("photos", name, photo)
    arguments = ("s3://photos", "--mask", "s3://masks/0.png", "-o", tmp_path / "out")
    status, out, errors = run(*arguments)
    assert status == 1
    assert "6 written, 0 there already, 2 failed" in out
    assert f"s3://photos/{outside}: its name has an empty part" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == sorted([*NAMES, RECORD, "failures.jsonl"])
    # In a store they are names like others.
    with plan_folder(Url("s3", "photos"), None, Url("s3", "out")) as plan:
        assert {str(job.output) for job in plan.jobs()} == {
            f"s3://out/{name}" for name in (*NAMES, str(outside), "below//4.png")
        }


def test_a_manifest(filled: Store, expected: dict[str, bytes], originals: Path, run: Run) -> None:
    filled.put("photos", "list/one.png", (originals / "photos" / "1.png").read_bytes())
    table = "\n".join(
        [
            "image,mask,output",
            "one.png,s3://masks/1.png,a/one.png",
            "s3a://photos/0.png,s3://masks/0.png,s3a://out/b/0.png",
            f"{originals}/photos/2.png,{originals}/masks/2.png,2.png",
            "none.png,s3://masks/0.png,none.png",
        ]
    )
    filled.put("photos", "list/table.csv", table.encode())
    arguments = ("--manifest", "s3://photos/list/table.csv", "-o", "s3://out/")
    status, out, errors = run(*arguments)
    assert status == 1
    assert "3 written, 0 there already, 1 failed" in out
    assert "IMAGE: s3://photos/list/none.png: no such file" in errors
    assert list(failures(filled)) == ["none.png"]
    done = filled.objects("out")
    del done["failures.jsonl"]
    assert done == {"a/one.png": expected["1.png"], "b/0.png": expected["0.png"], "2.png": expected["2.png"]}
    filled.proxy.log.clear()
    assert "0 written, 3 there already, 1 failed" in run(*arguments)[1]
    assert read(filled) == ["list/table.csv"]


def test_a_manifest_writes_over_no_original(filled: Store, run: Run) -> None:
    before = filled.objects("photos")
    filled.put(
        "photos", "table.csv", b"image,mask,output\n0.png,s3a://masks/0.png,1.png\n1.png,s3://masks/1.png,2.png\n"
    )
    status, _, errors = run("--manifest", "s3://photos/table.csv", "-o", "s3a://photos//", "--overwrite")
    assert status == 1
    assert "s3://photos/1.png: is an original of s3://photos/table.csv, expected another output" in errors
    status, _, errors = run("--manifest", "s3://photos/none.csv", "-o", "s3://out")
    assert (status, errors) == (1, "cisi-run: error: --manifest: s3://photos/none.csv: no such file\n")
    filled.delete("photos", "table.csv")
    assert filled.objects("photos") == before


def test_an_original_is_no_output(filled: Store) -> None:
    with pytest.raises(OutputError, match="is the folder of the photographs"):
        plan_folder(parse_address("s3://photos/below/"), None, parse_address("s3a://photos/below"))
    assert filled.proxy.log == []
