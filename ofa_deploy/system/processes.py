"""Processes of this interpreter that run a module of this package, wherever it was found."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import ParamSpec, TypeVar

__all__ = ["deaf_children", "end_with_parent", "module_command", "module_environment", "submit"]

P = ParamSpec("P")
R = TypeVar("R")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module such as ``ofa_deploy.profiling.worker``."""
    return [sys.executable, "-m", module, *arguments]


def module_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment for it: this one's, the same modules to be found, and some variables."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": path, **variables}


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that this thread starts within do not hear Ctrl-C, from their birth on.

    In a terminal it reaches all processes, and one that still imports would end in a traceback.
    This one hears it as ever.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # whose start would undo the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def submit(
    pool: ProcessPoolExecutor, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> "Future[R]":
    """Give a pool some work; processes that it starts for that do not hear Ctrl-C.

    Raises:
        BrokenProcessPool: if a process died, or cannot be started.
    """
    try:
        with deaf_children():
            return pool.submit(call, *args, **kwargs)
    except OSError as error:  # such as a queue of the pool that is closed, since it just broke
        raise BrokenProcessPool(str(error)) from error


def end_with_parent() -> None:
    """End this process of a pool as soon as the one that started it is gone, and on no Ctrl-C.

    A pool's own processes wait for more work for ever when the one that gives it is killed: each
    holds the other end of their queue open. Ctrl-C is the parent's business.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process of multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()
