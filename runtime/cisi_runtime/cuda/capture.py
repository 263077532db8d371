"""Stream synchronisation, and capture of work into a CUDA graph that is launched as one."""

from __future__ import annotations

from typing import Any

from cisi_runtime.cuda.driver import call, constant, handle


class CapturedGraph:
    """Work that was captured from a stream once and is launched as one."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Put it into a stream. Raises CudaError."""
        call("cuGraphLaunch", self._executable, handle("CUstream", stream))

    def close(self) -> None:
        """Free it; it must not be running."""
        if self._executable is not None:
            call("cuGraphExecDestroy", self._executable)
            self._executable = None


def begin_capture(stream: int) -> None:
    """From here on work put into the stream is recorded, not done. Raises CudaError."""
    mode = constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL")
    call("cuStreamBeginCapture", handle("CUstream", stream), mode)


def end_capture(stream: int) -> CapturedGraph:
    """End the recording. Raises CudaError, also when something was called meanwhile that cannot be captured."""
    graph = call("cuStreamEndCapture", handle("CUstream", stream))
    try:
        return CapturedGraph(call("cuGraphInstantiate", graph, 0))
    finally:
        call("cuGraphDestroy", graph)


def wait_for(other: int, stream: int) -> None:
    """What is put into `stream` from here on waits for what is in `other` now (1: the default stream, 2: that of the
    thread, as in `__cuda_array_interface__`). Raises CudaError."""
    event = call("cuEventCreate", int(constant("CUevent_flags", "CU_EVENT_DISABLE_TIMING")))
    try:
        call("cuEventRecord", event, handle("CUstream", other))
        call("cuStreamWaitEvent", handle("CUstream", stream), event, 0)
    finally:
        # Freed by the driver when the event has taken place.
        call("cuEventDestroy", event)
