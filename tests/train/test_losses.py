import math

import pytest
import torch

from cisi_train.colour_statistics import ColourStatistics
from cisi_train.losses import (
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


def test_weighted_l1_by_hand() -> None:
    image = torch.zeros(2, 3, 2, 2)
    generated = image.clone()
    generated[0, :, 0, 0] = 0.5  # in the hole: weight 5
    generated[0, :, 1, 1] = -0.25  # known: weight 1
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0, 0] = 1.0
    assert weighted_l1(generated, image, mask).item() == pytest.approx((5 * 0.5 + 0.25) / 4 / 2)
    assert weighted_l1(generated, image, torch.zeros_like(mask)).item() == pytest.approx(0.75 / 4 / 2)


def test_weighted_psnr_by_hand() -> None:
    image = torch.zeros(2, 3, 2, 2)
    generated = image.clone()
    generated[0, :, 0, 0] = 0.5  # in the hole: weight 5
    generated[0, :, 1, 1] = -0.25  # known: weight 1
    generated[1, 0] = 0.3
    mask = torch.zeros(2, 1, 2, 2)
    mask[0, 0, 0, 0] = 1.0
    errors = (5 * 0.25 + 0.0625) / 4, 0.09 / 3
    expected = 0.2 * (math.log(errors[0]) + math.log(errors[1])) / 2
    assert weighted_psnr(generated, image, mask).item() == pytest.approx(expected)


def test_weighted_psnr_pulls_an_image_that_is_all_right_nowhere() -> None:
    generated = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = weighted_psnr(generated, torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2))
    loss.backward()
    assert generated.grad is not None
    assert not generated.grad.any()
    assert loss.item() == pytest.approx(0.2 * math.log(1e-4))


def test_it_pulls_as_far_as_l1_where_a_hole_is_filled_to_16_db() -> None:
    generated = torch.full((1, 3, 8, 8), 2 * 10 ** (-16 / 20), requires_grad=True)
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1.0
    known_right = generated * mask
    gradients = [
        torch.autograd.grad(loss(known_right, image, mask), generated, retain_graph=True)[0].abs().sum().item()
        for loss in (weighted_psnr, weighted_l1)
    ]
    assert gradients[0] == pytest.approx(gradients[1], rel=0.05)


def test_a_mean_over_images_of_means() -> None:
    generated, image = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    mask = (torch.rand(4, 1, 8, 8) < 0.5).float()
    halves = [weighted_l1(generated[i], image[i], mask[i]) for i in (slice(0, 2), slice(2, 4))]
    assert torch.stack(halves).mean().item() == pytest.approx(weighted_l1(generated, image, mask).item())
    halves = [weighted_psnr(generated[i], image[i], mask[i]) for i in (slice(0, 2), slice(2, 4))]
    assert torch.stack(halves).mean().item() == pytest.approx(weighted_psnr(generated, image, mask).item())


def test_latent_l1_by_hand_and_both_ends_get_gradients() -> None:
    code, target = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 4.0]], requires_grad=True)
    loss = latent_l1(code, target)
    assert loss.item() == 1.5
    loss.backward()
    assert code.grad is not None
    assert target.grad is not None
    assert code.grad.tolist() == [[0.5, -0.5]]
    assert target.grad.tolist() == [[-0.5, 0.5]]


def test_perceptual_l1_by_hand() -> None:
    one, other = torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 1, 1)
    generated = [one.clone(), other.clone()]
    generated[0][0, 1, 0, 0] = 2.0  # in the hole
    generated[0][0, 0, 1, 1] = -1.0  # known
    generated[1][...] = 3.0
    masks = [torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), torch.ones(1, 1, 1, 1)]
    first, second = (5 * 2.0 + 1.0) / 8, 5 * 3.0
    assert perceptual_l1(generated, [one, other], masks).item() == pytest.approx((first + second) / 2)
    assert perceptual_l1(generated, [one, other], masks, 1.0).item() == pytest.approx((3.0 / 8 + 3.0) / 2)


def test_style_spread_by_hand() -> None:
    style = torch.tensor([[0.0, 0.0], [0.5, 0.1], [0.0, 0.0], [3.0, 0.0], [9.0, 9.0]], requires_grad=True)
    # Pairs (0, 1), 0.3 apart, and (2, 3), far enough; the fifth has no partner and counts 0.
    loss = style_spread(style)
    assert loss.item() == pytest.approx(2 * 0.7 / 5)
    loss.backward()
    assert style.grad is not None
    assert (style.grad[0] > 0).all()  # a step against the gradient takes the first pair apart
    assert (style.grad[1] < 0).all()
    assert not style.grad[2:].any()
    assert style_spread(style[:1]).item() == 0.0
    halves = torch.stack([style_spread(style[:2]), style_spread(style[2:4])]).mean()
    assert halves.item() == pytest.approx(style_spread(style[:4]).item())


def test_style_alignment_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 3.0], [3.0, 0.0]], requires_grad=True)
    loss = style_alignment(first)
    assert loss.item() == pytest.approx(0.5)  # 45 degrees
    loss.backward()
    assert first.grad is not None
    assert first.grad.abs().max() > 0.1
    line = torch.arange(4.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert style_alignment(line).item() == pytest.approx(1.0)
    isotropic = torch.randn(40_000, 8, generator=torch.Generator().manual_seed(0))
    assert style_alignment(isotropic).item() == pytest.approx(1 / 8, abs=0.01)
    assert style_alignment(line[:3]).item() == 0.0
    eight = torch.cat([first.detach(), torch.zeros(4, 2)])  # equal codes: no direction, and no NaN
    assert style_alignment(eight).item() == pytest.approx(0.25)


def test_style_colour_by_hand() -> None:
    image = torch.tensor([0.6, -0.2, -0.1])[None, :, None, None].repeat(2, 1, 4, 4)
    image[1, :, :2], image[1, :, 2:] = -1.0, 1.0
    style = torch.zeros(2, 8, requires_grad=True)
    # One colour: brightness 0.1, red - blue 0.7, green - both -0.45, contrast 0. Black and white: contrast 1.
    statistics = ColourStatistics(mean=(-0.11, 0.0, 0.0, 0.41), std=(0.30, 0.30, 0.18, 0.13))
    by_hand = [0.21 / 0.30, 0.7 / 0.30, -0.45 / 0.18, -0.41 / 0.13], [0.11 / 0.30, 0.0, 0.0, 0.59 / 0.13]
    assert style_colour(style[:1], image[:1], statistics).item() == pytest.approx(
        sum(map(abs, by_hand[0])) / 4, rel=1e-5
    )
    assert style_colour(style[1:], image[1:], statistics).item() == pytest.approx(
        sum(map(abs, by_hand[1])) / 4, rel=1e-5
    )
    told = torch.cat([torch.tensor(by_hand), torch.full((2, 4), 9.0)], dim=1)
    assert style_colour(told, image, statistics).item() == pytest.approx(0.0, abs=1e-5)
    style_colour(style, image, statistics).backward()
    assert style.grad is not None
    assert style.grad[:, 4:].abs().max() == 0.0


def test_adversarial_losses_by_hand() -> None:
    fake = [torch.tensor([[[[0.5, 9.0]]], [[[9.0, 9.0]]]]), torch.tensor([[[[-1.0]]], [[[3.0]]]])]
    real = [torch.tensor([[[[2.0, 9.0]]], [[[9.0, 9.0]]]]), torch.tensor([[[[1.0]]], [[[0.0]]]])]
    # Scale 0: one patch of the first image overlaps its hole, none of the second. Scale 1: both do.
    patches = [torch.tensor([[[[True, False]]], [[[False, False]]]]), torch.ones(2, 1, 1, 1, dtype=torch.bool)]
    by_hand = (0.5**2 + 0) / 2 + (2.0**2 + 2.0**2) / 2
    assert lsgan_generator(fake, patches).item() == pytest.approx(by_hand)
    by_hand = ((1.0 + 0.25) / 2 + 0) / 2 + ((0.0 + 1.0) / 2 + (1.0 + 9.0) / 2) / 2
    assert lsgan_discriminator(real, fake, patches).item() == pytest.approx(by_hand)


def test_a_picture_without_hole_patches_has_no_nan_gradient() -> None:
    fake = [torch.full((1, 1, 2, 2), 7.0, requires_grad=True)]
    loss = lsgan_generator(fake, [torch.zeros(1, 1, 2, 2, dtype=torch.bool)])
    assert loss.item() == 0.0
    loss.backward()
    assert fake[0].grad is not None
    assert not fake[0].grad.any()
