"""Processes that prepare what steps need, ahead of them.

Each has a socket of its own, which ends with either side: nothing is shared that a killed process
could leave locked or half written, and no shared memory is needed, of which containers have little.
"""

import multiprocessing
import socket
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ofa_deploy.errors import DeviceError, OfaDeployError
from ofa_deploy.system import deaf_children, end_with_parent

__all__ = ["prepared"]

Arrays: TypeAlias = tuple[npt.NDArray[Any], ...]

# A fork would inherit the locks of whatever threads other libraries have started here.
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)
_PATIENCE_S = 600
_END_S = 5
_AGAIN = "run again, and it goes on from the last checkpoint"


def prepared(
    make: Callable[[int], Arrays], steps: range, workers: int
) -> Generator[Arrays, None, None]:
    """What ``make`` gives for each step, in order; closing ends the processes.

    Each process holds one result, and one more of each lies here.

    Args:
        make: taken along to each process; it gives arrays in C order.
        workers: processes, which take the steps in turns.

    Raises:
        DeviceError: if a process dies or cannot be started, or gives nothing for ten minutes.
        Exception: what ``make`` raised in a process.
    """
    started: list[_Worker] = []
    try:
        for i in range(min(workers, len(steps))):
            started.append(_Worker(make, steps[i::workers]))
        for _, worker in zip(steps, cycle(started), strict=False):
            yield worker.take()
    finally:
        for worker in started:
            worker.close()
        for worker in started:
            worker.join()


class _Worker:
    """A process, and the thread that starts it, listens to it and ends it."""

    def __init__(self, make: Callable[[int], Arrays], steps: range) -> None:
        self._ready: SimpleQueue[Arrays | Exception] = SimpleQueue()
        self._room = Semaphore(1)
        self._closed = False
        try:
            here, there = socket.socketpair()
            self._link = _Link(here)
        except OSError as error:
            raise _not_started(error) from None
        self._thread = Thread(target=self._listen, args=(there, make, steps), daemon=True)
        self._thread.start()

    def take(self) -> Arrays:
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
        self._link.cut()
        self._room.release()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(_END_S)

    def _listen(self, there: socket.socket, make: Callable[[int], Arrays], steps: range) -> None:
        process = _CONTEXT.Process(target=_work, args=(there,), daemon=True)
        with self._link as link:
            try:
                with there, deaf_children():
                    process.start()
                link.put(make)
                link.put(steps)
                for _ in steps:
                    self._room.acquire()
                    if self._closed:
                        break
                    self._ready.put(link.get_arrays())
            except Exception as error:
                if not self._closed:
                    self._ready.put(_told(error, process))
            finally:
                _end(process)


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


def _work(end: socket.socket) -> None:
    """What the process does, until nobody wants more."""
    end_with_parent()
    torch.set_num_threads(1)
    with _Link(end) as link, suppress(ConnectionError, EOFError):
        make, steps = link.get(), link.get()
        for step in steps:
            link.put_arrays(_attempt(make, step))


def _attempt(make: Callable[[int], Arrays], step: int) -> Arrays | Exception:
    try:
        return make(step)
    except OfaDeployError as error:
        return error
    except Exception as error:
        error.add_note(f"in a process that prepares images:\n{traceback.format_exc()}")
        return error


class _Link:
    """One end between two processes of this program: objects, and arrays as they lie."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._objects: Connection[Any, Any] = Connection(end.dup().detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._objects.close()

    def cut(self) -> None:
        """Wake whoever waits at either end."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def put(self, thing: object) -> None:
        self._objects.send(thing)

    def get(self) -> Any:
        return self._objects.recv()

    def put_arrays(self, made: Arrays | Exception) -> None:
        """Arrays in C order, or why there are none."""
        if isinstance(made, Exception):
            return self.put(made)
        self.put([(each.shape, each.dtype) for each in made])
        for each in made:
            self._end.sendall(each.data)

    def get_arrays(self) -> Arrays | Exception:
        found = self.get()
        if isinstance(found, Exception):
            return found
        made = tuple(np.empty(shape, dtype) for shape, dtype in found)
        for each in made:
            self._fill(each.reshape(-1).view(np.uint8).data)
        return made

    def _fill(self, room: memoryview) -> None:
        """In one call, which leaves Python to other threads, but for signals."""
        found = 0
        while found < len(room):
            more = self._end.recv_into(room[found:], 0, socket.MSG_WAITALL)
            if not more:
                raise EOFError("the other end is gone")
            found += more
