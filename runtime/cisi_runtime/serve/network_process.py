"""The process that holds the network. The processes that work on photographs send it their windows.

One network serves all of them: its weights are loaded once, windows of different requests share batches, and a GPU has
one owner. A crash in a library ends this process, not the service.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from multiprocessing.connection import Connection, Listener
from typing import Any

from cisi_runtime.allocator import keep_memory
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.cores import available_cores, share_cores
from cisi_runtime.backends.registry import CPU_BACKENDS
from cisi_runtime.child_process import prepare_child
from cisi_runtime.errors import CisiError, GraphError, ParityError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.model_copy import ModelCopy
from cisi_runtime.serve.network_info import NetworkInfo, NetworkOptions
from cisi_runtime.serve.progress_board import Progress
from cisi_runtime.serve.window_batcher import WindowBatcher

# Windows in a batch. On a CPU a larger batch gains nothing; for engines their profile decides too.
_MAX_WINDOWS = 4
# Sides of the picture that warms the network up: a window of its usual size.
_WARM_UP = (256, 256)


def run_network(
    options: NetworkOptions, model: ModelCopy | None, address: str, key: bytes, progress: Progress, parent: Connection
) -> None:
    """Main function of the process. Sends `NetworkInfo` to its parent when the network has passed its check and can be
    reached at `address`, or the CisiError that prevented it.

    model: opened instead of that of the options, whose file may be another one by now.
    """
    prepare_child(signal.SIGINT, signal.SIGTERM)
    share_cores()
    keep_memory()
    try:
        with model.written() if model else contextlib.nullcontext(options.model) as path:
            inpainter = Inpainter(path, **dataclasses.asdict(options.backend))
            info = _check(inpainter)
            inpainter.warmup([_WARM_UP])
            narrow = _narrow(inpainter, options)
    except CisiError as error:
        parent.send(error)
        return
    except ModuleNotFoundError as error:
        parent.send(GraphError(f"needs {error.name}, which is not installed"))
        return
    batcher = WindowBatcher(inpainter.backend, _MAX_WINDOWS, progress, narrow=narrow, runners=available_cores())
    with Listener(address, authkey=key, backlog=64) as listener:
        parent.send(info)
        while True:
            # A caller that is not ours, or that ended meanwhile, is none of the others' business.
            with contextlib.suppress(Exception):
                connection = listener.accept()
                threading.Thread(target=_serve, args=(connection, info, batcher), daemon=True).start()


def _narrow(inpainter: Inpainter, options: NetworkOptions) -> Backend | None:
    """The same network with one thread, where threads are what it runs on and there are several."""
    if inpainter.backend.name not in CPU_BACKENDS or options.backend.threads == 1 or available_cores() == 1:
        return None
    narrow = Inpainter(inpainter.model, **dataclasses.asdict(options.backend) | {"threads": 1})
    narrow.warmup([_WARM_UP])
    return narrow.backend


def _check(inpainter: Inpainter) -> NetworkInfo:
    # Loads ONNX Runtime, which the first process, where this file is imported too, does not need.
    from cisi_runtime.parity.checks import check_before_use

    backend: Backend = inpainter.backend
    warnings = [] if inpainter.warning is None else [inpainter.warning]
    report = None if inpainter.model is None else check_before_use(backend, inpainter.model)
    if report is None:
        parity = "not checked"
        warnings.append(f"{inpainter.model}: no golden file of its sizes lies beside it, so parity was not checked")
    elif report.failures:
        raise ParityError(f"{inpainter.model}: {report.failures} of {report.checks} comparisons failed; cisi-parity")
    else:
        parity = "; ".join(report.summary().splitlines()[:2])
    return NetworkInfo(
        backend.name,
        backend.contract,
        backend.fixed,
        backend.precision,
        inpainter.backend_reason,
        tuple(warnings),
        parity,
    )


def _serve(connection: Connection, info: NetworkInfo, batcher: WindowBatcher) -> None:
    """Answer one caller until it goes."""
    with connection, contextlib.suppress(EOFError, OSError):
        connection.send(info)
        while True:
            inputs: tuple[Any, Any] = connection.recv()
            try:
                answer: Any = batcher.run(*inputs)
            except (CisiError, ValueError) as error:
                answer = error
            except MemoryError:
                answer = GraphError("there is not enough memory for these windows")
            except Exception as error:
                answer = GraphError(f"{type(error).__name__}: {error}")
            connection.send(answer)
