"""Which loss reaches which network, and what the pairs of corruptions mean."""

import pytest
import torch
from torch import Tensor

from cisi_runtime.architecture import PRESETS
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.losses import latent_l1, perceptual_l1, weighted_l1, weighted_psnr
from cisi_train.network import Discriminator, Generator, corrupt
from cisi_train.objective import EXPERIMENTS, Objective
from cisi_train.recipe import RECIPES, ImageLoss, Recipe
from cisi_train.vgg import VggFeatures, feature_masks


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(3)
    return make_objective(RECIPES["ours"])


COLOURS = ColourStatistics(mean=(-0.1, 0.0, 0.05, 0.4), std=(0.3, 0.3, 0.2, 0.1))


def make_objective(recipe: Recipe) -> Objective:
    networks = Generator(PRESETS["tiny"]), Discriminator(PRESETS["tiny"]), VggFeatures()
    colours = COLOURS if recipe.style_losses else None
    return Objective(*networks, EXPERIMENTS["full"], recipe, colours)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    image = torch.rand(4, 3, 64, 64, generator=rng) * 2 - 1
    holes = torch.zeros(4, 2, 1, 64, 64)
    holes[:, 0, :, 8:40, 8:40] = 1.0
    holes[:, 1, :, 30:60, 20:50] = 1.0
    return image, holes


def touched(objective: Objective) -> set[str]:
    """Networks with a gradient in any parameter."""
    parts = {**dict(objective.generator.named_children()), "discriminator": objective.discriminator}
    return {name for name, part in parts.items() if any(p.grad is not None and p.grad.any() for p in part.parameters())}


def test_the_self_content_step_reaches_sce_style_and_decoder(
    objective: Objective, batch: tuple[Tensor, Tensor]
) -> None:
    losses = objective.self_content(batch[0], objective.features(batch[0]), l1_only=False)
    assert set(losses) == {"reconstructed_l1", "reconstructed_vgg", "reencoded_content", "reencoded_style"}
    objective.total(losses).backward(inputs=objective.self_content_parameters())
    assert touched(objective) == {"self_content", "style", "decoder"}


def test_the_content_code_of_the_photograph_is_a_fixed_target(
    objective: Objective, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, codes = objective.generator, []
    encode, decode = network.self_content.forward, network.decoder.forward

    def recorded(image: Tensor) -> Tensor:
        codes.append(encode(image))
        return codes[-1]

    monkeypatch.setattr(network.self_content, "forward", recorded)
    # Otherwise the loss reaches the photograph's code through the generated image.
    monkeypatch.setattr(network.decoder, "forward", lambda content, style: decode(content.detach(), style))
    loss = objective.self_content(batch[0], None, l1_only=False)["reencoded_content"]
    of_photograph, of_generated = codes
    to_photograph, to_generated = torch.autograd.grad(loss, (of_photograph, of_generated), allow_unused=True)
    assert to_photograph is None
    assert to_generated is not None


def test_the_inferred_content_step_leaves_sce_and_discriminator_alone(
    objective: Objective, batch: tuple[Tensor, Tensor]
) -> None:
    losses, completed = objective.inferred_content(*batch, objective.features(batch[0]), l1_only=False)
    objective.total(losses).backward(inputs=objective.inferred_content_parameters())
    assert touched(objective) == {"inferred_content", "style", "decoder"}
    for parameter in objective.generator.parameters():
        parameter.grad = None
    objective.total(objective.adversary(*batch, completed)).backward(inputs=list(objective.discriminator.parameters()))
    assert touched(objective) == {"discriminator"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inpainted_psnr", {"inferred_content", "style", "decoder"}),
        ("inpainted_vgg", {"inferred_content", "style", "decoder"}),
        ("adversarial", {"inferred_content", "style", "decoder"}),
        ("swapped_psnr", {"inferred_content", "style", "decoder"}),
        ("completed_content", {"inferred_content", "style", "decoder"}),
        ("completed_style", {"inferred_content", "style", "decoder"}),
        ("content_l1", {"inferred_content"}),
        ("mutual_content", {"inferred_content"}),
        ("style_l1", {"style"}),
        ("mutual_style", {"style"}),
        ("style_spread", {"style"}),
        ("style_alignment", {"style"}),
        ("style_colour", {"style"}),
    ],
)
def test_what_each_loss_of_the_second_step_teaches(
    objective: Objective, batch: tuple[Tensor, Tensor], name: str, expected: set[str]
) -> None:
    losses, _ = objective.inferred_content(*batch, objective.features(batch[0]), l1_only=False)
    losses[name].backward(inputs=objective.inferred_content_parameters())
    assert touched(objective) == expected


def test_swapped_content_codes_by_hand(objective: Objective, batch: tuple[Tensor, Tensor]) -> None:
    (image, holes), network = batch, objective.generator
    losses, completed = objective.inferred_content(image, holes, None, l1_only=False)
    first, second = (corrupt(image, holes[:, i]) for i in range(2))
    content, style = [network.inferred_content(x) for x in (first, second)], [network.style(x) for x in (first, second)]
    swapped = [network.decoder(content[1], style[0]), network.decoder(content[0], style[1])]
    by_hand = (weighted_psnr(swapped[0], image, holes[:, 1]) + weighted_psnr(swapped[1], image, holes[:, 0])) / 2
    assert losses["swapped_psnr"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert losses["mutual_content"].item() == pytest.approx(latent_l1(*content).item(), rel=1e-5)
    assert losses["mutual_style"].item() == pytest.approx(latent_l1(*style).item(), rel=1e-5)
    known = (holes[:, 1] < 0.5).expand_as(image)
    assert torch.equal(completed[4:][known], image[known])
    assert losses["completed_content"].item() == pytest.approx(
        latent_l1(network.self_content(completed), network.self_content(image).repeat(2, 1, 1, 1)).item(), rel=1e-5
    )


def test_one_style_for_all_pictures_without_separation(objective: Objective, batch: tuple[Tensor, Tensor]) -> None:
    plain = Objective(objective.generator, objective.discriminator, None, EXPERIMENTS["1"], RECIPES["ours"], COLOURS)
    losses, _ = plain.inferred_content(*batch, None, l1_only=False)
    assert set(losses) == {"inpainted_psnr", "adversarial"}
    plain.total(losses).backward(inputs=plain.inferred_content_parameters())
    assert touched(plain) == {"inferred_content", "decoder"}


def test_the_total_is_the_weighted_sum(objective: Objective) -> None:
    losses = {"inpainted_psnr": torch.tensor(0.5), "inpainted_vgg": torch.tensor(2.0), "style_l1": torch.tensor(0.25)}
    assert objective.total(losses).item() == pytest.approx(10 * 0.5 + 0.1 * 2.0 + 0.25)


@pytest.mark.parametrize("loss", ["l1", "psnr"])
def test_images_with_a_hole_have_the_loss_of_the_recipe(batch: tuple[Tensor, Tensor], loss: ImageLoss) -> None:
    objective, (image, holes) = make_objective(Recipe(image_loss=loss)), batch
    losses, _ = objective.inferred_content(image, holes, None, l1_only=True)
    pair, mask = torch.cat([image, image]), torch.cat([holes[:, 0], holes[:, 1]])
    corrupted = corrupt(pair, mask)
    network = objective.generator
    generated = network.decoder(network.inferred_content(corrupted), network.style(corrupted))
    by_hand = {"l1": weighted_l1, "psnr": weighted_psnr}[loss](generated, pair, mask, 5.0)
    assert losses[f"inpainted_{loss}"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    # The same holes have the same weight beside the code losses, whatever the loss.
    assert objective.total({f"inpainted_{loss}": by_hand}).item() == pytest.approx(10.0 * by_hand.item())


def test_the_papers_objective(batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(3)
    paper, (image, holes) = make_objective(RECIPES["paper"]), batch
    losses, judged = paper.inferred_content(image, holes, paper.features(image), l1_only=False)
    assert {name for name in losses if name.startswith("style_")} == {"style_l1"}
    assert "swapped_vgg" in losses
    # Discriminator and encoders look at what the decoder made, known pixels included.
    network, pair, mask = paper.generator, torch.cat([image, image]), torch.cat([holes[:, 0], holes[:, 1]])
    corrupted = corrupt(pair, mask)
    content, style = network.inferred_content(corrupted), network.style(corrupted)
    generated = network.decoder(content, style)
    assert torch.equal(judged, generated)
    assert losses["completed_content"].item() == pytest.approx(
        latent_l1(network.self_content(generated), network.self_content(image).repeat(2, 1, 1, 1)).item(), rel=1e-5
    )
    swapped = network.decoder(content.roll(4, 0), style)
    assert paper.vgg is not None
    by_hand = perceptual_l1(
        paper.vgg(swapped), [layer.repeat(2, 1, 1, 1) for layer in paper.vgg(image)], feature_masks(mask.roll(4, 0))
    )
    assert losses["swapped_vgg"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    only = {"inpainted_l1": torch.tensor(0.5), "swapped_vgg": torch.tensor(2.0)}
    assert paper.total(only).item() == pytest.approx(10 * 0.5 + 1.0 * 2.0)


def test_the_composite_keeps_known_pixels_and_ours_has_no_swapped_perceptual_loss(
    objective: Objective, batch: tuple[Tensor, Tensor]
) -> None:
    image, holes = batch
    losses, judged = objective.inferred_content(image, holes, objective.features(image), l1_only=False)
    known = (torch.cat([holes[:, 0], holes[:, 1]]) < 0.5).expand_as(judged)
    assert torch.equal(judged[known], torch.cat([image, image])[known])
    assert "swapped_vgg" not in losses
