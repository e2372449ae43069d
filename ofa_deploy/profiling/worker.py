"""One measuring process: reads a job on stdin, times models, writes JSON lines on stdout.

Run as ``python -m ofa_deploy.profiling.worker`` it times graphs; ``serve`` is such a process for
whatever else can be called. A process of its own for each repeat, since the
layout of memory alone moves a process's timings by some percent.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.profiling.agent.engines import EngineError
from ofa_deploy.profiling.agent.job import answering, models, work
from ofa_deploy.profiling.protocol import Call

__all__ = ["Call", "main", "serve"]


def serve(make: Callable[[dict[str, Any]], tuple[Call, dict[str, Call]]]) -> None:
    """Do the job that stdin describes.

    Args:
        make: loads what the job names: the reference, and calls by name, each done once already.
    """
    say = answering()
    try:
        work(json.load(sys.stdin), make, say)
    except (OfaDeployError, EngineError) as error:
        say({"error": " ".join(str(error).split())})


def main() -> None:
    """Time the models that stdin names, opened as an agent opens them."""
    serve(models)


if __name__ == "__main__":
    main()
