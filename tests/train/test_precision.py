"""The default precision of training."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cisi_train.cli_train import main, train
from tests.conftest import RunMain


@pytest.mark.parametrize(("has_bf16", "named"), [(True, ""), (False, ""), (True, "--no-bf16"), (False, "--bf16")])
def test_it_is_what_the_cpu_computes_unless_named(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_bf16: bool, named: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr("cisi_train.trainer.Trainer.train_step", lambda *_arguments, **_more: {})
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "run"), "--preset", "tiny", "--size", "64"]
    arguments += ["--no-perceptual", "--no-style-losses", "--workers", "0", "--dry-run", *named.split()]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)["options"]["bf16"] is (named == "--bf16" if named else has_bf16)
    default = "bfloat16, by what the device computes; --no-bf16" if has_bf16 else "float32, by what the device computes"
    assert (f"precision {default}" in result.stderr) == (not named)
    assert ("warning: precision bfloat16 is emulated here" in result.stderr) == (named == "--bf16")


def test_recipe_paper_computes_in_float32(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("cisi_train.trainer.Trainer.train_step", lambda *_arguments, **_more: {})
    arguments = ["--data", str(photo_folder), "--out", str(tmp_path / "run"), "--preset", "tiny", "--size", "64"]
    arguments += ["--recipe", "paper", "--no-perceptual", "--workers", "0", "--dry-run"]
    result = CliRunner().invoke(train, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)["options"]["bf16"] is False
    assert "precision float32, by recipe paper; --bf16 for the other one" in result.stderr


def test_a_resumed_run_keeps_its_own(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    arguments = ["--data", photo_folder, "--out", tmp_path, "--preset", "tiny", "--size", 64, "--steps", 1]
    assert run_main(main, *arguments, "--batch", 1, "--no-perceptual", "--no-style-losses", "--workers", 0)[0] == 0
    # On another machine.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    status, _, errors = run_main(main, "--out", tmp_path, "--resume", "--steps", 2)
    assert status == 0, errors
    assert "by what the device computes" not in errors
    assert json.loads((tmp_path / "options.json").read_text())["bf16"] is False
    status, _, errors = run_main(main, "--out", tmp_path, "--resume", "--steps", 3, "--bf16")
    assert (status, "--bf16 was not given, now given" in errors) == (2, True)
