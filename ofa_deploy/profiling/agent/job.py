"""A measuring process: loads models, times them in turns, says what it found.

Standard library, numpy and one engine only, on Python 3.8 too: the agent carries this file to
other devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from ofa_deploy.hardware.energy import EnergyMeter
from ofa_deploy.profiling.agent.engines import EngineError, one_line, open_model, version
from ofa_deploy.profiling.protocol import Protocol, time_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ofa_deploy.profiling.protocol import Call, Floats, Timings

__all__ = ["kill_group", "models", "summary", "work", "worker"]


def summary(timings: Timings) -> dict[str, dict[str, float]]:
    """Per subject: the ratio to the reference and percentiles in ms; ``""`` is the reference."""
    result = {"": {**_percentiles(timings.reference), "ratio": 1.0}}
    for name, times in timings.subjects.items():
        ratio = float(np.median(timings.ratios[name]))
        result[name] = {**_percentiles(times), "ratio": ratio}
    return result


def _percentiles(times: Floats) -> dict[str, float]:
    p10, p50, p90, p99 = (float(v) for v in np.quantile(times, [0.1, 0.5, 0.9, 0.99]))
    return {"p10": p10, "p50": p50, "p90": p90, "p99": p99, "runs": times.size}


def work(
    job: dict[str, Any],
    make: Callable[[dict[str, Any]], tuple[Call, dict[str, Call]]],
    say: Callable[[dict[str, Any]], None],
) -> None:
    """Do a job.

    Args:
        make: loads what the job names: the reference, and calls by name, each done once already.
        say: told how many rounds are finished, and at last the result.
    """
    if job["threads"] == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reference, calls = make(job)
    spent_s = time.monotonic() - job["sent"]  # the start of this process included
    protocol = Protocol(**job["protocol"])
    for event in time_in_turns(reference, calls, protocol, spent_s=spent_s):
        if isinstance(event, int):
            say({"rounds": event})
            continue
        found = summary(event)
        meter = EnergyMeter.find() if job.get("energy") else None
        if meter is not None:
            for name, call in {"": reference, **calls}.items():  # each for a while, and no other
                found[name]["energy_mj"] = meter.per_call(call)
        say({"result": found, "windows": event.windows, "rejected": event.rejected})


def models(
    job: dict[str, Any], load: Callable[..., Call] = open_model
) -> tuple[Call, dict[str, Call]]:
    """What a job times: its reference, and the others by name."""
    calls = {
        name: load(model["path"], model["shape"], job["runtime"], job["settings"])
        for name, model in job["models"].items()
    }
    return calls.pop(job["reference"]), calls


def worker() -> None:
    """Be a measuring process of a session, which ends with it."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines that talk shall not talk into the answers

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    def end_with_session() -> None:
        sys.stdin.read()
        kill_group(os.getpid())

    job = json.loads(sys.stdin.readline())
    try:
        engine = version(job["runtime"])  # before there are threads: some engines fork
        threading.Thread(target=end_with_session, daemon=True).start()
        say({"engine": engine})
        work(job, models, say)
    except EngineError as error:
        say({"error": one_line(error)})
    os._exit(0)


def kill_group(pid: int) -> None:
    """End a process and what it has started."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
