"""Two ways to train: the paper's, and ours for small budgets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

RateSchedule = Literal["annealed", "constant"]
DiscriminatorInput = Literal["composite", "direct"]
Optimiser = Literal["muon", "adam"]
ImageLoss = Literal["psnr", "l1"]
Selection = Literal["psnr", "lpips", "last"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What differs between the two ways. docs/recipes.md has the reason of each, and what of it was measured.

    holes: kind of holes, one of `HOLES`.
    optimiser: of the generator. "muon" trains the hidden weights with Muon and the others with Adam.
    rate_schedule: "annealed" rises over 50 steps and falls to zero over the last 30 % of the run.
    style_losses: spread, alignment and colour of the style codes, which the paper does not have.
    image_loss: of images that have a hole. That of the reconstruction is L1.
    perceptual_weight: of the perceptual loss, beside 10 for the image loss.
    swapped_perceptual: the perceptual loss counts for images of swapped content codes too, not the image loss alone.
    discriminator_input: what the discriminator and the re-encoding losses look at. "direct" is the decoder's whole
        output, "composite" has the known pixels of the picture.
    select: what makes a checkpoint the best one; "last" is the newest.
    average: export a moving average of the weights instead of the weights.
    """

    holes: str = "mixed"
    optimiser: Optimiser = "muon"
    rate_schedule: RateSchedule = "annealed"
    style_losses: bool = True
    image_loss: ImageLoss = "psnr"
    perceptual_weight: float = 0.1
    swapped_perceptual: bool = False
    discriminator_input: DiscriminatorInput = "composite"
    select: Selection = "psnr"
    average: bool = True

    def __str__(self) -> str:
        parts = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in dataclasses.asdict(self).items()]
        return ", ".join(parts)


RECIPES = {
    "ours": Recipe(),
    "paper": Recipe(
        holes="paper",
        optimiser="adam",
        rate_schedule="constant",
        style_losses=False,
        image_loss="l1",
        perceptual_weight=1.0,
        swapped_perceptual=True,
        discriminator_input="direct",
        select="last",
        average=False,
    ),
}
# What runs had that began before there was a choice, whatever their recipe says today.
BEFORE_CHOICE = {"image_loss": "l1"}
# The options of `cisi-train` that a recipe decides, where they are not named.
RECIPE_OPTIONS = tuple(field.name for field in dataclasses.fields(Recipe))


def resolve_recipe(name: str, named: dict[str, Any]) -> Recipe:
    """A recipe with the options that were named; those that are None are the recipe's."""
    return dataclasses.replace(RECIPES[name], **{key: value for key, value in named.items() if value is not None})


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
