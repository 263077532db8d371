"""Runs of a benchmark: killed, shared, and refused before they cost hours."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.resumable_runs import RESULT, Run, check_budget, open_measured, unfinished

import cisi_train.training_state as training_state
from cisi_runtime.errors import CheckpointError, DataError
from cisi_train.checkpoint import load_checkpoint
from cisi_train.data import open_folder
from cisi_train.recipe import Recipe

RUN = Run(
    preset="tiny",
    steps=4,
    size=64,
    batch=2,
    lr=1e-3,
    seed=0,
    l1_first=1.0,
    save_every=2,
    recipe=Recipe(style_losses=False, select="last"),
)


class KilledError(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize("name", ["averaged.pt", "best.pt", "last.pt"])
def test_a_run_killed_at_its_last_checkpoint(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save, folder = training_state.save_checkpoint, open_folder(photo_folder)

    def killed(path: Path, contract: Any, *rest: Any, **more: Any) -> None:
        if path.name == name and contract.provenance.steps == 4:
            raise KilledError
        save(path, contract, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_checkpoint", killed)
        with pytest.raises(KilledError):
            RUN.train(folder, tmp_path)
    assert RUN.train(folder, tmp_path)
    assert [load_checkpoint(tmp_path / each).contract.provenance.steps for each in ("best.pt", "last.pt")] == [4, 4]
    # Finished, but for its result: not trained again.
    monkeypatch.setattr(Run, "trainer", lambda *_: pytest.fail("trained again"))
    assert RUN.train(folder, tmp_path)


def test_processes_share_what_is_unfinished(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in "abc"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / RESULT).write_text("{}")
    ours, others = unfinished(runs), unfinished(runs)
    assert next(ours) == tmp_path / "a"
    assert list(others) == [tmp_path / "c"]
    assert list(ours) == [tmp_path / "c"]


def test_a_budget_stays(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    with pytest.raises(CheckpointError, match="no such file, so there are no runs to make a table of"):
        check_budget(path, {"lr": 1.0}, table_only=True)
    check_budget(path, {"lr": 1.0}, table_only=False)
    check_budget(path, {"lr": 1.0}, table_only=True)
    with pytest.raises(CheckpointError, match="began otherwise: lr was 1.0, now 2.0; choose another --out"):
        check_budget(path, {"lr": 2.0}, table_only=False)
    assert json.loads(path.read_text()) == {"lr": 1.0}
    path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="not JSON"):
        check_budget(path, {"lr": 1.0}, table_only=False)


def test_what_would_fail_later_is_refused_at_once(photo_folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "00.png").write_bytes((photo_folder / "01.png").read_bytes())
    selecting = Run(**{**vars(RUN), "recipe": Recipe(style_losses=False)})
    with pytest.raises(DataError, match="few: has 1 pictures, expected ten or more to select by"):
        selecting.train(open_folder(few), tmp_path / "run")
    with pytest.raises(ValueError, match="selection by LPIPS needs its weights"):
        Run(**{**vars(RUN), "recipe": Recipe(select="lpips")})
    assert open_measured(few).training == (few / "00.png",)
    (few / "01.png").write_bytes((photo_folder / "01.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"01\.png: .*expected photographs to measure on that can all be read"):
        open_measured(few)
