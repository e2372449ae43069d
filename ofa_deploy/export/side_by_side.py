"""Drafts of several subnets, made one after another or by processes side by side."""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import NamedTuple

import torch

from ofa_deploy.data import Images
from ofa_deploy.errors import (
    DeviceError,
    FileFormatError,
    GateError,
    InputError,
    MismatchError,
    MissingDependencyError,
    OfaDeployError,
    StorageError,
)
from ofa_deploy.export.draft import Draft, draft
from ofa_deploy.export.options import ExportOptions
from ofa_deploy.system import end_with_parent, submit
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Shared", "made_side_by_side"]


class Shared(NamedTuple):
    """What all drafts need: images to compare on, images to calibrate with, options."""

    test: Images
    calibration: Images | None
    options: ExportOptions


_Made = Draft | OfaDeployError
_KINDS: tuple[type[OfaDeployError], ...] = (
    FileFormatError,
    MismatchError,
    InputError,
    MissingDependencyError,
    StorageError,
    GateError,
    DeviceError,
    OfaDeployError,
)


def made_side_by_side(
    pairs: Sequence[tuple[Path, Path]], shared: Shared, workers: int, progress: Progress
) -> Iterable[tuple[int, _Made]]:
    """Drafts, or why there is none, each with its place.

    While they are taken nothing else is built: that would disturb the timing.

    Args:
        pairs: subnet files with the stages to write to.
        workers: processes; with 1 all is made in this one, a draft when it is asked for.
    """
    if workers == 1 or len(pairs) == 1:
        return ((i, _draft_or_error(*pair, shared, progress)) for i, pair in enumerate(pairs))
    return enumerate(_by_processes(pairs, shared, min(workers, len(pairs)), progress))


def _by_processes(
    pairs: Sequence[tuple[Path, Path]], shared: Shared, workers: int, progress: Progress
) -> list[_Made]:
    """All drafts, made by processes that have ended."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's locks
    threads = max(1, (os.cpu_count() or 1) // workers)
    with (
        progress.task(f"build {len(pairs)} subnets", len(pairs)) as task,
        _handed_out(shared, workers, context) as handed,
        ProcessPoolExecutor(workers, context, _begin, (*handed, threads)) as pool,
    ):
        try:
            running = [submit(pool, _draft, *pair) for pair in pairs]
            for _ in as_completed(running):
                task.advance()
            return [_result(each) for each in running]
        except BrokenProcessPool as error:
            raise _died(error) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _handed_out(
    shared: Shared, times: int, context: SpawnContext
) -> Iterator[tuple[Connection, Lock]]:
    """A pipe from which so many processes take ``shared``, one at a time.

    As an argument it would be written to each process as that starts, and who writes it holds the
    other end too: beyond what a pipe holds, it would wait for a process that died for ever.
    """
    reader, writer = context.Pipe(duplex=False)

    def hand_out() -> None:
        with suppress(OSError), writer:  # nobody is left to take it
            for _ in range(times):
                writer.send(shared)

    sender = threading.Thread(target=hand_out, name="hands out images", daemon=True)
    sender.start()
    try:
        yield reader, context.Lock()
    finally:
        reader.close()
        sender.join()


def _result(done: "Future[_Made]") -> _Made:
    """What a process gave; where one died, others may have finished."""
    try:
        return done.result()
    except BrokenProcessPool as error:
        return _died(error)


def _died(error: BrokenProcessPool) -> DeviceError:
    return DeviceError(f"a process that exports died: {error}")


_shared: Shared | None = None  # of a worker process, set once


def _begin(reader: Connection, taking: Lock, threads: int) -> None:
    global _shared
    end_with_parent()
    with taking:
        _shared = reader.recv()
    torch.set_num_threads(threads)


def _draft(subnet: Path, stage: Path) -> _Made:
    """In a worker process: errors go back as kinds that are made of a message alone."""
    assert _shared is not None, "_begin ran first"
    made = _draft_or_error(subnet, stage, _shared)
    if isinstance(made, Draft):
        return made
    return next(kind for kind in _KINDS if isinstance(made, kind))(str(made))


def _draft_or_error(
    subnet: Path, stage: Path, shared: Shared, progress: Progress = SILENT
) -> _Made:
    try:
        return draft(subnet, stage, *shared, progress)
    except OfaDeployError as error:
        return error
