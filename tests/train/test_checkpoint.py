import os
import pickle
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import REVISION, Contract
from cisi_runtime.errors import CheckpointError
from cisi_train.checkpoint import load_checkpoint, save_checkpoint, weights_sha256
from cisi_train.network import Generator
from tests.support.networks import provenance

FOREIGN = "not a checkpoint of cisi-net, expected a file written by cisi-train"


def test_round_trip(tmp_path: Path) -> None:
    weights = Generator(PRESETS["tiny"]).state_dict()
    save_checkpoint(
        tmp_path / "c.pt",
        Contract(PRESETS["tiny"], provenance()),
        weights,
        configuration={"lr": 0.1},
        training={"step": 5},
    )
    checkpoint = load_checkpoint(tmp_path / "c.pt")
    assert checkpoint.contract.provenance == provenance()
    assert checkpoint.contract.weights_sha256 == weights_sha256(weights)
    assert checkpoint.training == {"step": 5}
    assert checkpoint.configuration == {"lr": 0.1}
    for name, tensor in checkpoint.generator().state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_float16_weights_are_rounded_and_hashed_as_rounded(tmp_path: Path) -> None:
    weights = Generator(PRESETS["tiny"]).state_dict()
    contract = Contract(PRESETS["tiny"], provenance())
    save_checkpoint(tmp_path / "full.pt", contract, weights, configuration={})
    save_checkpoint(tmp_path / "half.pt", contract, weights, configuration={}, as_float16=True)
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * (tmp_path / "full.pt").stat().st_size
    checkpoint = load_checkpoint(tmp_path / "half.pt")
    for name, tensor in checkpoint.weights.items():
        assert torch.equal(tensor, weights[name].half().float())
    assert checkpoint.contract.weights_sha256 != weights_sha256(weights)
    weights["style.to_code.bias"][0] = 1e6
    with pytest.raises(CheckpointError, match="not written, .* not finite in float16: style.to_code.bias"):
        save_checkpoint(tmp_path / "half.pt", contract, weights, configuration={}, as_float16=True)
    assert load_checkpoint(tmp_path / "half.pt").contract == checkpoint.contract


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "cisi-net checkpoint", "contract": Malicious(), "weights": {}}, tmp_path / "evil.pt")
    with (tmp_path / "plain.pt").open("wb") as file:
        pickle.dump(Malicious(), file)
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_foreign_files(tmp_path: Path, tiny_checkpoint_path: Path) -> None:
    torch.save({"state_dict": Generator(PRESETS["tiny"]).state_dict()}, tmp_path / "other.pt")
    content = torch.load(tiny_checkpoint_path, weights_only=True)
    torch.save(content | {"weights": {"a": 1}}, tmp_path / "numbers.pt")
    torch.save(content | {"training": 3}, tmp_path / "training.pt")
    (tmp_path / "text.pt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as file:
        file.writestr("a", "b")
    torch.save(content | {"configuration": {"ratio": Fraction(1, 2)}}, tmp_path / "fraction.pt")
    messages = dict.fromkeys(("other.pt", "text.pt", "numbers.pt", "training.pt"), FOREIGN)
    unreadable = {
        "zip.pt": "cannot be read as a checkpoint: file in archive is not in a subdirectory: a",
        "fraction.pt": "cannot be read as a checkpoint: it holds 'fractions Fraction', expected tensors of .*",
    }
    for name, message in (messages | unreadable).items():
        with pytest.raises(CheckpointError, match=f"{name}: {message}$") as caught:
            load_checkpoint(tmp_path / name)
        assert str(caught.value).isprintable()  # one line, no escape codes
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "missing.pt")


def test_truncated_and_damaged_files(tmp_path: Path, tiny_checkpoint_path: Path) -> None:
    data = tiny_checkpoint_path.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"cut.pt"):
        load_checkpoint(tmp_path / "cut.pt")
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 0xFF
    (tmp_path / "damaged.pt").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"damaged.pt: (cannot be read|the weights are not those)"):
        load_checkpoint(tmp_path / "damaged.pt")


def test_a_newer_revision_says_what_to_do(
    tmp_path: Path, tiny_checkpoint_path: Path, rewritten_contract: Callable[..., str]
) -> None:
    content = torch.load(tiny_checkpoint_path, weights_only=True)
    content["contract"] = rewritten_contract(revision=REVISION + 1)
    torch.save(content, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match=r"new.pt: .*newer than .*install a newer cisi-net"):
        load_checkpoint(tmp_path / "new.pt")


def test_weights_that_do_not_fit(tmp_path: Path, tiny_checkpoint_path: Path) -> None:
    content = torch.load(tiny_checkpoint_path, weights_only=True)
    content["weights"]["style.to_code.bias"] = torch.zeros(9)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="1 weights do not fit the architecture, the first is style.to_code.bias"):
        load_checkpoint(tmp_path / "c.pt")
