"""`inpaint`: one function, and the networks that it keeps open."""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy.typing as npt
from PIL import Image

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.input_types import HoleMask, HoleMasks, ImageOrPath, ImageOrPathT, Level

# By process, model and options, with the version of the file: one that is written anew is opened anew. A forked process
# opens its own, because the threads of a network do not survive a fork.
_Key: TypeAlias = tuple[int, Path | None, BackendOptions]
_Version: TypeAlias = tuple[int, int] | None
_open: dict[_Key, tuple[_Version, Inpainter]] = {}
_lock = threading.Lock()


@overload
def inpaint(
    image: npt.NDArray[Level],
    hole_mask: HoleMasks,
    *,
    model: Path | str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "stored",
    detail: bool = True,
) -> npt.NDArray[Level]: ...


@overload
def inpaint(
    image: ImageOrPath,
    hole_mask: HoleMask,
    *,
    model: Path | str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "stored",
    detail: bool = True,
) -> Image.Image: ...


@overload
def inpaint(
    image: list[npt.NDArray[Level]] | tuple[npt.NDArray[Level], ...],
    hole_mask: HoleMasks,
    *,
    model: Path | str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "stored",
    detail: bool = True,
) -> list[npt.NDArray[Level]]: ...


@overload
def inpaint(
    image: list[ImageOrPathT] | tuple[ImageOrPathT, ...],
    hole_mask: HoleMasks,
    *,
    model: Path | str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "stored",
    detail: bool = True,
) -> list[Image.Image]: ...


def inpaint(
    image: Any,
    hole_mask: Any,
    *,
    model: Path | str | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int = 0,
    precision: str = "stored",
    detail: bool = True,
) -> Any:
    """Fill the holes of a picture or several, and change nothing else. See `Inpainter`, of which these are the options.

    `inpaint("photo.jpg", "mask.png").save("out.png")`

    image, hole_mask: what `Inpainter` takes; the same kind is returned.

    The first call opens the network, later ones find it open: one for each combination of model, backend, device,
    threads and precision, until the process ends. Calls from several threads are safe. An `Inpainter` can be closed
    earlier, and says what runs. Raises what it raises.
    """
    inpainter = _opened(model, BackendOptions(backend, device, precision, threads))
    if not detail:
        inpainter = Inpainter(inpainter.backend, detail=False)  # on the same network
    return inpainter(image, hole_mask)


def _opened(model: Path | str | None, options: BackendOptions) -> Inpainter:
    path = None if model is None else Path(model).absolute()
    key = (os.getpid(), path, options)
    version = file_version(path)
    found = _open.get(key)
    if found is not None and found[0] == version:
        return found[1]
    with _lock:
        found = _open.get(key)
        if found is None or found[0] != version:
            # One that is replaced is not closed: another thread may be using it. It goes when nobody does.
            found = version, Inpainter(path, **dataclasses.asdict(options))
            _open[key] = found
        return found[1]


def file_version(path: Path | None) -> _Version:
    """When a model was written, and its size. None for what ships, and where there is none: opening it says so."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_size)


@atexit.register
def _close() -> None:
    for key, (_, inpainter) in list(_open.items()):
        if key[0] == os.getpid():
            inpainter.close()
