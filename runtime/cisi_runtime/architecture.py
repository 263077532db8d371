"""The numbers that define a CISI-net, in one frozen dataclass, importable without torch."""

from __future__ import annotations

import dataclasses

from cisi_runtime.errors import ContractError

# Two stride-2 convolutions in the content encoders, four in the style encoder: sizes must divide by 2**4.
SIZE_MULTIPLE = 16
# Below this the dilations of 8 and 16 see nothing but padding and the deepest style map has under 4x4 cells.
MIN_SIZE = 64
# Numbers of a style code that are held to be the picture's colour.
COLOUR_NUMBERS = 4


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
    """

    dim: int = 64
    style_dim: int = 8
    mlp_dim: int = 256
    decoder_blocks: int = 4
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    discriminator_scales: int = 3

    def __post_init__(self) -> None:
        faults = [
            f"{field.name} must be a positive whole number, got {value!r}"
            for field in dataclasses.fields(self)
            if field.name != "dilations"
            and (not isinstance(value := getattr(self, field.name), int) or isinstance(value, bool) or value < 1)
        ]
        if isinstance(self.style_dim, int) and 0 < self.style_dim < COLOUR_NUMBERS:
            faults.append(f"style_dim must be at least {COLOUR_NUMBERS}, the numbers that tell a colour")
        if not self.dilations or any(not isinstance(d, int) or d < 1 for d in self.dilations):
            faults.append(f"dilations must be positive whole numbers, got {self.dilations!r}")
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


PRESETS: dict[str, Architecture] = {
    # The paper gives no widths; 64 is the field's convention (about 15 M parameters at inference).
    "paper": Architecture(),
    # What hours of CPU training carry, and what a CPU runs at interactive speed.
    "small": Architecture(dim=24, mlp_dim=128),
    # For tests: builds in milliseconds.
    "tiny": Architecture(dim=8, mlp_dim=32),
}
