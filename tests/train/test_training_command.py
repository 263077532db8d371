"""`cisi-train`: a run, its interruption, what `--resume` takes and refuses, and bad input."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cisi_train.checkpoint import load_checkpoint
from cisi_train.cli_train import _what_there_is, main, train
from cisi_train.trainer import Trainer
from tests.conftest import RunMain
from tests.support.training_runs import interrupting, options, stats


def test_the_command(photo_folder: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "run"), "--preset", "tiny", "--steps", "2"]
    arguments += ["--size", "64", "--bf16", "--no-perceptual"]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "18 pictures to train on, 2 held out" in result.output
    assert "best.pt: step 2, held-out centre-hole PSNR" in result.output
    provenance = load_checkpoint(tmp_path / "run" / "best.pt").contract.provenance
    assert (provenance.data, provenance.data_licence) == (photo_folder.name, "not stated")


@pytest.fixture
def interrupted_run(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> tuple[Path, str]:
    """The folder of a run that Ctrl-C ended after two steps, and what the command said."""
    monkeypatch.setattr(Trainer, "train_step", interrupting(Trainer.train_step, 2))
    out = tmp_path / "run"
    arguments = ["--data", photo_folder, "--out", out, "--preset", "tiny", "--steps", 4, "--size", 64, "--batch", 2]
    arguments += ["--no-bf16", "--workers", 0]
    status, _, errors = run_main(main, *arguments, "--no-perceptual", "--permute-colours")
    monkeypatch.undo()
    assert status == 130
    return out, errors


def test_an_interruption_says_what_there_is(interrupted_run: tuple[Path, str]) -> None:
    out, errors = interrupted_run
    assert "error" not in errors
    assert errors.splitlines()[-1] == (
        f"stopped at step 2: {out / 'last.pt'} is of this step; there is no best.pt yet, it comes with the first "
        f"regular checkpoint, at step 500 (--save-every) or at the end; to go on: cisi-train --out {out} --resume; to "
        f"export what there is: cisi-export --ckpt {out / 'averaged.pt'}"
    )
    assert load_checkpoint(out / "last.pt").generator()


def test_resume_takes_the_options_of_the_run(
    interrupted_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    out, _ = interrupted_run
    monkeypatch.chdir(tmp_path)
    saved = json.loads((out / "options.json").read_text())
    status, _, errors = run_main(main, "--resume", "--out", "run", "--save-every", 3)
    assert status == 0, errors
    assert [line for line in errors.splitlines() if " was " in line] == ["--save-every was 500, now 3"]
    assert [line["step"] for line in stats(out)] == [1, 2, 3, 4]
    assert json.loads((out / "options.json").read_text()) == saved | {"resume": True, "save_every": 3}
    # Over; more of it, and then by the clock.
    status, _, errors = run_main(main, "--resume", "--out", out)
    assert (status, "is at step 4 already, expected a larger --steps" in errors) == (1, True)
    status, _, errors = run_main(main, "--out", out, "--resume", "--steps", 5)
    assert (
        status,
        "--steps was 4, now 5: what follows is not what a run with it from the start would have done" in errors,
    ) == (0, True)
    status, _, errors = run_main(main, "--out", out, "--resume", "--minutes", 0.001)
    assert status == 0
    assert "--steps was 5, now not given" in errors
    assert "--minutes was not given, now 0.001" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "small"], "--preset was tiny, now small"),
        (["--batch", 3, "--bf16"], "--batch was 2, now 3, --bf16 was not given, now given"),
        (["--zoom", 1.5], "--zoom was 1.0, now 1.5"),
        (["--vgg", "x.npz"], "--vgg and --no-perceptual exclude each other"),
    ],
)
def test_resume_refuses_what_cannot_change_at_once(
    interrupted_run: tuple[Path, str], run_main: RunMain, arguments: list[object], message: str
) -> None:
    out, _ = interrupted_run
    before = (out / "last.pt").read_bytes()
    status, _, errors = run_main(main, "--out", out, "--resume", *arguments)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert message in errors
    # The same value again is no change.
    status, _, errors = run_main(main, "--out", out, "--resume", "--preset", "tiny", "--steps", 2)
    assert (status, "is at step 2 already" in errors) == (1, True)
    assert (out / "last.pt").read_bytes() == before


def test_the_next_checkpoint_is_named(photo_folder: Path, tmp_path: Path) -> None:
    saving_by_20 = options(photo_folder, tmp_path, save_every=20)
    assert "it comes with the first regular checkpoint, at step 20 " in _what_there_is(saving_by_20, 19)
    assert "it comes with the first regular checkpoint, at step 40 " in _what_there_is(saving_by_20, 35)


def test_resume_where_photographs_or_options_are_gone(
    interrupted_run: tuple[Path, str], photo_folder: Path, run_main: RunMain
) -> None:
    out, _ = interrupted_run
    path = out / "options.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"data": "/gone"}))
    status, _, errors = run_main(main, "--out", out, "--resume")
    assert status == 1
    assert "--data: /gone: no such folder, where the run had its photographs; expected --data" in errors
    path.write_text(json.dumps(saved)[:-9])
    status, _, errors = run_main(main, "--out", out, "--resume")
    assert (status, "options.json: not JSON" in errors) == (1, True)
    path.write_text(json.dumps(saved | {"batch": "many"}))
    status, _, errors = run_main(main, "--out", out, "--resume")
    assert (status, "'--batch': 'many' is not a valid integer" in errors) == (2, True)
    # Without the file the options are named, as for a new run.
    path.unlink()
    status, _, errors = run_main(main, "--out", out, "--resume")
    assert status == 1
    assert "last.pt: no options.json beside it: expected the options of the run, --data first" in errors
    status, _, errors = run_main(main, "--out", out.with_name("none"), "--resume")
    assert (status, "none/last.pt: no such file" in errors) == (1, True)
    status, _, errors = run_main(main, "--out", out)
    assert (status, "Missing option '--data'" in errors) == (2, True)
    arguments = ["--data", photo_folder, "--out", out, "--preset", "tiny", "--steps", 3, "--size", 64, "--batch", 2]
    arguments += ["--no-perceptual", "--no-bf16", "--workers", 0, "--resume"]
    status, _, errors = run_main(main, *arguments)
    assert status == 1
    assert "began otherwise: --permute-colours was True, now False" in errors
    assert run_main(main, *arguments, "--permute-colours")[0] == 0


def test_vgg_is_announced_and_its_absence_explained(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    address = (tmp_path / "nowhere" / "vgg.pth").as_uri()
    monkeypatch.setattr("cisi_train.vgg.URL", address)
    status, _, errors = run_main(main, "--data", photo_folder, "--out", tmp_path / "run", "--preset", "tiny")
    assert status == 1
    notice, error = errors.splitlines()[-2:]
    kept = tmp_path / "cache" / "cisi-net" / "vgg.pth"
    assert f"fetching {address} (553 MB) once, to {kept}; --vgg FILE" in notice
    assert f"--vgg: {address}: cannot be fetched: " in error
    assert "expected a connection, or --vgg FILE with these weights, or --no-perceptual" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--size", "100"], 2, "--size': 100 is not a multiple of 16"),
        (["--resume", "--init", "x.pt"], 2, "--resume and --init exclude each other"),
        (["--data", "missing"], 1, "--data: missing: no such folder"),
        (["--data", "empty"], 1, "--data: empty: no pictures found"),
        (["--out", "file"], 1, "--out: file: the folder cannot be made"),
        (["--init", "missing.pt"], 1, "--init: missing.pt: no such file"),
        (["--resume"], 1, "--resume: run/last.pt: no such file"),
        (["--minutes", "3"], 2, "--steps and --minutes exclude each other"),
        (["--vgg", "missing.npz"], 2, "--vgg and --no-perceptual exclude each other"),
        (["--categories", "butte"], 1, "no pictures of category butte"),
        (["--lr", "nan"], 2, "'--lr': nan is not a finite number"),
        (["--zoom", "nan"], 2, "'--zoom': nan is not a finite number"),
        (["--minutes", "inf"], 2, "'--minutes': inf is not a finite number"),
        (["--zoom", "0.9"], 2, "'--zoom': 0.9 is not in the range"),
        (["--select", "lpips", "--l1-first", "1"], 2, "--select lpips chooses among checkpoints with all losses"),
    ],
)
def test_bad_input(
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_main: RunMain,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    plain = ["--data", photo_folder, "--out", "run", "--preset", "tiny", "--steps", "2", "--no-perceptual"]
    actual_status, _, errors = run_main(main, *plain, *arguments)
    assert actual_status == status
    assert message in errors.splitlines()[-1]
    assert not list(tmp_path.rglob("*.pt"))
