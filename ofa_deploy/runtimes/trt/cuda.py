"""The few calls of the CUDA driver that an inference needs, through ctypes.

The driver's own library is on every machine that has an NVIDIA GPU, Jetson included, so nothing
is installed for it. Work goes to the device's primary context, which the CUDA runtime (and with it
TensorRT and PyTorch) uses too. Agents carry this file: standard library only, on Python 3.8 too.

Tested against a stand-in library with the driver's binary interface, which is held to its headers
(CUDA 12.6 and 13.5); not yet run on a GPU.

Source: CUDA Driver API, docs.nvidia.com/cuda/cuda-driver-api.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from typing import TYPE_CHECKING, Any

from ofa_deploy.errors import DeviceError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["GPU_ORDER", "Buffer", "Cuda", "count_as_nvml", "gpu"]

GPU_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # CUDA then counts GPUs as NVML does

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_SPIN = 1  # CU_CTX_SCHED_SPIN

_Out = ctypes.POINTER
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorString": (ctypes.c_int, _Out(ctypes.c_char_p)),
    "cuDeviceGetCount": (_Out(ctypes.c_int),),
    "cuDeviceGet": (_Out(ctypes.c_int), ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetAttribute": (_Out(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxSetFlags_v2": (ctypes.c_int, ctypes.c_uint),
    "cuDevicePrimaryCtxRetain": (_Out(ctypes.c_void_p), ctypes.c_int),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuMemAlloc_v2": (_Out(ctypes.c_uint64), ctypes.c_size_t),
    "cuMemFree_v2": (ctypes.c_uint64,),
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuStreamCreate": (_Out(ctypes.c_void_p), ctypes.c_uint),
    "cuStreamSynchronize": (ctypes.c_void_p,),
    "cuStreamBeginCapture_v2": (ctypes.c_void_p, ctypes.c_int),
    "cuStreamEndCapture": (ctypes.c_void_p, _Out(ctypes.c_void_p)),
    "cuGraphInstantiateWithFlags": (_Out(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_ulonglong),
    "cuGraphLaunch": (ctypes.c_void_p, ctypes.c_void_p),
    "cuGraphDestroy": (ctypes.c_void_p,),
    "cuGraphExecDestroy": (ctypes.c_void_p,),
    "cuEventCreate": (_Out(ctypes.c_void_p), ctypes.c_uint),
    "cuEventRecord": (ctypes.c_void_p, ctypes.c_void_p),
    "cuEventSynchronize": (ctypes.c_void_p,),
    "cuEventElapsedTime": (_Out(ctypes.c_float), ctypes.c_void_p, ctypes.c_void_p),
    "cuEventDestroy_v2": (ctypes.c_void_p,),
}
# Later names of functions that did not change otherwise, for drivers that drop the first.
_LATER = {"cuEventElapsedTime": "cuEventElapsedTime_v2"}


class Cuda:
    """One GPU, its primary context and one stream.

    Both live as long as the process: the primary context is shared, and costs nothing to keep.

    Args:
        ordinal: which of the visible devices.
        library: the driver's library; the system's own when not given.
        spin: whether a thread that waits for the GPU keeps its core busy meanwhile, and so hears
            of the end at once. It holds for the whole process, if nothing used the GPU before.

    Attributes:
        name: as the driver calls the device.
        capability: its compute capability, such as (8, 7).
        stream: handle of the stream that all work goes to.

    Raises:
        DeviceError: if there is no driver or no such device.
    """

    def __init__(self, ordinal: int = 0, library: Any = None, *, spin: bool = False) -> None:
        self._functions = _functions(library if library is not None else _system_library())
        self.call("cuInit", 0)
        count = self.out(ctypes.c_int, "cuDeviceGetCount")
        if not 0 <= ordinal < count:
            raise DeviceError(f"cuda: expected a device {ordinal}, found {count} devices")
        device = self.out(ctypes.c_int, "cuDeviceGet", ordinal)
        name_buffer = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name_buffer, len(name_buffer), device)
        self.name = name_buffer.value.decode(errors="replace")
        self.capability: tuple[int, int] = (
            self.out(ctypes.c_int, "cuDeviceGetAttribute", _MAJOR, device),
            self.out(ctypes.c_int, "cuDeviceGetAttribute", _MINOR, device),
        )
        if spin:
            self.call("cuDevicePrimaryCtxSetFlags_v2", device, _SPIN)
        self._context = self.out(ctypes.c_void_p, "cuDevicePrimaryCtxRetain", device)
        self.enter()
        self.stream: int = self.out(ctypes.c_void_p, "cuStreamCreate", _NON_BLOCKING)

    def enter(self) -> None:
        """Make the device's context that of the calling thread; cheap when it is already."""
        self.call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> Buffer:
        """A buffer of ``size`` bytes on the device.

        Raises:
            DeviceError: if there is no room.
        """
        return Buffer(self, size)

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Queue a copy to the device; ``array`` must stay as it is until ``synchronize``."""
        _fits(buffer, array)
        self.call(
            "cuMemcpyHtoDAsync_v2", buffer.address, array.ctypes.data, array.nbytes, self.stream
        )

    def download(self, array: npt.NDArray[Any], buffer: Buffer) -> None:
        """Queue a copy from the device; ``array`` is whole after ``synchronize``."""
        _fits(buffer, array)
        self.call(
            "cuMemcpyDtoHAsync_v2", array.ctypes.data, buffer.address, array.nbytes, self.stream
        )

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self.call("cuStreamSynchronize", self.stream)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DeviceError: with the driver's own words if it fails, or if it has no such function.
        """
        function = self._functions.get(name)
        if function is None:
            raise DeviceError(f"cuda: the driver has no {name}; install a later one")
        if code := function(*arguments):
            raise DeviceError(f"cuda: {name}: {self._error_text(code)}")

    def out(self, kind: Any, name: str, *arguments: Any) -> Any:
        """Call a function whose first argument is where its result goes."""
        result = kind()
        self.call(name, ctypes.byref(result), *arguments)
        return result.value

    def forget(self, name: str, handle: int) -> None:
        """Give something back, at whatever moment Python lets go of it; failures change nothing."""
        if handle and not sys.is_finalizing():
            with contextlib.suppress(DeviceError):
                self.enter()
                self.call(name, handle)

    def _error_text(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._functions["cuGetErrorString"](code, ctypes.byref(text))
        return f"error {code}" + (f", {text.value.decode()}" if text.value else "")


class Buffer:
    """Memory on the device, given back when nothing refers to it any more."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size
        self.address: int = 0
        self._cuda = cuda
        cuda.enter()
        self.address = cuda.out(ctypes.c_uint64, "cuMemAlloc_v2", max(1, size))

    def __del__(self) -> None:
        self._cuda.forget("cuMemFree_v2", self.address)


@functools.lru_cache(maxsize=None)  # noqa: UP033 - functools.cache is younger than Python 3.8
def gpu(ordinal: int = 0, *, spin: bool = False) -> Cuda:
    """This machine's GPU, opened once a process; the arguments are those of ``Cuda``.

    Raises:
        DeviceError: if there is none.
    """
    return Cuda(ordinal, spin=spin)


def count_as_nvml() -> None:
    """Let the driver count GPUs as NVML does, if this process has not asked it for any yet.

    Else the fastest is the first one here, and another one where models are timed.
    """
    os.environ.update(GPU_ORDER)


def _fits(buffer: Buffer, array: npt.NDArray[Any]) -> None:
    if array.nbytes > buffer.size or not array.flags.c_contiguous:
        raise DeviceError(
            f"cuda: expected at most {buffer.size} contiguous bytes, found {array.nbytes}"
        )


def _system_library() -> Any:
    count_as_nvml()
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        raise DeviceError(f"no NVIDIA driver here ({LIBRARY} does not load)") from None


def _functions(library: Any) -> dict[str, Any]:
    """By name; older drivers lack some."""
    found = {}
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name, None) or getattr(library, _LATER.get(name, name), None)
        if function is not None:
            function.argtypes, function.restype = arguments, ctypes.c_int
            found[name] = function
    return found
