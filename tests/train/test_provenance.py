"""What weights say of the photographs that they were trained on."""

import dataclasses
from pathlib import Path

import torch

from cisi_train.checkpoint import load_checkpoint
from tests.support.training_runs import Trainer, options


def test_init_starts_from_weights_and_counts_their_steps(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint_path: Path
) -> None:
    trainer = Trainer(options(photo_folder, tmp_path, init=tiny_checkpoint_path))
    weights = load_checkpoint(tiny_checkpoint_path).weights
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.state.generator.state_dict().items())
    trainer.run()
    provenance = load_checkpoint(tmp_path / "best.pt").contract.provenance
    assert provenance.steps == 7 + 6
    assert provenance.images == 3 + 18
    assert provenance.data == "made for tests; then made"
    assert provenance.data_licence == "CC0; then CC0"


def test_more_steps_on_the_same_data_keep_its_provenance(photo_folder: Path, tmp_path: Path) -> None:
    Trainer(options(photo_folder, tmp_path / "a", data_name="name", data_licence="licence")).run()
    init = tmp_path / "a" / "last.pt"
    Trainer(options(photo_folder, tmp_path / "b", init=init, data_name=None, data_licence=None)).run()
    first, second = (load_checkpoint(tmp_path / run / "last.pt").contract.provenance for run in "ab")
    assert second == dataclasses.replace(first, steps=12)


def test_other_photographs_of_the_same_names_keep_their_name_and_licence(photo_folder: Path, tmp_path: Path) -> None:
    """Names alone do not tell photographs apart: `00.png` is in many folders."""
    named = {"a": ("A", "CC0"), "b": ("B", "all rights reserved"), "c": ("B", "all rights reserved"), "d": (None, None)}
    init, provenance = None, None
    for run, (name, licence) in named.items():
        Trainer(
            options(
                photo_folder, tmp_path / run, init=init, data_name=name, data_licence=licence, steps=1, save_every=1
            )
        ).run()
        init = tmp_path / run / "last.pt"
        provenance = load_checkpoint(init).contract.provenance
    assert provenance is not None
    assert (provenance.data, provenance.data_licence) == ("A; then B", "CC0; then all rights reserved")
    assert (provenance.images, provenance.steps) == (2 * 18, 4)
