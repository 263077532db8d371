"""What measured figures are of: the machine and the libraries."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cisi_runtime.backends.cores import available_cores

_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTION_SETS = ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_LIBRARIES = ("cisi-net", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")


def machine_facts() -> dict[str, Any]:
    """Usable cores, kind of machine, name and instruction sets of the processor, and versions of Python and of those
    libraries that are installed."""
    return {
        "cores": available_cores(),
        "machine": platform.machine(),
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def processor_name() -> str:
    """As Linux names it, else as Python does."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Of `_INSTRUCTION_SETS` those that the processor has; empty where Linux does not list them."""
    flags = set(_CPU_INFO.read_text().split()) if _CPU_INFO.is_file() else set()
    return [name for name in _INSTRUCTION_SETS if name in flags]


def _versions() -> dict[str, str]:
    versions = {}
    for package in _LIBRARIES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
