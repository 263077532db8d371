"""The benchmark of widths: equal time for each, from measured steps, and a run of it from end to end."""

import json
from collections.abc import Sequence
from pathlib import Path

import benchmarks.capacity as capacity
import pytest

from cisi_runtime.errors import CheckpointError
from cisi_train.checkpoint import load_checkpoint
from cisi_train.data import open_folder
from tests.conftest import RunMain
from tests.support.training_runs import stats

SETTINGS = capacity.Settings(
    minutes=2.0, size=64, batch=2, lr=1e-3, recipe="ours", bf16=False, data_sha256="0" * 64, vals={}
)


def test_a_plan_gives_every_width_as_long_and_stays(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_settings: object, dims: Sequence[int], *_rest: object) -> dict[int, float]:
        return {dim: dim / 10.0 for dim in dims}

    monkeypatch.setattr(capacity, "seconds_per_step", measured)
    folder = open_folder(photo_folder)
    plans = capacity.plan_of(tmp_path, SETTINGS, [24, 40], folder, table_only=False)
    assert plans == {24: capacity.Plan(2.4, 50), 40: capacity.Plan(4.0, 30)}
    # A run that is resumed on a machine of another speed is as long.
    monkeypatch.setattr(capacity, "seconds_per_step", lambda *_: pytest.fail("measured again"))
    assert capacity.plan_of(tmp_path, SETTINGS, [24, 40], folder, table_only=True) == plans
    with pytest.raises(CheckpointError, match=r"plan.json: is for dim 24, 40; choose these, or another --out"):
        capacity.plan_of(tmp_path, SETTINGS, [24, 32], folder, table_only=False)
    (tmp_path / "plan.json").write_text('{"24": {"steps": 50}}')
    with pytest.raises(CheckpointError, match="missing keys"):
        capacity.plan_of(tmp_path, SETTINGS, [24], folder, table_only=False)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(CheckpointError, match=r"plan.json: no such file, so there are no runs"):
        capacity.plan_of(tmp_path, SETTINGS, [24], folder, table_only=True)


@pytest.mark.slow
def test_a_width_from_end_to_end(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    monkeypatch.setattr(capacity, "_LATENCY_ROUNDS", 1)
    monkeypatch.setattr(capacity, "_STEP_ROUNDS", 1)
    monkeypatch.setattr(capacity, "_SIDE", 64)
    val, out = tmp_path / "val", tmp_path / "runs"
    val.mkdir()
    command = ["--data", photo_folder, "--val", val, "--out", out, "--dims", 4, "--size", 64, "--batch", 2]
    status, _, errors = run_main(capacity.main, *command)
    assert (status, "val: no pictures found" in errors, out.exists()) == (1, True, False)
    (val / "00.png").write_bytes((photo_folder / "01.png").read_bytes())

    status, tables, errors = run_main(capacity.main, *command, "--minutes", 1e-6)
    assert status == 0, errors
    assert len(stats(out / "dim-4-0")) == 1
    assert load_checkpoint(out / "dim-4-0" / "best.pt").contract.architecture.dim == 4
    figures = json.loads((out / "dim-4-0" / "result.json").read_text())[str(val)]
    assert f"| dim 4 | 1 | {figures['psnr_db']:.2f} dB | {figures['l1_percent']:.2f} % |" in tables
    last = tables.rstrip().splitlines()[-1]
    assert last.startswith("| dim 4 | 131,147 | ")
    assert last.endswith(" | not measured |")

    # Finished runs are not trained again. With --table nothing trains, and the latency is measured.
    monkeypatch.delattr(capacity.Run, "train")
    status, again, errors = run_main(capacity.main, *command, "--minutes", 1e-6, "--table")
    assert status == 0, errors
    assert again.rstrip().endswith(" ms |")
    assert again.splitlines()[:-1] == tables.splitlines()[:-1]

    # Runs of other lengths or on other photographs make no table with these.
    status, _, errors = run_main(capacity.main, *command, "--minutes", 2)
    assert (status, "minutes was 1e-06, now 2.0; choose another --out" in errors) == (1, True)
    (val / "01.png").write_bytes((photo_folder / "02.png").read_bytes())
    status, _, errors = run_main(capacity.main, *command, "--minutes", 1e-6)
    assert (status, "vals was {" in errors) == (1, True)
    for bad in ("24,x", "24,24", "0"):
        status, _, errors = run_main(capacity.main, *command, "--dims", bad)
        assert (status, "expected different whole numbers like 24,32,40" in errors) == (2, True)
