"""What an engine is asked to be."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import Any

from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE, check_keys
from cisi_runtime.errors import EngineError

# Python module and distribution of each flavour. Both have the same API, but for what `_worker` names.
FLAVOURS = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx")}
_EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}

# Compute capabilities that TensorRT-RTX compiles for without a GPU, Ampere and newer. 9.0 (H100) is not among those it
# has; 7.5 it has, but only simulates INT8 on.
CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")


@dataclasses.dataclass(frozen=True)
class Size:
    """Batch, height and width of pictures, in pixels."""

    batch: int
    height: int
    width: int

    def shape(self, dimensions: int, *, is_pixels: bool, channels: int) -> tuple[int, ...]:
        """Of a graph's input: uint8 `[N, H, W, 3]` and `[N, H, W]`, or float `[N, C, H, W]`."""
        if is_pixels:
            return (self.batch, self.height, self.width, 3)[:dimensions]
        return self.batch, channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.batch}x{self.width}x{self.height}"


@dataclasses.dataclass(frozen=True)
class Profile:
    """The smallest, the usual and the largest pictures that an engine takes. Raises EngineError for an order or sizes
    that no engine can have."""

    least: Size = Size(1, MIN_SIZE, MIN_SIZE)
    usual: Size = Size(1, 256, 256)
    most: Size = Size(4, 512, 512)

    def __post_init__(self) -> None:
        sizes = [dataclasses.astuple(size) for size in (self.least, self.usual, self.most)]
        for size in (self.least, self.usual, self.most):
            if size.batch < 1 or any(side % SIZE_MULTIPLE or side < MIN_SIZE for side in (size.height, size.width)):
                raise EngineError(
                    f"profile size {size}: expected BATCHxWIDTHxHEIGHT, sides multiples of {SIZE_MULTIPLE} and "
                    f"{MIN_SIZE} or more"
                )
        for smaller, larger in (sizes[:2], sizes[1:]):
            if any(a > b for a, b in zip(smaller, larger, strict=True)):
                raise EngineError(
                    f"profile {self.least}, {self.usual}, {self.most}: expected none to exceed the next in batch, "
                    "width or height"
                )

    def limited(self, fixed: tuple[int | None, int | None, int | None]) -> Profile:
        """The same with the batch, height and width that a graph was exported for, None: any."""
        sizes = (self.least, self.usual, self.most)
        return Profile(
            *(
                Size(*(own or free for own, free in zip(fixed, dataclasses.astuple(size), strict=True)))
                for size in sizes
            )
        )

    def takes(self, size: Size) -> bool:
        """Whether pictures of this size lie within."""
        least, given, most = (dataclasses.astuple(item) for item in (self.least, size, self.most))
        return all(low <= value <= high for low, value, high in zip(least, given, most, strict=True))

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.most)
        return f"{self.least} to {self.most}, best at {self.usual}"


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """flavour: a key of `FLAVOURS`; capabilities: what TensorRT-RTX compiles for, empty for TensorRT, which builds for
    the GPU of this machine; profile: of a graph for any size, ignored for one of a single size and batch;
    workspace_mib: the most scratch memory in MiB, None: all of the GPU's; level: 0 to 5, higher tries more kernels;
    tf32: float32 convolutions may round what they multiply to 10 bits of mantissa. Raises EngineError."""

    flavour: str = "tensorrt-rtx"
    capabilities: tuple[str, ...] = CAPABILITIES
    profile: Profile = Profile()
    workspace_mib: int | None = None
    level: int = 3
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise EngineError(f"flavour {self.flavour}: expected {' or '.join(FLAVOURS)}")
        if self.flavour == "tensorrt" and self.capabilities:
            raise EngineError(
                "TensorRT builds for the GPU of this machine and takes no compute capability; expected none, or "
                "flavour tensorrt-rtx"
            )
        if self.flavour == "tensorrt-rtx" and not self.capabilities:
            raise EngineError(f"TensorRT-RTX needs a compute capability, expected some of {', '.join(CAPABILITIES)}")
        for capability in self.capabilities:
            if capability not in CAPABILITIES:
                raise EngineError(
                    f"SM {capability}: TensorRT-RTX has no such target here, expected {', '.join(CAPABILITIES)}"
                )

    @property
    def target(self) -> str:
        """What the engine is for, in words."""
        return f"SM {', '.join(self.capabilities)}" if self.capabilities else "the GPU of this machine"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BuildOptions:
        """What `dataclasses.asdict` made of some."""
        check_keys("options", values, cls)
        profile = Profile(**{name: Size(**size) for name, size in values["profile"].items()})
        return cls(**{**values, "capabilities": tuple(values["capabilities"]), "profile": profile})


def installed_version(flavour: str) -> str | None:
    """Version of a flavour's distribution; None when it is not installed. The library is not loaded: that takes
    seconds."""
    try:
        return importlib.metadata.version(FLAVOURS[flavour][1])
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_flavour(wish: str | None = None) -> str:
    """The flavour that was asked for, else the only one that is installed. Raises EngineError."""
    found = [flavour for flavour in FLAVOURS if installed_version(flavour)]
    if wish is not None:
        if wish not in found:
            raise EngineError(
                f"{wish} is not installed, expected an installation with pip install 'cisi-net[{_EXTRAS[wish]}]'"
            )
        return wish
    if not found:
        raise EngineError(
            "neither TensorRT nor TensorRT-RTX is installed, expected an installation with pip install "
            "'cisi-net[tensorrt]' or 'cisi-net[rtx]'"
        )
    if len(found) > 1:
        raise EngineError(f"{' and '.join(found)} are both installed, expected one of them to be asked for")
    return found[0]
