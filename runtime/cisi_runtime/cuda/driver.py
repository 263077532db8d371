"""Calls of the CUDA driver API through cuda-bindings, with their errors as ours."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from cisi_runtime.errors import CudaError


@functools.cache
def _driver() -> ModuleType:
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        raise CudaError("needs cuda-bindings: pip install 'cisi-net[rtx]' (or tensorrt, or gpu)") from error
    return driver  # type: ignore[no-any-return]


_counted: list[collections.Counter[str]] = []


@contextlib.contextmanager
def counting() -> Iterator[collections.Counter[str]]:
    """Counts the calls that this package makes, by name, while the block runs; for reports of what a loop does."""
    counts: collections.Counter[str] = collections.Counter()
    _counted.append(counts)
    try:
        yield counts
    finally:
        _counted.remove(counts)


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the driver API by its name: its one result, or None, or all of several. Raises CudaError with
    the name of the call and of the error."""
    driver = _driver()
    for counts in _counted:
        counts[name] += 1
    try:
        status, *results = getattr(driver, name)(*arguments)
    # What cuda-bindings raises without libcuda, or with one that lacks the call.
    except RuntimeError as error:
        raise CudaError(f"{name}: the NVIDIA driver is not installed, or too old") from error
    if status != driver.CUresult.CUDA_SUCCESS:
        raise CudaError(f"{name} failed with {driver.CUresult(status).name}")
    return results[0] if len(results) == 1 else tuple(results) or None


def constant(enumeration: str, name: str) -> Any:
    """A member of one of the driver API's enumerations."""
    return getattr(getattr(_driver(), enumeration), name)


def handle(kind: str, value: int) -> Any:
    """An address or handle that another library gave, as this API's type (`CUstream`, `CUdeviceptr`)."""
    return getattr(_driver(), kind)(value)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """name: as the driver says; capability: "8.9"; driver: the newest CUDA that it supports, "13.0"."""

    name: str
    capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (SM {self.capability}, driver for CUDA {self.driver})"


def find_gpu(number: int = 0) -> Gpu:
    """The GPU of this number. Raises CudaError when there is none, or no driver."""
    call("cuInit", 0)
    device = call("cuDeviceGet", number)
    name = call("cuDeviceGetName", 256, device)
    attributes = [f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}" for part in ("MAJOR", "MINOR")]
    major, minor = (call("cuDeviceGetAttribute", constant("CUdevice_attribute", item), device) for item in attributes)
    version = call("cuDriverGetVersion")
    text = name.split(b"\0")[0].decode()
    return Gpu(text, f"{major}.{minor}", f"{version // 1000}.{version % 1000 // 10}")


def use_primary_context(number: int = 0) -> None:
    """Make the primary context of a GPU current in this thread: the one that PyTorch and ONNX Runtime use too. It is
    kept until the process ends. Raises CudaError."""
    call("cuCtxSetCurrent", _primary_context(number))


@functools.cache
def _primary_context(number: int) -> Any:
    call("cuInit", 0)
    return call("cuDevicePrimaryCtxRetain", call("cuDeviceGet", number))
