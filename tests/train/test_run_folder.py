"""The folder of a run: what is there already, and who else writes to it."""

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cisi_runtime.batch.only_run import only_run
from cisi_runtime.errors import CheckpointError
from cisi_train import training_state
from cisi_train.checkpoint import save_checkpoint
from cisi_train.cli_train import main
from tests.conftest import RunMain
from tests.support.training_runs import Trainer, options


def test_one_run_at_a_time_in_a_folder(photo_folder: Path, tmp_path: Path, run_main: RunMain) -> None:
    out = tmp_path / "run"
    Trainer(options(photo_folder, out)).run()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with only_run(out):
        status, said, error = run_main(main, "--out", out, "--resume", "--steps", 9)
    assert (status, said) == (1, "")
    assert f"error: --out: {out}: another run is at work here, expected another folder, or its end" in error
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert run_main(main, "--out", out, "--resume", "--steps", 9)[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is flock's: run it on Linux or macOS")
def test_children_do_not_hold_the_lock(tmp_path: Path) -> None:
    """As the readers of pictures, which are forked and may outlive a process that is killed."""
    here, there = socket.socketpair()
    with here, there:
        with only_run(tmp_path):
            child = os.fork()
            if child == 0:
                there.send(b"!")
                there.recv(1)
                os._exit(0)
            here.recv(1)  # it has begun
        try:
            with only_run(tmp_path):
                pass
        finally:
            here.send(b"!")
            os.waitpid(child, 0)


def test_a_run_that_was_killed_in_its_first_checkpoint_begins_again(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(path: Path, *_: Any, **__: Any) -> None:
        save_checkpoint(path, *_, **__)
        if path.name == "best.pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_checkpoint", kill)
        with pytest.raises(KeyboardInterrupt):
            Trainer(options(photo_folder, tmp_path)).run()
    assert {path.name for path in tmp_path.glob("*.pt")} == {"averaged.pt", "best.pt"}
    # But not over the weights that it starts from.
    with pytest.raises(CheckpointError, match=r"best.pt exists, of another run"):
        Trainer(options(photo_folder, tmp_path, init=tmp_path / ".." / tmp_path.name / "best.pt"))
    assert Trainer(options(photo_folder, tmp_path)).run()
    # Nor over those of a run that came further.
    (tmp_path / "last.pt").unlink()
    with pytest.raises(CheckpointError, match=r"best.pt exists, of another run"):
        Trainer(options(photo_folder, tmp_path))


@pytest.mark.parametrize("kept", ["best.pt", "averaged.pt"])
def test_weights_of_another_run_are_not_replaced(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint_path: Path, kept: str
) -> None:
    shutil.copy(tiny_checkpoint_path, tmp_path / kept)
    with pytest.raises(CheckpointError, match=f"{kept} exists, of another run: choose another --out"):
        Trainer(options(photo_folder, tmp_path, init=tmp_path / kept))
