"""One measuring process: reads a job on stdin, times models, writes JSON lines on stdout.

Run as ``python -m ofa_deploy.profiling.worker`` it times graphs; ``serve`` is such a process for
whatever else can be called. A process of its own for each repeat, since the
layout of memory alone moves a process's timings by some percent.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.profiling.agent.engines import ENGINES, EngineError, open_model
from ofa_deploy.profiling.agent.job import models, work
from ofa_deploy.profiling.protocol import Call
from ofa_deploy.runtimes import get_runtime

__all__ = ["Call", "main", "serve"]


def serve(make: Callable[[dict[str, Any]], tuple[Call, dict[str, Call]]]) -> None:
    """Do the job that stdin describes.

    Args:
        make: loads what the job names: the reference, and calls by name, each done once already.
    """
    try:
        work(json.load(sys.stdin), make, _say)
    except (OfaDeployError, EngineError) as error:
        _say({"error": " ".join(str(error).split())})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _opened(
    path: str, shape: list[int], runtime: str, settings: dict[str, str | int], *, threads: int
) -> Call:
    """As an agent opens it, where an agent can."""
    if runtime in ENGINES:
        return open_model(path, shape, runtime, settings)
    session = get_runtime(runtime).load(Path(path).read_bytes(), threads=threads)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    call = session.bound(images)
    call()
    return call


def _models(job: dict[str, Any]) -> tuple[Call, dict[str, Call]]:
    return models(job, partial(_opened, threads=job["threads"]))


def main() -> None:
    """Time the models that stdin names."""
    serve(_models)


if __name__ == "__main__":
    main()
