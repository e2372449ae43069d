"""Inferences of an engine, timed by the GPU that runs it.

What is timed is the time between two events in the GPU's stream, one queued right before the
inference and one right after it: what the GPU takes for it, from images that lie on it to results
that lie on it. Copies to and from the GPU are not part of it, nor is how the host hears of the end.
``trtexec`` calls it the GPU compute time.

Small batches are launched as one CUDA graph: else the GPU would wait for the host between the
kernels of a small network, and the time would be the host's. A launch's own few microseconds are
part of it, as they are of the empty graph, which tables subtract. What is over sooner than the
clock of events can tell well is put into one graph several times, one inference after another; the
time, and so a launch's share of it, is divided by their number. While the host waits it keeps its
core busy (``Cuda(spin=True)``, as ``trtexec --useSpinWait``): the next inference is launched
sooner, and the GPU has no time to lower its clocks.

Agents carry this file: numpy and that module only, on Python 3.8 too. Has run against stand-ins of
TensorRT and of the CUDA driver only, never on a GPU.

Source: TensorRT's documentation, "CUDA events" and "CUDA graphs" among its advice on performance.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.trt.events import Event, Graph

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ofa_deploy.runtimes.trt.cuda import Cuda
    from ofa_deploy.runtimes.trt.plan import Plan

__all__ = ["Timed"]

_LEAST_MS = 0.1  # between two events; their clock tells 0.5 µs, and so half a percent of it
_MOST = 100  # inferences of a graph


class Timed:
    """A call is an inference, or some, and returns the time of one on the GPU in ms.

    Args:
        plan: the engine; nothing else may run it while this is used.
        images: float32, as the engine takes them.
        graph_batch: the greatest batch that is launched as a CUDA graph.

    Attributes:
        graph: whether it is launched as one.
        inferences: of a call; its time is that of one of them.
        refusal: why it could not be, in one line; empty if it is, or was not to be.

    Raises:
        DeviceError: if the images do not fit, or the GPU fails.
    """

    def __init__(
        self, plan: Plan, cuda: Cuda, images: npt.NDArray[np.float32], *, graph_batch: int
    ) -> None:
        self._cuda = cuda
        self._queue = plan.queued(images)  # it holds what a graph uses and does not hold
        self._start, self._end = Event(cuda), Event(cuda)
        self._queue()  # the context prepares itself for a shape in the first one
        cuda.synchronize()
        self._launch = self._queue
        self.refusal, self.inferences = "", 1
        if len(images) <= graph_batch:
            self._capture()

    def _capture(self) -> None:
        try:
            self._use_graph(1)
        except DeviceError as error:  # an engine that waits for the host cannot be captured, say
            self.refusal = str(error)
            return
        times = math.ceil(_LEAST_MS / min(self() for _ in range(3)))
        if times > 1:
            with contextlib.suppress(DeviceError):  # then it stays at one
                self._use_graph(min(times, _MOST))

    def _use_graph(self, inferences: int) -> None:
        def queue() -> None:
            for _ in range(inferences):
                self._queue()

        graph = Graph(self._cuda, queue)
        graph.launch()
        self._cuda.synchronize()
        self._launch, self.inferences = graph.launch, inferences

    @property
    def graph(self) -> bool:
        return self._launch is not self._queue

    def __call__(self) -> float:
        self._cuda.enter()
        self._start.record()
        self._launch()
        self._end.record()
        self._end.wait()
        return self._end.since(self._start) / self.inferences
