"""What the GPU itself can say of time, and work that it is given as a whole.

Agents carry this file: standard library only, on Python 3.8 too. Tested against a stand-in of the
driver's library; not yet run on a GPU.

Source: CUDA Driver API, event management, stream management and graph management.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from ofa_deploy.errors import DeviceError

if TYPE_CHECKING:
    from ofa_deploy.runtimes.trt.cuda import Cuda

__all__ = ["RESOLUTION_MS", "Event", "Graph"]

RESOLUTION_MS = 0.0005  # of the time between two events, by the driver's manual
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may do as they like


class Event:
    """A moment in a GPU's stream, which the GPU notes when all that was queued before is done."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._handle = 0
        cuda.enter()
        self._handle = cuda.out(ctypes.c_void_p, "cuEventCreate", 0)

    def record(self) -> None:
        """Queue it."""
        self._cuda.call("cuEventRecord", self._handle, self._cuda.stream)

    def wait(self) -> None:
        """Wait until the GPU has come to it: busily, where the context was told to spin."""
        self._cuda.call("cuEventSynchronize", self._handle)

    def since(self, earlier: Event) -> float:
        """Milliseconds between two that the GPU has come to; the clock's resolution at least."""
        ms = self._cuda.out(ctypes.c_float, "cuEventElapsedTime", earlier._handle, self._handle)
        return max(float(ms), RESOLUTION_MS)

    def __del__(self) -> None:
        self._cuda.forget("cuEventDestroy_v2", self._handle)


class Graph:
    """Work that was queued once, as one thing that can be launched again and again.

    Args:
        work: queues it. Its memory and whatever else it uses must outlive this.

    Raises:
        DeviceError: if it does what cannot be captured.
    """

    def __init__(self, cuda: Cuda, work: Callable[[], None]) -> None:
        self._cuda = cuda
        self._handle = 0
        cuda.enter()
        captured = _captured(cuda, work)
        try:
            self._handle = cuda.out(ctypes.c_void_p, "cuGraphInstantiateWithFlags", captured, 0)
        finally:
            cuda.forget("cuGraphDestroy", captured)

    def launch(self) -> None:
        """Queue all of it."""
        self._cuda.call("cuGraphLaunch", self._handle, self._cuda.stream)

    def __del__(self) -> None:
        self._cuda.forget("cuGraphExecDestroy", self._handle)


def _captured(cuda: Cuda, work: Callable[[], None]) -> int:
    """The handle of what ``work`` queues; the stream takes work as before, whatever happens."""
    graph = ctypes.c_void_p()
    cuda.call("cuStreamBeginCapture_v2", cuda.stream, _THREAD_LOCAL)
    try:
        work()
    except BaseException:
        with contextlib.suppress(DeviceError):
            cuda.call("cuStreamEndCapture", cuda.stream, ctypes.byref(graph))
        cuda.forget("cuGraphDestroy", graph.value or 0)
        raise
    cuda.call("cuStreamEndCapture", cuda.stream, ctypes.byref(graph))
    return graph.value or 0
