"""The numbers that define a CISI-net, in one frozen dataclass, importable without torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from cisi_runtime.errors import ContractError

# Two stride-2 convolutions in the content encoders, four in the style encoder: sizes must divide by 2**4.
SIZE_MULTIPLE = 16
# Below this the dilations of 8 and 16 see nothing but padding and the deepest style map has under 4x4 cells.
MIN_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Widths and depths of the five networks (paper, section "Framework"; open numbers settled by the design).

    `dim` is the number of channels at full resolution; content codes have `4 * dim` channels at a quarter of the
    picture's height and width; style codes have `style_dim` numbers for the whole picture.
    """

    dim: int = 64
    style_dim: int = 8
    mlp_dim: int = 256
    decoder_blocks: int = 4
    # One residual block for each entry. The self-content encoder has as many, undilated.
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    discriminator_scales: int = 3

    def __post_init__(self) -> None:
        faults = [
            f"{field.name} must be a positive whole number, got {value!r}"
            for field in dataclasses.fields(self)
            if field.name != "dilations"
            and (not isinstance(value := getattr(self, field.name), int) or isinstance(value, bool) or value < 1)
        ]
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Architecture:
        """Read what `dataclasses.asdict` wrote. Raises ContractError for an unknown or missing key."""
        check_keys("architecture", values, cls)
        return cls(**{**values, "dilations": tuple(values["dilations"])})


def check_keys(what: str, values: object, dataclass: type) -> None:
    """Raise ContractError unless `values` is a dictionary with exactly the fields of `dataclass`."""
    expected = {field.name for field in dataclasses.fields(dataclass)}
    found = set(values) if isinstance(values, dict) else set()
    if found != expected:
        raise ContractError(f"{what}: unknown keys {sorted(found - expected)}, missing keys {sorted(expected - found)}")


PRESETS: dict[str, Architecture] = {
    # The paper gives no widths; 64 is the field's convention (about 15 M parameters at inference).
    "paper": Architecture(),
    # What hours of CPU training carry, and what a CPU runs at interactive speed.
    "small": Architecture(dim=24, mlp_dim=128),
    # For tests: builds in milliseconds.
    "tiny": Architecture(dim=8, mlp_dim=32),
}
