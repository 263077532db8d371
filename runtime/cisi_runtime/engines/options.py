"""Build options of an engine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import Annotated

from msgspec import Meta

from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE
from cisi_runtime.errors import EngineError
from cisi_runtime.face import BatchSize

# Python module and distribution of each flavour. Both have the same API; `building.worker` handles the differences.
FLAVOURS = {"tensorrt": ("tensorrt", "tensorrt"), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt-rtx")}
_EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}

# Compute capabilities that TensorRT-RTX compiles for without a GPU, Ampere and newer. It has no 9.0 (H100). It has 7.5,
# but only simulates INT8 there.
CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")

# Batch, height and width that a graph was exported for; None: any.
FixedSides = tuple[int | None, int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Size:
    """Batch, height and width of a batch of pictures."""

    batch: int
    height: int
    width: int

    @property
    def sides(self) -> BatchSize:
        """As a tuple, in this order."""
        return self.batch, self.height, self.width

    def __str__(self) -> str:
        return f"{self.batch}x{self.width}x{self.height}"


@dataclasses.dataclass(frozen=True)
class Profile:
    """TensorRT's optimisation profile: the smallest, the best and the largest pictures that an engine takes.

    Raises EngineError for sizes that the network does not take or that are out of order.
    """

    min: Size = Size(1, MIN_SIZE, MIN_SIZE)
    opt: Size = Size(1, 256, 256)
    max: Size = Size(4, 512, 512)

    def __post_init__(self) -> None:
        for size in self.sizes:
            if size.batch < 1 or any(side % SIZE_MULTIPLE or side < MIN_SIZE for side in (size.height, size.width)):
                raise EngineError(
                    f"profile size {size}: expected BATCHxWIDTHxHEIGHT, sides multiples of {SIZE_MULTIPLE} and "
                    f"{MIN_SIZE} or more"
                )
        for smaller, larger in ((self.min, self.opt), (self.opt, self.max)):
            if any(low > high for low, high in zip(smaller.sides, larger.sides, strict=True)):
                raise EngineError(
                    f"profile {self.min}, {self.opt}, {self.max}: expected none to exceed the next in batch, width or "
                    "height"
                )

    @property
    def sizes(self) -> tuple[Size, Size, Size]:
        """Smallest, best, largest."""
        return self.min, self.opt, self.max

    def limited(self, fixed: FixedSides) -> Profile:
        """The same profile with the batch, height and width that a graph was exported for."""
        return Profile(
            *(Size(*(side or free for side, free in zip(fixed, size.sides, strict=True))) for size in self.sizes)
        )

    def accepts(self, size: Size) -> bool:
        """Whether pictures of this size lie within the profile."""
        bounds = zip(self.min.sides, size.sides, self.max.sides, strict=True)
        return all(low <= side <= high for low, side, high in bounds)

    def __str__(self) -> str:
        if self.min == self.max:
            return str(self.max)
        return f"{self.min} to {self.max}, best at {self.opt}"


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What to build. Raises EngineError for options that exclude each other.

    flavour: a key of `FLAVOURS`.
    capabilities: what TensorRT-RTX compiles for. Empty for TensorRT, which builds for the GPU of this machine.
    profile: for a graph that takes several sizes; ignored for one of a single size and batch.
    workspace_mib: limit of scratch memory in MiB, None for all of the GPU's.
    level: TensorRT's builder optimisation level, 0 to 5. Higher levels try more kernels.
    tf32: float32 convolutions may round their factors to 10 bits of mantissa.
    """

    flavour: str = "tensorrt-rtx"
    capabilities: tuple[str, ...] = CAPABILITIES
    profile: Profile = Profile()
    workspace_mib: Annotated[int, Meta(ge=1)] | None = None
    level: Annotated[int, Meta(ge=0, le=5)] = 3
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
        if len(set(self.capabilities)) < len(self.capabilities):
            raise EngineError(f"SM {', '.join(self.capabilities)}: expected each capability once")
        if not 0 <= self.level <= 5:
            raise EngineError(f"level {self.level}: expected 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise EngineError(f"workspace of {self.workspace_mib} MiB: expected 1 or more")

    @property
    def target(self) -> str:
        """What the engine is for, in words."""
        return f"SM {', '.join(self.capabilities)}" if self.capabilities else "the GPU of this machine"


def installed_version(flavour: str) -> str | None:
    """Version of a flavour's distribution, None when it is not installed. Does not load the library, which takes
    seconds."""
    try:
        return importlib.metadata.version(FLAVOURS[flavour][1])
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_flavour(requested: str | None = None) -> str:
    """The requested flavour, or the only one that is installed. Raises EngineError."""
    installed = [flavour for flavour in FLAVOURS if installed_version(flavour)]
    if requested is not None:
        if requested not in installed:
            raise EngineError(f"{requested} is not installed: pip install 'cisi-net[{_EXTRAS[requested]}]'")
        return requested
    if not installed:
        raise EngineError(
            "neither TensorRT nor TensorRT-RTX is installed: pip install 'cisi-net[tensorrt]' or 'cisi-net[rtx]'"
        )
    if len(installed) > 1:
        raise EngineError(
            f"{' and '.join(installed)} are both installed, expected one of them to be asked for: cisi-build --flavour"
        )
    return installed[0]
