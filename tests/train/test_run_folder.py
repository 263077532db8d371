"""The folder of a run: what is there already, and who else writes to it."""

import shutil
from pathlib import Path

import pytest

from cisi_runtime.errors import CheckpointError, OutputError
from cisi_runtime.folder_lock import locked_folder
from tests.support.training_runs import Trainer, options


def test_one_run_at_a_time_in_a_folder(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    Trainer(options(photo_folder, out)).run()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    second = Trainer(options(photo_folder, out, steps=9, resume=True))
    with locked_folder(out), pytest.raises(OutputError, match="run: another run is at work here"):
        second.run()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert second.run()


@pytest.mark.parametrize("kept", ["best.pt", "averaged.pt"])
def test_weights_of_another_run_are_not_replaced(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint_path: Path, kept: str
) -> None:
    shutil.copy(tiny_checkpoint_path, tmp_path / kept)
    with pytest.raises(CheckpointError, match=f"{kept} exists, of another run: choose another --out"):
        Trainer(options(photo_folder, tmp_path, init=tmp_path / kept))
