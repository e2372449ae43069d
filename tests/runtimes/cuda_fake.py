"""A stand-in for the CUDA driver's library: its binary interface over this machine's memory.

Each function is a C function pointer, so calls go through the same conversions as real ones.
Work on a stream waits until the stream is synchronised, as late as the driver may do it, and takes
the time that it is said to take on the fake's own clock. What the driver would refuse is refused
with its error codes: memory that is not allocated, sizes that do not fit, a thread without a
context, waiting while a stream is captured.
"""

import ctypes
import itertools
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["FakeCudaLibrary"]

INVALID_VALUE, OUT_OF_MEMORY, NO_DEVICE, INVALID_CONTEXT, ILLEGAL_ADDRESS = 1, 2, 100, 201, 700
INVALID_HANDLE, ILLEGAL_STATE, NOT_READY, CONTEXT_ACTIVE = 400, 401, 600, 708
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
_TEXTS = {
    INVALID_VALUE: b"invalid argument",
    OUT_OF_MEMORY: b"out of memory",
    NO_DEVICE: b"no CUDA-capable device is detected",
    INVALID_CONTEXT: b"invalid device context",
    ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
    INVALID_HANDLE: b"invalid resource handle",
    NOT_READY: b"device not ready",
    CAPTURE_UNSUPPORTED: b"operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
}
_CONTEXT, _STREAM = 0x77, 0x99

c_int, c_uint, c_size_t, c_void_p = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p
c_uint64, pointer = ctypes.c_uint64, ctypes.POINTER


class FakeCudaLibrary:
    """What ``ctypes.CDLL("libcuda.so.1")`` gives, with one device or none.

    Attributes:
        memory: what is allocated: address to bytes.
        failures: function to the error code that it shall return from now on.
        copies: bytes that went to the device and came back.
        clock_ms: how long the device has worked.
        flags: of the primary context, such as 1 for spinning; None if they were never set.
        events: handle to when the device came to it; None if it has not, or was not asked to.
        graphs: what was captured and not given back: handle to work.
        executables: what can be launched: handle to work.
        launches: how many graphs were launched.
    """

    def __init__(
        self,
        capability: tuple[int, int] | None = (8, 7),
        *,
        name: str = "Fake Orin",
        room: int = 2**28,
    ) -> None:
        self.capability, self.name, self.room = capability, name, room
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.failures: dict[str, int] = {}
        self.copies = [0, 0]
        self.clock_ms = 0.0
        self.flags: int | None = None
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Callable[[], int]]] = {}
        self.executables: dict[int, list[Callable[[], int]]] = {}
        self.launches = 0
        self._queue: list[Callable[[], int]] = []
        self._captured: list[Callable[[], int]] | None = None
        self._spoiled = self._retained = False
        self._handles = itertools.count(0x7F00_0000_1000, 16)
        self._thread = threading.local()
        self._texts = {code: ctypes.create_string_buffer(text) for code, text in _TEXTS.items()}
        kinds = {
            "cuInit": (c_uint,),
            "cuGetErrorString": (c_int, pointer(c_void_p)),
            "cuDeviceGetCount": (pointer(c_int),),
            "cuDeviceGet": (pointer(c_int), c_int),
            "cuDeviceGetName": (c_void_p, c_int, c_int),
            "cuDeviceGetAttribute": (pointer(c_int), c_int, c_int),
            "cuDevicePrimaryCtxRetain": (pointer(c_void_p), c_int),
            "cuCtxSetCurrent": (c_void_p,),
            "cuMemAlloc_v2": (pointer(c_uint64), c_size_t),
            "cuMemFree_v2": (c_uint64,),
            "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
            "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
            "cuStreamCreate": (pointer(c_void_p), c_uint),
            "cuStreamSynchronize": (c_void_p,),
            "cuDevicePrimaryCtxSetFlags_v2": (c_int, c_uint),
            "cuStreamBeginCapture_v2": (c_void_p, c_int),
            "cuStreamEndCapture": (c_void_p, pointer(c_void_p)),
            "cuGraphInstantiateWithFlags": (pointer(c_void_p), c_void_p, ctypes.c_ulonglong),
            "cuGraphLaunch": (c_void_p, c_void_p),
            "cuGraphDestroy": (c_void_p,),
            "cuGraphExecDestroy": (c_void_p,),
            "cuEventCreate": (pointer(c_void_p), c_uint),
            "cuEventRecord": (c_void_p, c_void_p),
            "cuEventSynchronize": (c_void_p,),
            "cuEventElapsedTime": (pointer(ctypes.c_float), c_void_p, c_void_p),
            "cuEventDestroy_v2": (c_void_p,),
        }
        for function, arguments in kinds.items():
            setattr(self, function, self._export(function, arguments))

    def _export(self, name: str, arguments: tuple[Any, ...]) -> Any:
        body = getattr(self, f"_{name}")
        anywhere = {"cuInit", "cuGetErrorString", "cuCtxSetCurrent", "cuDevicePrimaryCtxRetain"}

        def call(*values: Any) -> int:
            if name in self.failures:
                return self.failures[name]
            on_device = not name.startswith("cuDevice") and name not in anywhere
            if on_device and getattr(self._thread, "context", None) != _CONTEXT:
                return INVALID_CONTEXT
            return int(body(*values) or 0)

        return ctypes.CFUNCTYPE(c_int, *arguments)(call)

    def is_stream(self, handle: int) -> bool:
        return handle == _STREAM

    def enqueue(self, work: Callable[[], int], ms: float = 0.0) -> None:
        """Queue what a kernel would do, and how long it takes; it returns an error code."""

        def done() -> int:
            self.clock_ms += ms
            return work()

        (self._queue if self._captured is None else self._captured).append(done)

    def _waits(self) -> bool:
        """Whether somebody waits for a stream that is captured, which spoils the capture."""
        self._spoiled = self._spoiled or self._captured is not None
        return self._captured is not None

    def at(self, address: int, size: int) -> Any:
        """Device memory as an array of bytes; None if it is not allocated so far."""
        found = self.memory.get(address)
        if found is None or size > len(found):
            return None
        return (ctypes.c_char * size).from_buffer(found)

    def _cuInit(self, flags: int) -> int:
        return INVALID_VALUE if flags else (0 if self.capability else NO_DEVICE)

    def _cuGetErrorString(self, code: int, out: Any) -> int:
        if code not in self._texts:
            return INVALID_VALUE
        out[0] = ctypes.addressof(self._texts[code])
        return 0

    def _cuDeviceGetCount(self, out: Any) -> None:
        out[0] = 1

    def _cuDeviceGet(self, out: Any, ordinal: int) -> int:
        out[0] = 5
        return INVALID_VALUE if ordinal else 0

    def _cuDeviceGetName(self, out: int, size: int, device: int) -> int:
        text = self.name.encode()[: size - 1] + b"\0"
        ctypes.memmove(out, text, len(text))
        return 0 if device == 5 else INVALID_VALUE

    def _cuDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> int:
        if attribute not in (75, 76) or device != 5 or self.capability is None:
            return INVALID_VALUE
        out[0] = self.capability[attribute - 75]
        return 0

    def _cuDevicePrimaryCtxRetain(self, out: Any, device: int) -> int:
        out[0] = _CONTEXT
        self._retained = True
        return 0 if device == 5 else INVALID_VALUE

    def _cuDevicePrimaryCtxSetFlags_v2(self, device: int, flags: int) -> int:
        if self._retained:  # so older drivers
            return CONTEXT_ACTIVE
        self.flags = flags
        return 0 if device == 5 else INVALID_VALUE

    def _cuCtxSetCurrent(self, context: int) -> int:
        self._thread.context = context
        return 0 if context == _CONTEXT else INVALID_CONTEXT

    def _cuMemAlloc_v2(self, out: Any, size: int) -> int:
        if self._waits():
            return CAPTURE_UNSUPPORTED
        if not size:
            return INVALID_VALUE
        if size + sum(map(len, self.memory.values())) > self.room:
            return OUT_OF_MEMORY
        block = ctypes.create_string_buffer(b"\xff" * size, size)  # NaN, as float32
        out[0] = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block
        return 0

    def _cuMemFree_v2(self, address: int) -> int:
        self._cuStreamSynchronize(_STREAM)
        return 0 if self.memory.pop(address, None) is not None else INVALID_VALUE

    def _cuMemcpyHtoDAsync_v2(self, target: int, source: int, size: int, stream: int) -> int:
        def copy() -> int:
            if (place := self.at(target, size)) is None:
                return ILLEGAL_ADDRESS
            ctypes.memmove(place, source, size)
            self.copies[0] += size
            return 0

        self.enqueue(copy)
        return 0 if self.is_stream(stream) else INVALID_VALUE

    def _cuMemcpyDtoHAsync_v2(self, target: int, source: int, size: int, stream: int) -> int:
        def copy() -> int:
            if (place := self.at(source, size)) is None:
                return ILLEGAL_ADDRESS
            ctypes.memmove(target, place, size)
            self.copies[1] += size
            return 0

        self.enqueue(copy)
        return 0 if self.is_stream(stream) else INVALID_VALUE

    def _cuStreamCreate(self, out: Any, flags: int) -> int:
        out[0] = _STREAM
        return 0 if flags in (0, 1) else INVALID_VALUE

    def _cuStreamSynchronize(self, stream: int) -> int:
        if self._waits():
            return CAPTURE_UNSUPPORTED
        queue, self._queue = self._queue, []
        codes = [work() for work in queue]
        if not self.is_stream(stream):
            return INVALID_VALUE
        return next(filter(None, codes), 0)

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        if self._captured is not None:
            return ILLEGAL_STATE
        self._captured, self._spoiled = [], False
        return 0 if self.is_stream(stream) and mode in (0, 1, 2) else INVALID_VALUE

    def _cuStreamEndCapture(self, stream: int, out: Any) -> int:
        captured, self._captured = self._captured, None
        if captured is None:
            return ILLEGAL_STATE
        if self._spoiled:
            out[0] = None
            return CAPTURE_INVALIDATED
        out[0] = handle = next(self._handles)
        self.graphs[handle] = captured
        return 0 if self.is_stream(stream) else INVALID_VALUE

    def _cuGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> int:
        if graph not in self.graphs or flags:
            return INVALID_VALUE
        out[0] = handle = next(self._handles)
        self.executables[handle] = list(self.graphs[graph])
        return 0

    def _cuGraphLaunch(self, graph: int, stream: int) -> int:
        if graph not in self.executables or not self.is_stream(stream):
            return INVALID_HANDLE
        self.launches += 1
        self._queue += self.executables[graph]
        return 0

    def _cuGraphDestroy(self, graph: int) -> int:
        return 0 if self.graphs.pop(graph, None) is not None else INVALID_VALUE

    def _cuGraphExecDestroy(self, graph: int) -> int:
        return 0 if self.executables.pop(graph, None) is not None else INVALID_VALUE

    def _cuEventCreate(self, out: Any, flags: int) -> int:
        out[0] = handle = next(self._handles)
        self.events[handle] = None
        return INVALID_VALUE if flags & ~7 else 0

    def _cuEventRecord(self, event: int, stream: int) -> int:
        if event not in self.events or not self.is_stream(stream):
            return INVALID_HANDLE
        self.events[event] = None

        def come_to_it() -> int:
            self.events[event] = self.clock_ms
            return 0

        self.enqueue(come_to_it)
        return 0

    def _cuEventSynchronize(self, event: int) -> int:
        return self._cuStreamSynchronize(_STREAM) if event in self.events else INVALID_HANDLE

    def _cuEventElapsedTime(self, out: Any, start: int, end: int) -> int:
        if not {start, end} <= self.events.keys():
            return INVALID_HANDLE
        first, last = self.events[start], self.events[end]
        if first is None or last is None:
            return NOT_READY
        out[0] = last - first
        return 0

    def _cuEventDestroy_v2(self, event: int) -> int:
        return 0 if self.events.pop(event, -1.0) != -1.0 else INVALID_VALUE
