"""The numbers that define a CISI-net, in one frozen dataclass, importable without torch."""

from __future__ import annotations

import dataclasses
import reprlib

from cisi_runtime.errors import ContractError

# Two stride-2 convolutions in the content encoders, four in the style encoder: sizes must divide by 2**4.
SIZE_MULTIPLE = 16
# Below this the dilations of 8 and 16 see nothing but padding and the deepest style map has under 4x4 cells.
MIN_SIZE = 64
# Numbers of a style code that are held to be the picture's colour.
COLOUR_NUMBERS = 4
# The largest of each number. An architecture comes out of files too, and is built before the weights are compared with
# it: 34,000 million parameters at most, built without data in half a second, and no overflow in their count. The
# largest preset, `paper`, has 15 million.
_MAX_VALUES = {
    "dim": 1024,
    "style_dim": 1024,
    "mlp_dim": 8192,
    "decoder_blocks": 32,
    "dilations": 1024,
    "discriminator_scales": 8,
}
_MAX_DILATIONS = 32


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Widths and depths of the five networks (paper, section "Framework"; where it gives no number, this project
    chose).

    dim: channels at full resolution. Content codes have `4 * dim` channels at H/4 x W/4.
    style_dim: numbers in a style code, one code for the whole picture; at least 4, which are its colour.
    mlp_dim: width of the hidden layers between style code and AdaIN.
    decoder_blocks: residual blocks of the decoder, each with two AdaIN layers.
    dilations: one residual block of ICE for each entry. SCE has as many, undilated.
    discriminator_scales: copies of the patch discriminator, each at half the size of the one before.

    Raises ContractError for numbers that are not positive or larger than `_MAX_VALUES`, and for more than 32 dilations.
    """

    dim: int = 64
    style_dim: int = 8
    mlp_dim: int = 256
    decoder_blocks: int = 4
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    discriminator_scales: int = 3

    def __post_init__(self) -> None:
        faults = [
            f"{field.name} must be a positive whole number of at most {_MAX_VALUES[field.name]}, got {_shown(value)}"
            for field in dataclasses.fields(self)
            if field.name != "dilations" and not _is_number(value := getattr(self, field.name), field.name)
        ]
        if type(self.style_dim) is int and 0 < self.style_dim < COLOUR_NUMBERS:
            faults.append(f"style_dim must be at least {COLOUR_NUMBERS}, the numbers that tell a colour")
        if not 1 <= len(self.dilations) <= _MAX_DILATIONS or not all(
            _is_number(d, "dilations") for d in self.dilations
        ):
            faults.append(
                f"dilations must be 1 to {_MAX_DILATIONS} positive whole numbers of at most "
                f"{_MAX_VALUES['dilations']}, got {_shown(self.dilations)}"
            )
        if faults:
            raise ContractError("architecture: " + "; ".join(faults))

    @property
    def content_channels(self) -> int:
        """Channels of a content code; its map is H/4 x W/4."""
        return 4 * self.dim

    @property
    def adain_layers(self) -> int:
        """Number of AdaIN layers: two in each residual block of the decoder."""
        return 2 * self.decoder_blocks


def _is_number(value: object, name: str) -> bool:
    return type(value) is int and 1 <= value <= _MAX_VALUES[name]


def _shown(value: object) -> str:
    """A number may have thousands of digits."""
    return reprlib.repr(value)


PRESETS: dict[str, Architecture] = {
    # The paper gives no widths; 64 is the field's convention (about 15 M parameters at inference).
    "paper": Architecture(),
    # What hours of CPU training carry, and what a CPU runs at interactive speed.
    "small": Architecture(dim=24, mlp_dim=128),
    # For tests: builds in milliseconds.
    "tiny": Architecture(dim=8, mlp_dim=32),
}
