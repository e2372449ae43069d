"""A TensorRT engine ("plan") on a GPU.

The module that is passed in is ``tensorrt`` 10.x or 11.x, or ``tensorrt_rtx``: what is used here
is the same in all. Agents carry this file: numpy and that module only, on Python 3.8 too.

Has run against stand-ins of TensorRT and of the CUDA driver only, never on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.trt.cuda import Buffer, Cuda
from ofa_deploy.runtimes.trt.module import name_of, quiet_log, refused

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["Plan"]


class Plan:
    """An engine on a GPU, ready to run.

    Args:
        trt: the module that built it.
        plan: bytes that are known to be whole: TensorRT may crash on others, and an engine can
            run any code, so load only what you built or trust.
        cuda: the GPU that is there.
        host_code: whether the plan may bring code for the host (version-compatible engines do).

    Raises:
        DeviceError: if TensorRT refuses it.
    """

    def __init__(self, trt: Any, plan: bytes, cuda: Cuda, *, host_code: bool = False) -> None:
        self._trt, self._cuda = trt, cuda
        self._log = quiet_log(trt)
        cuda.enter()
        self._runtime = trt.Runtime(self._log)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._expect(self._engine is not None)
        self._context: Any = self._engine.create_execution_context()
        self._expect(self._context is not None)
        self._input, self._output = self._tensors()
        self._batches, self._image = self._shape()
        self._arranged: _Place | None = None  # what the context is set to
        self._spare: _Place | None = None  # of the latest ``run``

    def _tensors(self) -> tuple[str, str]:
        trt, engine = self._trt, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        floats = all(engine.get_tensor_dtype(name) == trt.DataType.FLOAT for name in names)
        if len(inputs) != 1 or len(outputs) != 1 or not floats:
            raise DeviceError(
                f"{name_of(trt)}: expected an engine of one float32 input and one float32 output, "
                f"found {', '.join(names)[:200]}"
            )
        return inputs[0], outputs[0]

    def _shape(self) -> tuple[range, tuple[int, ...]]:
        """The batches it takes, and the shape of one image."""
        batch, *image = self._engine.get_tensor_shape(self._input)
        if batch != -1:
            return range(batch, batch + 1), tuple(image)
        least, _, greatest = self._engine.get_tensor_profile_shape(self._input, 0)
        return range(least[0], greatest[0] + 1), tuple(image)

    def run(self, images: Floats) -> Floats:
        """One inference; more images than the engine's greatest batch go in parts.

        Args:
            images: float32, (batch, …) as the model has them.

        Returns:
            The model's output, float32.

        Raises:
            DeviceError: if the images do not fit, or the GPU fails.
        """
        self._check(images, parts=True)
        most = self._batches[-1]
        parts = [self._run(images[start : start + most]) for start in range(0, len(images), most)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, images: Floats) -> Floats:
        self._cuda.enter()
        images = np.ascontiguousarray(images)
        if self._spare is None or self._spare.shape != images.shape:
            self._spare = self._room(images.shape)
        place = self._spare
        output = np.empty(place.output_shape, np.float32)
        self._cuda.upload(place.input, images)
        self._enqueue(place)
        self._cuda.download(output, place.output)
        self._cuda.synchronize()
        return output

    def bound(self, images: Floats) -> Callable[[], None]:
        """A call that runs on ``images``, which already lie on the GPU, and waits for the end.

        Copies to and from the GPU are not part of it.

        Raises:
            DeviceError: as ``run``; more images than the greatest batch do not fit.
        """
        queue = self.queued(images)

        def call() -> None:
            queue()
            self._cuda.synchronize()

        return call

    def queued(self, images: Floats) -> Callable[[], None]:
        """As ``bound``, but the call only queues the work and does not wait for its end."""
        self._check(images, parts=False)
        images = np.ascontiguousarray(images)
        place = self._room(images.shape)
        self._cuda.upload(place.input, images)
        self._cuda.synchronize()
        return functools.partial(self._enqueue, place)

    def _check(self, images: Floats, *, parts: bool) -> None:
        least, most = self._batches[0], self._batches[-1]
        batches = {min(most, len(images)), len(images) % most or most} if parts else {len(images)}
        fits = len(images) and all(batch in self._batches for batch in batches)
        if not fits or images.shape[1:] != self._image or images.dtype != np.float32:
            batch = f"{least}–{most}" if most > least else f"{least}"
            raise DeviceError(
                f"{name_of(self._trt)}: expected float32 images of shape "
                f"({', '.join([batch, *map(str, self._image)])}), found {images.dtype} "
                f"{images.shape}"
            )

    def _room(self, shape: tuple[int, ...]) -> _Place:
        """Room on the GPU for images of that shape and for what comes of them."""
        self._cuda.enter()
        self._arranged = None
        self._expect(self._context.set_input_shape(self._input, shape))
        output_shape = tuple(self._context.get_tensor_shape(self._output))
        sizes = [4 * int(np.prod(each)) for each in (shape, output_shape)]
        return _Place(shape, output_shape, *map(self._cuda.allocate, sizes))

    def _enqueue(self, place: _Place) -> None:
        """Queue an inference; the context keeps to the place that it was told last."""
        self._cuda.enter()
        context = self._context
        if self._arranged is not place:
            self._expect(
                context.set_input_shape(self._input, place.shape)
                and context.set_tensor_address(self._input, place.input.address)
                and context.set_tensor_address(self._output, place.output.address)
            )
            self._arranged = place
        self._expect(context.execute_async_v3(self._cuda.stream))

    def _expect(self, done: bool) -> None:
        if not done:
            raise refused(self._trt, self._log)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where images of one shape and their results lie on the GPU."""

    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input: Buffer
    output: Buffer
