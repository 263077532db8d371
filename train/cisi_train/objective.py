"""What the two steps of an iteration minimise, and which networks each of them updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cisi_train.colour_statistics import ColourStatistics
from cisi_train.losses import (
    HOLE_WEIGHT,
    latent_l1,
    lsgan_discriminator,
    lsgan_generator,
    perceptual_l1,
    style_alignment,
    style_colour,
    style_spread,
    weighted_l1,
    weighted_psnr,
)
from cisi_train.network import Discriminator, Generator, composite, corrupt
from cisi_train.recipe import Recipe
from cisi_train.vgg import VggFeatures, feature_masks

# Weights of the losses by their names in the statistics. The perceptual ones have the recipe's, all others 1.
_IMAGE_WEIGHT = 10.0
_IMAGE_LOSSES = ("reconstructed_l1", "inpainted_l1", "inpainted_psnr", "swapped_l1", "swapped_psnr")
_PERCEPTUAL_LOSSES = ("reconstructed_vgg", "inpainted_vgg", "swapped_vgg")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A row of the paper's internal analysis.

    separation: a style code beside the content code. Without it the decoder has one style for all pictures, and there
        is no self-reconstruction.
    guidance: latent losses on content.
    hole_weight: weight of the hole in image and feature losses; 1 for no weighted loss.
    """

    separation: bool = True
    guidance: bool = True
    hole_weight: float = HOLE_WEIGHT


EXPERIMENTS = {
    "full": Experiment(),
    "1": Experiment(separation=False, guidance=False, hole_weight=1.0),
    "2": Experiment(guidance=False, hole_weight=1.0),
    "3": Experiment(hole_weight=1.0),
}


class Objective:
    """The losses of one batch, as dictionaries of scalars. `total` weights and adds them.

    Images are `[N, 3, S, S]` in [-1, 1], holes `[N, 2, 1, S, S]` in {0, 1}: a pair of corruptions of each image.
    vgg: None for no perceptual loss. recipe: see `Recipe`. colours: of the data, for the style losses; None without
    them.

    `l1_only` leaves out the perceptual, adversarial, re-encoding and mutual losses: a step is then 2.7 times as fast.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        vgg: VggFeatures | None,
        experiment: Experiment,
        recipe: Recipe,
        colours: ColourStatistics | None,
    ) -> None:
        self.generator, self.discriminator, self.vgg = generator, discriminator, vgg
        self.experiment, self.recipe, self.colours = experiment, recipe, colours
        self._image_loss = {"l1": weighted_l1, "psnr": weighted_psnr}[recipe.image_loss]
        self._weights = dict.fromkeys(_IMAGE_LOSSES, _IMAGE_WEIGHT)
        self._weights |= dict.fromkeys(_PERCEPTUAL_LOSSES, recipe.perceptual_weight)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that a step minimises."""
        return torch.stack([self._weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def self_content_parameters(self) -> list[nn.Parameter]:
        """What the first step updates: SCE, SE and decoder."""
        network = self.generator
        return [p for part in (network.self_content, network.style, network.decoder) for p in part.parameters()]

    def inferred_content_parameters(self) -> list[nn.Parameter]:
        """What the second step updates: ICE, SE and decoder. SCE is held fixed (paper, "Implementation Details")."""
        network = self.generator
        return [p for part in (network.inferred_content, network.style, network.decoder) for p in part.parameters()]

    def features(self, image: Tensor) -> list[Tensor] | None:
        """VGG features of the ground truth, which both steps use; None without perceptual loss."""
        if self.vgg is None:
            return None
        with torch.no_grad():
            features: list[Tensor] = self.vgg(image)
        return features

    def self_content(self, image: Tensor, features: Sequence[Tensor] | None, *, l1_only: bool) -> dict[str, Tensor]:
        """Self-consistency: image to codes to image, and back to the same codes (Figure 1a).

        The content code of the image is a fixed target here: the code of the generated image moves towards it, and it
        does not move towards that.
        """
        content, style = self.generator.self_content(image), self._style_of_complete(image)
        generated = self.generator.decoder(content, style)
        losses = {"reconstructed_l1": weighted_l1(generated, image, _no_hole(image))}
        if l1_only:
            return losses
        if self.vgg is not None and features is not None:
            everywhere = [torch.zeros_like(layer[:, :1]) for layer in features]
            losses["reconstructed_vgg"] = perceptual_l1(self.vgg(generated), features, everywhere)
        if self.experiment.guidance:
            losses["reencoded_content"] = latent_l1(self.generator.self_content(generated), content.detach())
        losses["reencoded_style"] = latent_l1(self._style_of_complete(generated), style)
        return losses

    def inferred_content(
        self, image: Tensor, holes: Tensor, features: Sequence[Tensor] | None, *, l1_only: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inferring- and mutual consistency of a pair of corruptions (Figure 1b, 1c).

        Also returns the images that the discriminator judges, `[2N, 3, S, S]`: all images with their first hole, then
        all with the second.
        """
        network, experiment = self.generator, self.experiment
        pair, mask = torch.cat([image, image]), torch.cat([holes[:, 0], holes[:, 1]])
        corrupted = corrupt(pair, mask)
        content, style = network.inferred_content(corrupted), self._style(corrupted)
        generated = network.decoder(content, style)
        judged = composite(pair, generated, mask) if self.recipe.discriminator_input == "composite" else generated
        kind = self.recipe.image_loss
        losses = {f"inpainted_{kind}": self._image_loss(generated, pair, mask, experiment.hole_weight)}
        if experiment.guidance:
            with torch.no_grad():
                true_content = network.self_content(image).repeat(2, 1, 1, 1)
            losses["content_l1"] = latent_l1(content, true_content)
        if experiment.separation:
            true_style = self._style_of_complete(image)
            losses["style_l1"] = latent_l1(style, true_style.repeat(2, 1))
            if self.colours is not None:
                losses["style_spread"] = style_spread(true_style)
                losses["style_alignment"] = style_alignment(true_style)
                losses["style_colour"] = style_colour(true_style, image, self.colours)
        if l1_only:
            return losses, judged
        if self.vgg is not None and features is not None:
            twice = [layer.repeat(2, 1, 1, 1) for layer in features]
            losses["inpainted_vgg"] = perceptual_l1(
                self.vgg(generated), twice, feature_masks(mask), experiment.hole_weight
            )
        losses["adversarial"] = lsgan_generator(self.discriminator(judged), self.discriminator.hole_patches(mask))
        if experiment.guidance:
            losses["completed_content"] = latent_l1(network.self_content(judged), true_content)
            losses["mutual_content"] = latent_l1(*content.chunk(2))
        if experiment.separation:
            losses["completed_style"] = latent_l1(self._style_of_complete(judged), true_style.repeat(2, 1))
            losses["mutual_style"] = latent_l1(*style.chunk(2))
            swapped = network.decoder(_swap_pair(content), style)
            losses[f"swapped_{kind}"] = self._image_loss(swapped, pair, _swap_pair(mask), experiment.hole_weight)
            if self.recipe.swapped_perceptual and self.vgg is not None and features is not None:
                losses["swapped_vgg"] = perceptual_l1(
                    self.vgg(swapped), twice, feature_masks(_swap_pair(mask)), experiment.hole_weight
                )
        return losses, judged

    def adversary(self, image: Tensor, holes: Tensor, judged: Tensor) -> dict[str, Tensor]:
        """The discriminator's loss on images `[2N, 3, S, S]` as `inferred_content` returns them."""
        mask = torch.cat([holes[:, 0], holes[:, 1]])
        real = [realness.repeat(2, 1, 1, 1) for realness in self.discriminator(image)]
        fake = self.discriminator(judged.detach())
        return {"discriminator": lsgan_discriminator(real, fake, self.discriminator.hole_patches(mask))}

    def _style_of_complete(self, image: Tensor) -> Tensor:
        return self._style(corrupt(image, _no_hole(image)))

    def _style(self, corrupted: Tensor) -> Tensor:
        if not self.experiment.separation:
            return corrupted.new_zeros(len(corrupted), self.generator.style.to_code.out_features)
        style: Tensor = self.generator.style(corrupted)
        return style


def _no_hole(image: Tensor) -> Tensor:
    return torch.zeros_like(image[:, :1])


def _swap_pair(x: Tensor) -> Tensor:
    """The two halves of a batch exchanged: each image gets what belongs to its other corruption."""
    return x.roll(len(x) // 2, dims=0)
