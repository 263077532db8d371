"""Whether a network uses its style code: do codes differ between pictures, and does the decoder follow them?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from cisi_runtime.codec import decode_pixels, levels
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.resizing import read_square
from cisi_train.network import Generator, corrupt

_BATCH = 8


@dataclasses.dataclass(frozen=True)
class StyleReport:
    """Measured over the pictures of a folder, with the centre hole.

    pictures: their number.
    spread: standard deviation of the codes of complete pictures, mean over the code's dimensions.
    between: mean `|s_a - s_b|` of each picture and the next.
    within: mean `|s_corrupt - s_complete|` of each picture. When it is small relative to `between`, the code
        identifies the picture, with or without the hole.
    swap_levels: mean change of the hole's pixels, in grey levels of 255, when each picture is rendered in the next
        one's style.
    """

    pictures: int
    spread: float
    between: float
    within: float
    swap_levels: float


def style_report(generator: Generator, paths: list[Path], size: int) -> StyleReport:
    """Measure the style codes of a network in evaluation mode, on the CPU."""
    hole = centre_hole(size, size)
    mask = torch.from_numpy(hole[None, None].astype(np.float32))
    image = torch.from_numpy(np.stack([decode_pixels(read_square(path, size)) for path in paths]))
    contents, codes, complete_codes = [], [], []
    with torch.no_grad():
        for part in torch.split(image, _BATCH):
            corrupted = corrupt(part, mask.expand(len(part), -1, -1, -1))
            contents.append(generator.inferred_content(corrupted))
            codes.append(generator.style(corrupted))
            complete_codes.append(generator.style(corrupt(part, torch.zeros_like(part[:, :1]))))
        style, complete = torch.cat(codes), torch.cat(complete_codes)
        changes = []
        parts = (torch.split(x, _BATCH) for x in (style, style.roll(1, 0)))
        for content, codes_here, codes_next in zip(contents, *parts, strict=True):
            pair = [levels(generator.decoder(content, code).numpy())[..., hole] for code in (codes_here, codes_next)]
            changes.append(np.abs(pair[0] - pair[1]).mean(axis=(1, 2)))
    return StyleReport(
        pictures=len(paths),
        spread=complete.std(dim=0, correction=0).mean().item(),
        between=(complete - complete.roll(1, 0)).abs().mean().item(),
        within=(style - complete).abs().mean().item(),
        swap_levels=float(np.concatenate(changes).mean()),
    )
