"""What `cisi-train` was asked to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from cisi_train.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of a training run, written to `options.json` in the output folder.

    data, categories: folder of photographs, and the scene categories to take from it (empty: all).
    out: folder for checkpoints and reports.
    preset: name of the architecture.
    steps, minutes: length of the run; one of them is None.
    batch: pictures for each step and process.
    size: side of the crops in pixels.
    lr: Adam's learning rate; Muon has 20 times as much.
    seed: of weights, crops and holes.
    zoom: enlarge each photograph by a random factor from 1 to this.
    permute_colours: exchange red, green and blue of every other crop at random.
    experiment: row of the paper's internal analysis, a key of `EXPERIMENTS`.
    l1_first: first fraction of the run that has image and code losses alone.
    recipe_name, recipe: the recipe, and what became of it by the options that were named.
    perceptual, vgg: whether the perceptual loss counts, and the file of its weights (None: the published file).
    lpips: file of the weights of LPIPS, for selecting by it (None: the published ones).
    save_every: steps between checkpoints.
    workers: processes that read pictures.
    threads: on the CPU, 0 for all cores.
    data_name, data_licence: for the provenance.
    bf16: convolutions and linear layers in bfloat16.
    compile: use torch.compile.
    device: "cpu" or "cuda".
    resume: continue from `out/last.pt`.
    init: checkpoint whose weights the run starts from.
    """

    data: Path
    out: Path
    preset: str
    steps: int | None
    minutes: float | None
    batch: int
    size: int
    lr: float
    seed: int
    zoom: float
    permute_colours: bool
    categories: tuple[str, ...]
    experiment: str
    l1_first: float
    recipe_name: str
    recipe: Recipe
    perceptual: bool
    vgg: Path | None
    lpips: Path | None
    save_every: int
    workers: int
    threads: int
    data_name: str | None
    data_licence: str | None
    bf16: bool
    compile: bool
    device: str
    resume: bool
    init: Path | None

    def as_json(self) -> dict[str, Any]:
        """The options by their names on the command line.

        Paths are text, and absolute: a run may be resumed from another folder.
        """
        values = dataclasses.asdict(self)
        values |= values.pop("recipe") | {"recipe": values.pop("recipe_name")}
        return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}
