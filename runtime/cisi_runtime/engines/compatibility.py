"""Whether an engine can run on this machine, checked before a byte of it is deserialised."""

from __future__ import annotations

from cisi_runtime.cuda.driver import Gpu
from cisi_runtime.engines.options import FLAVOURS, choose_flavour, installed_version
from cisi_runtime.engines.sidecar import Sidecar
from cisi_runtime.errors import EngineError


def check_installation(sidecar: Sidecar) -> None:
    """Raise EngineError unless the library that built the engine is installed in the same version. TensorRT refuses
    engines of another version, or crashes on them."""
    flavour = sidecar.options.flavour
    choose_flavour(flavour)
    version = installed_version(flavour)
    if version != sidecar.version:
        raise EngineError(
            f"built by {flavour} {sidecar.version}, installed is {version}: expected the same version; build it again: "
            f"cisi-build {sidecar.graph}, or pip install {FLAVOURS[flavour][1]}=={sidecar.version}"
        )


def check_gpu(sidecar: Sidecar, gpu: Gpu) -> None:
    """Raise EngineError for a GPU that the engine was not built for."""
    targets = sidecar.options.capabilities
    if targets and gpu.capability not in targets:
        raise EngineError(
            f"built for SM {', '.join(targets)}, this machine has {gpu}; build it again: cisi-build {sidecar.graph} "
            f"--capability {gpu.capability}"
        )
    if not targets and (gpu.name, gpu.capability) != (sidecar.gpu, sidecar.capability):
        raise EngineError(
            f"built for {sidecar.gpu} (SM {sidecar.capability}), this machine has {gpu}; build it again here: "
            f"cisi-build {sidecar.graph} --flavour tensorrt"
        )
