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

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.hardware.energy import energy_meter
from ofa_deploy.hardware.engine import one_line
from ofa_deploy.hardware.telemetry.sensors import Sensors
from ofa_deploy.profiling.agent.engines import EngineError, open_model, version
from ofa_deploy.profiling.agent.watch import TooHot, Watch, memory_bounded, peak_mib, pinned
from ofa_deploy.profiling.protocol import Protocol, Throttled, time_in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ofa_deploy.profiling.protocol import Call, Floats, Timings

__all__ = [
    "answering",
    "kill_group",
    "models",
    "on_gpu",
    "own_stdout",
    "summary",
    "work",
    "worker",
]

_ON_PROCESSOR = ("onnxruntime", "openvino")


def on_gpu(runtime: str) -> bool:
    """Whether an engine computes on a GPU."""
    return runtime not in _ON_PROCESSOR


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
        job: ``threads``, ``protocol``, when it was ``sent``, and what ``make`` asks for. It may
            name the ``cores`` to pin to, and ``limits``: ``memory_mib``, ``temperature_c``; say
            that the ``gpu`` does the work, and that ``energy`` is wanted.
        make: loads what the job names: the reference, and calls by name, each done once already.
        say: told how many rounds are finished, and at last the result, or how ``hot`` the device
            is if that is too much.

    Raises:
        EngineError: if it cannot be done so here.
    """
    limits: dict[str, Any] = job.get("limits") or {}
    most_mib = limits.get("memory_mib")
    try:
        cores = pinned(job.get("cores") or (), job["threads"])
    except ValueError as error:
        raise EngineError(str(error)) from None

    def give_up(mib: int) -> None:
        say({"error": _too_much(mib, most_mib)})
        os._exit(0)

    with memory_bounded(most_mib, give_up):
        reference, calls = make(job)
    with Sensors.at_work(gpu=bool(job.get("gpu"))) as sensors:
        watch = Watch(sensors, cores, limits.get("temperature_c"))
        try:
            timings = _timed(reference, calls, job, watch, say)
            found = summary(timings)
            if job.get("energy"):
                _weigh({"": reference, **calls}, found, sensors, watch, job)
        except TooHot as hot:
            say({"hot": hot.celsius})
            return
        except Throttled as throttled:
            raise EngineError(_held_down(throttled, watch)) from None
    taken = peak_mib()
    if most_mib is not None and taken > most_mib:
        raise EngineError(_too_much(taken, most_mib))
    say(
        {
            "result": found,
            "windows": timings.windows,
            "rejected": timings.rejected,
            "throttled": timings.throttled,
            "trace": watch.trace(),
            "peak_mib": taken,
        }
    )


def _timed(
    reference: Call,
    calls: dict[str, Call],
    job: dict[str, Any],
    watch: Watch,
    say: Callable[[dict[str, Any]], None],
) -> Timings:
    protocol = Protocol(**job["protocol"])
    # The start of this process counts, but leaves at least half: engines may be built in it.
    spent_s = min(time.monotonic() - job["sent"], protocol.seconds / 2)
    events = time_in_turns(
        reference, calls, protocol, spent_s=spent_s, held=watch.held, held_ms=watch.cost_ms
    )
    for event in events:
        if not isinstance(event, int):
            watch.glance()
            return event
        say({"rounds": event})
    raise AssertionError("timing has no end")


def _weigh(
    calls: Mapping[str, Call],
    found: dict[str, dict[str, float]],
    sensors: Sensors,
    watch: Watch,
    job: Any,
) -> None:
    """Add energies, each of one call repeated alone, in half as long as there was to time them.

    What that is too short for has none, and neither has what was measured while clocks were held
    down.

    Raises:
        TooHot: if the device is above its limit.
    """
    meter = energy_meter(sensors, gpu=bool(job.get("gpu")))
    if meter is None:
        return
    all_s = job["protocol"]["seconds"] / 2 or float("inf")
    seconds = max(meter.least_s, min(meter.seconds, all_s / len(calls)))
    end = time.monotonic() + all_s
    watch.held()  # what was before does not count
    for name, call in calls.items():
        if time.monotonic() >= end:
            break
        mj = float("nan")
        with contextlib.suppress(OSError):  # it did not tell often enough, or no longer
            mj = meter.per_call(call, seconds) / getattr(call, "inferences", 1)
        if not watch.held() and 0 <= mj < float("inf"):  # rails may feed back
            found[name]["energy_mj"] = mj


def _too_much(mib: int, most_mib: Any) -> str:
    return (
        f"the networks of one measuring process take {mib} MiB with their engine, more than the "
        f"{most_mib} that limits.memory_mib allows in the device's file"
    )


def _held_down(throttled: Throttled, watch: Watch) -> str:
    heat = "" if watch.hottest is None else f", up to {watch.hottest:g} °C"
    return (
        f"the device held its clocks down in {throttled} ({', '.join(watch.reasons)}{heat}): cool "
        "it or feed it better, or set cool_down_s and limits.temperature_c in its file"
    )


def models(
    job: dict[str, Any], load: Callable[..., Call] = open_model
) -> tuple[Call, dict[str, Call]]:
    """What a job times: its reference, and the others by name.

    Those that are timed in another way than their engine would be asked for are named on stderr.
    """
    calls = {
        name: load(model["path"], model["shape"], job["runtime"], job["settings"])
        for name, model in job["models"].items()
    }
    refusals = {name: getattr(call, "refusal", "") for name, call in calls.items()}
    for name, why in refusals.items():
        if why:
            print(f"{name}: timed without a CUDA graph: {why}", file=sys.stderr)
    return calls.pop(job["reference"]), calls


def own_stdout() -> int:
    """A handle of stdout for answers, from now on alone.

    Engines that talk shall not talk into them: what they print goes to stderr.
    """
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def answering() -> Callable[[dict[str, Any]], None]:
    """What says messages on stdout, a JSON object a line, and from now on alone."""
    out = os.fdopen(own_stdout(), "w", closefd=False)  # to the end of the process

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    return say


def worker() -> None:
    """Be a measuring process of a session, which ends with it."""
    say = answering()

    def end_with_session() -> None:
        sys.stdin.read()
        kill_group(os.getpid())

    job = json.loads(sys.stdin.readline())
    try:
        engine = version(job["runtime"])  # before there are threads: some engines fork
        threading.Thread(target=end_with_session, daemon=True).start()
        say({"engine": engine})
        work(job, models, say)
    except (EngineError, OfaDeployError) as error:
        say({"error": one_line(error)})
    except Exception as error:  # engines raise what they like, at any moment
        say({"error": type(error).__name__ + ": " + one_line(error)})
    os._exit(0)


def kill_group(pid: int) -> None:
    """End a process and what it has started."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
