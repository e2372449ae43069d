"""One measuring process: reads a job on stdin, times models, writes JSON lines on stdout.

Run as ``python -m ofa_deploy.profiling.worker`` it times graphs; ``serve`` is such a process for
whatever else can be called. A process of its own for each repeat, since the
layout of memory alone moves a process's timings by some percent.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.hardware.energy import EnergyMeter
from ofa_deploy.profiling.protocol import Floats, Protocol, Timings, time_in_turns
from ofa_deploy.runtimes import get_runtime

__all__ = ["Call", "main", "serve", "summary"]

Call = Callable[[], None]


def summary(timings: Timings) -> dict[str, dict[str, float]]:
    """Per subject: the ratio to the reference and percentiles in ms; ``""`` is the reference."""
    result = {"": _percentiles(timings.reference) | {"ratio": 1.0}}
    for name, times in timings.subjects.items():
        ratio = float(np.median(timings.ratios[name]))
        result[name] = _percentiles(times) | {"ratio": ratio}
    return result


def _percentiles(times: Floats) -> dict[str, float]:
    values = np.quantile(times, [0.1, 0.5, 0.9, 0.99])
    names = ("p10", "p50", "p90", "p99")
    return {name: float(v) for name, v in zip(names, values, strict=True)} | {"runs": times.size}


def _bound(path: str, shape: list[int], runtime: str, threads: int) -> Call:
    session = get_runtime(runtime).load(Path(path).read_bytes(), threads=threads)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    call = session.bound(images)
    call()
    return call


def _models(job: dict[str, Any]) -> tuple[Call, dict[str, Call]]:
    calls = {
        name: _bound(model["path"], model["shape"], job["runtime"], job["threads"])
        for name, model in job["models"].items()
    }
    return calls.pop(job["reference"]), calls


def serve(make: Callable[[dict[str, Any]], tuple[Call, dict[str, Call]]]) -> None:
    """Do the job that stdin describes.

    Args:
        make: loads what the job names: the reference, and calls by name, each done once already.
    """
    try:
        _work(json.load(sys.stdin), make)
    except OfaDeployError as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)


def _work(
    job: dict[str, Any], make: Callable[[dict[str, Any]], tuple[Call, dict[str, Call]]]
) -> None:
    if job["threads"] == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reference, calls = make(job)
    spent_s = time.monotonic() - job["sent"]  # the start of this process included
    protocol = Protocol(**job["protocol"])
    for event in time_in_turns(reference, calls, protocol, spent_s=spent_s):
        if isinstance(event, int):
            print(json.dumps({"rounds": event}), flush=True)
        else:
            found = summary(event)
            if job.get("energy"):
                _add_energy(found, {"": reference, **calls})
            windows = {"windows": event.windows, "rejected": event.rejected}
            print(json.dumps({"result": found, **windows}), flush=True)


def _add_energy(found: dict[str, dict[str, float]], calls: Mapping[str, Call]) -> None:
    """Where the device counts energy: run each subject for a while, and nothing else."""
    if (meter := EnergyMeter.find()) is not None:
        for name, call in calls.items():
            found[name]["energy_mj"] = meter.per_call(call)


def main() -> None:
    """Time the models that stdin names."""
    serve(_models)


if __name__ == "__main__":
    main()
