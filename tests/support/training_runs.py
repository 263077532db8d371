"""Training runs of tests: small options, a VGG of random weights, and an interruption in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch

from cisi_train.data import open_folder
from cisi_train.processes import Processes
from cisi_train.recipe import RECIPE_OPTIONS, RECIPES, resolve_recipe
from cisi_train.train_options import TrainOptions
from cisi_train.trainer import Trainer as FolderTrainer
from cisi_train.vgg import VggFeatures


class Trainer(FolderTrainer):
    """With the folder that its options name, and a VGG of random weights."""

    def __init__(self, options: TrainOptions) -> None:
        torch.manual_seed(5)
        vgg = VggFeatures() if options.perceptual else None
        super().__init__(options, open_folder(options.data), vgg, Processes(options.device))


def options(data: Path, out: Path, **changes: Any) -> TrainOptions:
    """Six steps of preset tiny in float32, with options of the run and of its recipe changed."""
    plain = TrainOptions(
        data=data,
        out=out,
        preset="tiny",
        steps=6,
        minutes=None,
        batch=2,
        size=64,
        lr=1e-3,
        seed=1,
        zoom=1.0,
        permute_colours=False,
        categories=(),
        experiment="full",
        l1_first=0.0,
        recipe_name="ours",
        recipe=RECIPES["ours"],
        perceptual=False,
        vgg=None,
        lpips=None,
        save_every=3,
        workers=0,
        threads=0,
        data_name="made",
        data_licence="CC0",
        bf16=False,
        compile=False,
        device="cpu",
        resume=False,
        init=None,
    )
    named = {name: changes.pop(name) for name in RECIPE_OPTIONS if name in changes}
    return dataclasses.replace(plain, recipe=resolve_recipe("ours", named), **changes)


def stats(out: Path) -> list[dict[str, float]]:
    """The lines of `stats.jsonl`."""
    return [json.loads(line) for line in (out / "stats.jsonl").read_text().splitlines()]


def interrupting(train_step: Any, last: int) -> Any:
    """`Trainer.train_step` with a Ctrl-C in step `last`."""

    def step(trainer: FolderTrainer, *batch: torch.Tensor, progress: float) -> Any:
        losses = train_step(trainer, *batch, progress=progress)
        if trainer.state.step == last - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    return step
