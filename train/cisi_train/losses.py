"""The losses. Each is a mean over images of per-image means, so that two processes give the gradients of one.

Equation numbers are those of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cisi_train.colour_statistics import ColourStatistics

# Weight of the hole; the known region has weight 1 (paper, section "Implementation Details").
HOLE_WEIGHT = 5.0
# Makes `weighted_psnr` turn the weights as far as `weighted_l1` does at 16 dB, what a hole is filled with.
_PSNR_SCALE = 0.2
# Mean square error below which `weighted_psnr` no longer pulls, against a step to minus infinity: 46 dB.
_LEAST_ERROR = 1e-4
# `style_spread` pushes two images' style codes apart up to this mean absolute difference.
_STYLE_MARGIN = 1.0


def weighted_l1(generated: Tensor, image: Tensor, hole_mask: Tensor, hole_weight: float = HOLE_WEIGHT) -> Tensor:
    """Equation (7) in pixel space: `mean(W * |generated - image|)`, W = `hole_weight` in the hole and 1 outside.

    Images `[N, 3, H, W]` in [-1, 1], hole_mask `[N, 1, H, W]` in {0, 1}; a scalar. With an all-zero mask this is the
    plain L1 of the self-reconstruction.
    """
    weight = 1.0 + (hole_weight - 1.0) * hole_mask
    return (weight * (generated.float() - image.float()).abs()).mean()


def weighted_psnr(generated: Tensor, image: Tensor, hole_mask: Tensor, hole_weight: float = HOLE_WEIGHT) -> Tensor:
    """As `weighted_l1`, with the PSNR that an image lacks: `0.2 * ln(mean(W * (generated - image)^2))` of each image.

    Not in the paper. Where several fillings are likely, L1 is least at their median and this one at their mean, where
    PSNR is highest. By the logarithm every image has the same share, as in PSNR (Chen et al. 2021, "HINet", train so).
    The loss of a good image is below 0.
    """
    weight = 1.0 + (hole_weight - 1.0) * hole_mask
    errors = (weight * (generated.float() - image.float()).square()).mean(dim=(1, 2, 3))
    return _PSNR_SCALE * errors.clamp_min(_LEAST_ERROR).log().mean()


def perceptual_l1(
    generated: Sequence[Tensor], target: Sequence[Tensor], masks: Sequence[Tensor], hole_weight: float = HOLE_WEIGHT
) -> Tensor:
    """Equation (7) in feature space: `1/N * sum_n mean(W_n * |psi_n(generated) - psi_n(image)|)`, psi_n = pool1 to 3.

    Maps `[N, C_n, h_n, w_n]` of VGG-16, masks `[N, 1, h_n, w_n]` from `feature_masks`; a scalar.
    """
    layers = [weighted_l1(*maps, hole_weight) for maps in zip(generated, target, masks, strict=True)]
    return torch.stack(layers).mean()


def latent_l1(code: Tensor, target: Tensor) -> Tensor:
    """Latent loss: `mean(|code - target|)` for content `[N, C, h, w]` or style `[N, S]` codes; a scalar.

    The caller decides whether the target gets a gradient. Content: no. In the second step SCE is held fixed; in the
    first the code of the photograph is what the code of its reconstruction moves to. Style: yes, both codes come from
    the one style encoder. With a detached target each step scaled both up, and the codes grew to 1e10 within 150 steps.
    """
    return (code.float() - target.float()).abs().mean()


def style_spread(style: Tensor) -> Tensor:
    """Style codes of different images must differ: `mean(max(0, 1 - mean|s_a - s_b|))` over pairs of a batch.

    Not in the paper. Its latent loss pulls the codes of one image together, and nothing holds those of two images
    apart, so all codes shrink towards one point (measured: their spread halved in 200 steps at weight 1). This is the
    repelling half of a contrastive loss (Hadsell, Chopra and LeCun 2006).

    style: `[N, S]`. Images 2k and 2k + 1 are a pair, so the loss of a batch is the mean over its even parts. An odd
        last image counts 0.
    """
    codes = style.float()[: len(style) // 2 * 2]
    apart = (codes[0::2] - codes[1::2]).abs().mean(dim=1)
    return 2.0 * (_STYLE_MARGIN - apart).clamp(min=0.0).sum() / len(style)


def style_alignment(style: Tensor) -> Tensor:
    """Style codes must differ in more than one way: mean `cos^2` of the angle between the differences of two pairs.

    Not in the paper. Codes that are only pushed apart (`style_spread`) may all lie on a line: after 1,300 steps three
    of eight dimensions carried 98 % of the variance, brightness and red against blue, and red pictures were filled with
    orange. The loss is 1 on a line and 1/S for codes that vary equally in all S dimensions.

    style: `[N, S]`. Images 4k to 4k + 3 make two pairs, and the rest of a batch counts 0. So each of several processes
    needs a multiple of four images to give the gradients of one.
    """
    codes = style.float()[: len(style) // 4 * 4]
    first, second = codes[0::4] - codes[1::4], codes[2::4] - codes[3::4]
    aligned = cosine_similarity(first, second, dim=1).square()
    return 4.0 * aligned.sum() / len(style)


def style_colour(style: Tensor, image: Tensor, statistics: ColourStatistics) -> Tensor:
    """Four numbers of the style code are the picture's colour: `mean|s_k - c_k|`, k = 0 to 3.

    Not in the paper. c is brightness, red minus blue, green minus the mean of both, and contrast, each scaled to mean 0
    and standard deviation 1 over the training data. Without this loss the codes hold the first two (R^2 0.98 of a
    least-squares fit) and the last (0.69), but nothing of the third (0.04): red and sand had one code, and a red carpet
    was filled with sand.

    style: `[N, S]`, S at least 4, of complete images `[N, 3, H, W]` in [-1, 1]. Returns a scalar.
    """
    target = statistics.scaled(image)
    return latent_l1(style[:, : target.shape[1]], target)


def lsgan_generator(fake: Sequence[Tensor], patches: Sequence[Tensor]) -> Tensor:
    """Generator's part of the multi-scale patch adversarial loss: `sum_k E[(D_k(p) - 1)^2]` (LSGAN, Mao et al. 2017).

    fake: realness `[N, 1, h_k, w_k]` of the completed images at each scale; patches: booleans of that shape. The mean
    is over the patches p of an image that overlap its hole; an image without any counts 0.
    """
    return _sum_of_scales([(realness.float() - 1.0).square() for realness in fake], patches)


def lsgan_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor], patches: Sequence[Tensor]) -> Tensor:
    """Discriminator's part: `sum_k (E[(D_k(p_real) - 1)^2] + E[D_k(p_fake)^2]) / 2`, as `lsgan_generator`.

    The same patches of the ground truth count as real.
    """
    errors = [((a.float() - 1.0).square() + b.float().square()) / 2.0 for a, b in zip(real, fake, strict=True)]
    return _sum_of_scales(errors, patches)


def _sum_of_scales(errors: Sequence[Tensor], patches: Sequence[Tensor]) -> Tensor:
    per_scale: list[Tensor] = []
    for error, overlaps in zip(errors, patches, strict=True):
        weight = overlaps.to(error.dtype)
        sums, counts = (error * weight).sum(dim=(1, 2, 3)), weight.sum(dim=(1, 2, 3))
        per_scale.append((sums / counts.clamp(min=1.0)).mean())
    return torch.stack(per_scale).sum()
