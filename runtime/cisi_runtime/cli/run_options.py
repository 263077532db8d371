"""What `cisi-run` was asked to do."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.console import tell, warn
from cisi_runtime.errors import BackendError, CisiError, CudaError

if TYPE_CHECKING:
    from cisi_runtime.batch.photograph import PhotographOptions
    from cisi_runtime.inpainting.inpainter import Inpainter
    from cisi_runtime.storage.addresses import Address


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What `cisi-run` was asked to do; each field is the option of its name. backend: with device and precision.

    threads: of a network; for many photographs, processes or workers.
    """

    images: tuple[Address, ...]
    mask: Address | None
    mask_from_alpha: bool
    invert_mask: bool
    dilate: int
    output: Address
    overwrite: bool
    manifest: Address | None
    watch: bool
    cluster: str | None
    cpus_per_worker: int
    model: Path | None
    backend: BackendOptions
    threads: int
    max_megapixels: float | None
    sheet: Path | None
    no_detail: bool

    @property
    def image(self) -> Address | None:
        """The first photograph, or the folder; None with a manifest."""
        return self.images[0] if self.images else None

    def photograph_options(self) -> PhotographOptions:
        """How photographs are read."""
        from cisi_runtime.batch.photograph import HoleOptions, PhotographOptions
        from cisi_runtime.pictures.reading import MAX_PIXELS

        max_pixels = MAX_PIXELS if self.max_megapixels is None else round(self.max_megapixels * 1e6)
        return PhotographOptions(HoleOptions(self.invert_mask, self.dilate), max_pixels)


@contextlib.contextmanager
def model_errors() -> Iterator[None]:
    """Put the option in front of an error: that of the backend, of the device, or of the model."""
    try:
        yield
    except BackendError as error:
        raise BackendError(f"--backend: {error}") from error
    except CudaError as error:
        raise CudaError(f"--device: {error}") from error
    except CisiError as error:
        raise type(error)(f"--model: {error}") from error


def tell_backend(inpainter: Inpainter) -> None:
    """What runs, and what is to be said about it, on stderr."""
    if inpainter.warning is not None:
        warn(inpainter.warning)
    tell(inpainter.backend_reason)
