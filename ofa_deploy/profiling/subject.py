"""What is timed: graphs, and the files that an engine makes of them."""

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes import Runtime, get_runtime
from ofa_deploy.system import end_with_parent, submit
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Subject", "builder", "write_models"]

_MANY = 20  # graphs that may take long enough to build for somebody to wonder
_MOST_BUILDERS = 8

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A graph to time.

    Attributes:
        make: gives the graph. Hundreds of graphs with their weights would fill the memory.
        shape: of its input.
        calibration: batches for INT8; random ones of that shape if empty, good for timing only.
    """

    make: Callable[[], onnx.ModelProto]
    shape: tuple[int, ...]
    calibration: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def graph(self) -> onnx.ModelProto:
        """The graph, made anew."""
        return self.make()


def write_models(
    subjects: Mapping[str, Subject],
    folder: Path,
    runtime: str,
    precision: str,
    progress: Progress,
    processor: str = "here",
) -> dict[str, dict[str, Any]]:
    """Make of every graph the file that measuring processes open (``Runtime.to_time``).

    Args:
        processor: one of ``PROCESSORS``, for which INT8 files are.

    Returns:
        By name ``path``, ``shape`` and ``sha256``; the hash is that of graph and shape, since
        engines build no two files alike.
    """
    models: dict[str, dict[str, Any]] = {}
    many = len(subjects) > _MANY
    bars = progress if many else SILENT
    builds = _in_parallel if many and precision == "int8" else _in_turn
    placed = ((folder / f"{place}.model", each) for place, each in enumerate(subjects.values()))
    with bars.task(f"build {len(subjects)} {precision} graphs", len(subjects)) as task:
        made = builds(_jobs(placed, runtime, precision, processor))
        for (name, subject), (path, sha256) in zip(subjects.items(), made, strict=True):
            models[name] = {"path": path, "shape": list(subject.shape), "sha256": sha256}
            task.advance()
    return models


@dataclass(frozen=True)
class _Job:
    """One graph, as it travels to another process."""

    path: str
    graph: bytes
    shape: tuple[int, ...]
    runtime: str
    precision: str
    processor: str
    calibration: tuple[Floats, ...]

    def run(self) -> tuple[str, str]:
        """Build it; where it lies, and the hash of graph and shape."""
        graph = onnx.ModelProto.FromString(self.graph)
        Path(self.path).write_bytes(self._built(graph))
        asked = hashlib.sha256(self.graph)
        asked.update(str(self.shape).encode())
        return self.path, asked.hexdigest()

    def _built(self, graph: onnx.ModelProto) -> bytes:
        return builder(self.runtime).to_time(
            graph,
            self.precision,
            self.calibration,
            batch=self.shape[0],
            processor=self.processor,
        )


def builder(runtime: str) -> Runtime:
    """What makes of graphs what is timed."""
    return get_runtime(runtime)


def _jobs(
    subjects: Iterator[tuple[Path, Subject]], runtime: str, precision: str, processor: str
) -> Iterator[_Job]:
    for path, subject in subjects:
        graph = subject.graph.SerializeToString()
        batches = _calibration(subject)
        yield _Job(str(path), graph, subject.shape, runtime, precision, processor, batches)


def _calibration(subject: Subject) -> tuple[Floats, ...]:
    if subject.calibration:
        return subject.calibration
    return (np.random.default_rng(0).standard_normal(subject.shape).astype(np.float32),)


def _in_turn(jobs: Iterator[_Job]) -> Iterator[tuple[str, str]]:
    return (job.run() for job in jobs)


def _in_parallel(jobs: Iterator[_Job]) -> Iterator[tuple[str, str]]:
    """On all cores, since quantisers take seconds a graph, and few at a time, for the memory."""
    count = min(os.cpu_count() or 1, _MOST_BUILDERS)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, end_with_parent) as pool:
        running: deque[Future[tuple[str, str]]] = deque()
        try:
            for job in jobs:
                running.append(submit(pool, job.run))
                if len(running) > 2 * count:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise DeviceError(f"a process that builds graphs died: {error}") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
