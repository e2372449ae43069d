"""One inference of an engine, timed by the GPU that runs it.

What is timed is the time between two events in the GPU's stream, one queued right before the
inference and one right after it: what the GPU takes for it, from images that lie on it to results
that lie on it. Copies to and from the GPU are not part of it, nor is how the host hears of the end.
``trtexec`` calls it the GPU compute time.

Small batches are launched as one CUDA graph: else the GPU would wait for the host between the
kernels of a small network, and the time would be the host's. A launch's own few microseconds are
part of it, as they are of the empty graph, which tables subtract. While the host waits it keeps
its core busy (``Cuda(spin=True)``, as ``trtexec --useSpinWait``): the next inference is launched
sooner, and the GPU has no time to lower its clocks.

Agents carry this file: numpy and that module only, on Python 3.8 too. Has run against stand-ins of
TensorRT and of the CUDA driver only, never on a GPU.

Source: TensorRT's documentation, "CUDA events" and "CUDA graphs" among its advice on performance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.trt.events import Event, Graph

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ofa_deploy.runtimes.trt.cuda import Cuda
    from ofa_deploy.runtimes.trt.plan import Plan

__all__ = ["Timed"]


class Timed:
    """A call is one inference, and returns its time on the GPU in ms.

    Args:
        plan: the engine; nothing else may run it while this is used.
        images: float32, as the engine takes them.
        graph_batch: the greatest batch that is launched as a CUDA graph.

    Attributes:
        graph: whether it is launched as one.
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
        self.refusal = ""
        if len(images) <= graph_batch:
            self._capture()

    def _capture(self) -> None:
        try:
            graph = Graph(self._cuda, self._queue)
            graph.launch()
            self._cuda.synchronize()
        except DeviceError as error:  # an engine that waits for the host cannot be captured, say
            self.refusal = str(error)
        else:
            self._launch = graph.launch

    @property
    def graph(self) -> bool:
        return self._launch is not self._queue

    def __call__(self) -> float:
        self._cuda.enter()
        self._start.record()
        self._launch()
        self._end.record()
        self._end.wait()
        return self._end.since(self._start)
