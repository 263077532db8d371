"""Two runs into one output folder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cisi_runtime.batch.only_run import only_run
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.cli.run import main
from cisi_runtime.errors import OutputError
from cisi_runtime.storage.addresses import parse_address
from tests.conftest import RunMain
from tests.support.folder_runs import photographs
from tests.support.shared import TIMEOUT_S


@pytest.mark.parametrize("more", [(), ("--overwrite",), ("--dilate", "3"), ("--watch",)])
def test_a_second_run_is_refused_and_changes_nothing(tmp_path: Path, run_main: RunMain, more: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    (tmp_path / "photos").mkdir()
    out.mkdir()
    for name in (RECORD, "failures.jsonl", f".cisi-{1 << 30}@-a.png"):
        (out / name).write_text("of the first run")
    with only_run(out):
        # Refused before it looks for photographs, of which there are none: what it would see is not yet all.
        status, said, error = run_main(main, tmp_path / "photos", "-o", out, *more)
    assert (status, said) == (1, "")
    assert f"--output: {out}: another run is at work here, expected another folder, or its end" in error
    assert {path.read_text() for path in out.iterdir()} == {"of the first run"}
    assert len(list(out.iterdir())) == 3


def test_the_next_run_begins_when_the_first_has_ended(tmp_path: Path, run_main: RunMain, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)
    arguments = (tmp_path / "photos", "--mask", tmp_path / "masks", "--model", tiny_graph, "--threads", 1)
    with only_run(tmp_path / "out"), only_run(tmp_path / "another"):
        pass
    for line in ("2 written, 0 there already", "0 written, 2 there already"):
        status, said, error = run_main(main, *arguments, "-o", tmp_path / "out")
        assert status == 0, error
        assert line in said


def test_a_run_that_is_killed_keeps_nobody_out(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cisi_runtime.batch.only_run import only_run\n"
        "with only_run(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(1e6)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        with pytest.raises(OutputError, match="another run is at work"), only_run(tmp_path):
            pass
        holder.kill()
        assert holder.wait(TIMEOUT_S) == -signal.SIGKILL
    with only_run(tmp_path):
        pass


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    def fail(folder: Path, *results: str) -> None:
        with only_run(folder):
            assert folder.is_dir()
            for name in results:
                (folder / name).touch()
            raise ZeroDivisionError

    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "a" / "b"):
        with pytest.raises(ZeroDivisionError):
            fail(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path / "a" / "b", "result")
    assert (tmp_path / "a" / "b" / "result").exists()


def test_where_there_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="flock is a call of POSIX systems")
    with only_run(parse_address("memory://bucket/out")), only_run(parse_address("memory://bucket/out")):
        pass

    def refuse(_descriptor: int, _how: int) -> None:
        raise OSError(45, "Not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_run(tmp_path):
        pass
    assert (
        "cannot be locked (Not supported): start no other run into it before this one ends" in capsys.readouterr().err
    )
