"""Processes that prepare what steps need, ahead of them.

Each has a socket of its own, which ends with either side: nothing is shared that a killed process
could leave locked or half written, and no shared memory is needed, of which containers have little.
"""

import multiprocessing
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import cycle
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, TypeVar

import numpy as np
import torch

from ofa_deploy.errors import DeviceError, OfaDeployError
from ofa_deploy.system import end_with_parent

__all__ = ["prepared"]

T = TypeVar("T")

# A fork would inherit the locks of whatever threads other libraries have started here.
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)
_PATIENCE_S = 600
_END_S = 5
_AGAIN = "run again, and it goes on from the last checkpoint"


def prepared(make: Callable[[int], T], steps: range, workers: int) -> Generator[T, None, None]:
    """What ``make`` gives for each step, in order; closing ends the processes.

    Each process holds one result, and one more of each lies here.

    Args:
        make: pickled once; so is what it gives, of which contiguous arrays are not copied.
        workers: processes, which take the steps in turns.

    Raises:
        DeviceError: if a process dies or cannot be started, or gives nothing for ten minutes.
        Exception: what ``make`` raised in a process.
    """
    started: list[_Worker] = []
    try:
        task = _packed(make)
        for i in range(min(workers, len(steps))):
            started.append(_Worker(task, steps[i::workers]))
        for _, worker in zip(steps, cycle(started), strict=False):
            yield worker.take()
    finally:
        for worker in started:
            worker.close()
        for worker in started:
            worker.join()


class _Worker:
    """A process, and the thread that starts it, listens to it and ends it."""

    def __init__(self, task: list[memoryview], steps: range) -> None:
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._room = Semaphore(1)
        self._closed = False
        try:
            self._here, self._there = socket.socketpair()
        except OSError as error:
            raise _not_started(error) from None
        self._thread = Thread(target=self._listen, args=(task, steps), daemon=True)
        self._thread.start()

    def take(self) -> Any:
        """Its next result."""
        for _ in range(_PATIENCE_S):  # in seconds that are counted: a suspended run waits too
            with suppress(Empty):
                found = self._ready.get(timeout=1)
                self._room.release()
                if isinstance(found, Exception):
                    raise found
                return found
        raise DeviceError(
            f"expected images within {_PATIENCE_S} s, found none: a process that prepares them is "
            f"stuck; see whether the disk that they are read from answers, and {_AGAIN}"
        )

    def close(self) -> None:
        """Let it end soon, whatever it waits for."""
        self._closed = True
        with suppress(OSError):
            self._here.shutdown(socket.SHUT_RDWR)
        self._room.release()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(_END_S)

    def _listen(self, task: list[memoryview], steps: range) -> None:
        process = _CONTEXT.Process(target=_work, args=(self._there,), daemon=True)
        with self._here:
            try:
                with self._there:
                    _start_deaf(process)
                _send(self._here, task)
                _send(self._here, _packed(steps))
                for _ in steps:
                    self._room.acquire()
                    if self._closed:
                        break
                    self._ready.put(_receive(self._here))
            except Exception as error:
                if not self._closed:
                    self._ready.put(_told(error, process))
            finally:
                _end(process)


def _start_deaf(process: BaseProcess) -> None:
    """Start a process that Ctrl-C in a terminal, which reaches all, does not end half-made."""
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # which would clear the mask of this thread
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()


def _end(process: BaseProcess) -> None:
    if process.pid is not None:
        process.kill()
        process.join(_END_S)


def _told(error: Exception, process: BaseProcess) -> Exception:
    """What went wrong between here and a process, in one line where it is not a fault of ours."""
    if not isinstance(error, OSError | EOFError):
        return error
    if process.pid is None:
        return _not_started(error)
    process.join(_END_S)
    code = process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return DeviceError(
        f"a process that prepares images died ({how}; out of memory?); ask for fewer by "
        f"--workers and {_AGAIN}"
    )


def _not_started(error: Exception) -> DeviceError:
    return DeviceError(
        f"a process that prepares images could not be started "
        f"({str(error) or type(error).__name__}); ask for fewer by --workers, 0 for none, and "
        f"{_AGAIN}"
    )


def _work(link: socket.socket) -> None:
    """What the process does, until nobody wants more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)
    with suppress(ConnectionError, EOFError):
        make, steps = _receive(link), _receive(link)
        for step in steps:
            _send(link, _packed(_attempt(make, step)))


def _attempt(make: Callable[[int], Any], step: int) -> Any:
    try:
        return make(step)
    except OfaDeployError as error:
        return error
    except Exception as error:
        error.add_note(f"in a process that prepares images:\n{traceback.format_exc()}")
        return error


_COUNT = struct.Struct("<Q")


def _packed(thing: object) -> list[memoryview]:
    """A thing as bytes: those of contiguous arrays as they lie, after all others."""
    buffers: list[pickle.PickleBuffer] = []
    whole = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return [memoryview(whole), *(buffer.raw() for buffer in buffers)]


def _send(link: socket.socket, parts: list[memoryview]) -> None:
    sizes = [len(part) for part in parts]
    link.sendall(_COUNT.pack(len(sizes)) + b"".join(map(_COUNT.pack, sizes)))
    for part in parts:
        link.sendall(part)


def _receive(link: socket.socket) -> Any:
    (count,) = _COUNT.unpack(_read(link, _COUNT.size))
    sizes = [size for (size,) in _COUNT.iter_unpack(_read(link, count * _COUNT.size))]
    whole, *buffers = [_read(link, size) for size in sizes]
    return pickle.loads(whole, buffers=buffers)


def _read(link: socket.socket, size: int) -> memoryview:
    """So many bytes, writable; in one call, which leaves Python to other threads."""
    view = np.empty(size, np.uint8).data
    found = 0
    while found < size:
        more = link.recv_into(view[found:], 0, socket.MSG_WAITALL)
        if not more:
            raise EOFError("the other side is gone")
        found += more
    return view
