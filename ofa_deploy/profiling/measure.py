"""Measure graphs, here or on another device: processes, one after another, with a journal."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np

from ofa_deploy.errors import InputError, NoisyDeviceError
from ofa_deploy.files import Journal, digest, scratch
from ofa_deploy.hardware import Device, Measurement, Trace
from ofa_deploy.profiling.agent.job import on_gpu
from ofa_deploy.profiling.gate import TRIES, Gate, check_cores
from ofa_deploy.profiling.place import Here, Place
from ofa_deploy.profiling.process import Furthest, Overheated
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.subject import Subject, builder, write_models
from ofa_deploy.terminal import SILENT, Progress, Task

__all__ = ["ALONE", "REFERENCE", "Taken", "Turns", "measure"]

REFERENCE = "reference"
_TOO_NOISY = 0.25  # median disagreement of the processes beyond which nothing is returned
_LEAST_S = 0.1  # that a process is given
_ENGINE_TAKES = 4  # times a model's file, roughly: what an engine makes of it


class Taken(dict[str, Measurement]):
    """Measurements by name, and how they came about.

    Attributes:
        telemetry: what the device said of itself between the windows of its processes.
        other_load: share of it that other programs used meanwhile, 0 to 1.
        windows, rejected, throttled: how many windows stand, and how many were dropped since the
            reference moved, or since clocks were held down.
        journal: the file that keeps its processes, where one does.
    """

    telemetry = Trace()
    other_load = 0.0
    windows = rejected = throttled = 0
    journal: Path | None = None


class Turns(Interface):
    """When a measurement may do what takes this machine's time."""

    def building(self) -> AbstractContextManager[None]:
        """Around building graphs, which happens on this machine wherever they are measured."""

    def measuring(self) -> AbstractContextManager[None]:
        """Around what follows."""


class _Alone:
    def building(self) -> AbstractContextManager[None]:
        return nullcontext()

    measuring = building


ALONE: Turns = _Alone()


def measure(
    subjects: Mapping[str, Subject],
    reference: Subject,
    *,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    threads: int = 1,
    protocol: Protocol | None = None,
    minutes: float | None = None,
    journal: Path | None = None,
    target: Place | None = None,
    device: Device | None = None,
    progress: Progress = SILENT,
    label: str = "measure",
    turns: Turns = ALONE,
) -> Taken:
    """Time every subject in turns with ``reference``.

    Args:
        subjects: by name.
        minutes: about how long to take, once all is built: the protocol's rounds are cut short.
        journal: a folder that keeps finished processes; a second call with the same subjects and
            settings reuses them.
        target: where to measure; None is this machine.
        device: whose cores, pauses, power and limits hold; None is whatever there is.
        turns: for measurements that go on beside each other.

    Returns:
        A measurement a name, and the reference's own under ``REFERENCE``.

    Raises:
        InputError: if the device has fewer cores than there are threads.
        NoisyDeviceError: if the processes disagree too much.
        DeviceError: if a worker process failed, the device is not reached any more, or it is not
            as its file demands.
    """
    if not subjects:
        raise InputError("nothing to measure")
    if device is not None:
        check_cores(device, threads)
    place = target or Here()
    version = place.version(runtime)
    gate = Gate(device, place, gpu=on_gpu(runtime), progress=progress)
    gate.open()
    names = list(subjects)
    protocol = protocol or Protocol()
    with scratch() as folder:
        every = {**subjects, REFERENCE: reference}
        with turns.building():
            models = write_models(every, folder, runtime, precision, progress, place.processor)
        parts = _processes(models, place.chunk, device.limits.memory_mib if device else None)
        # Dealt out, not cut: what is timed beside it moves a figure by a percent.
        chunks = [names[i::parts] for i in range(parts)]
        if minutes is not None:
            seconds = round(60 * minutes / (protocol.processes * parts), 1)
            protocol = replace(protocol, seconds=max(seconds, _LEAST_S))  # 0 is no limit
        identity = {
            "settings": dict(builder(runtime).settings(threads)),
            "models": {name: model["sha256"] for name, model in models.items()},
            "runtime": [runtime, version, precision, threads],
            "protocol": asdict(protocol),
            "chunks": parts,
            "cores": list(device.cores) if device else [],
            "form": 3,  # of the records
            **({"gpu": place.told.gpu} if on_gpu(runtime) else {}),
            **place.identity(),
        }
        records = Journal(journal / f"{digest(identity)}.jsonl", identity) if journal else _Memory()
        bench = _Bench(models, runtime, threads, protocol, place, device, gate)
        with turns.measuring():
            bench.run(chunks, records, progress, label)
    try:
        taken = _combine(names, records.records, protocol)
    except NoisyDeviceError:
        records.clear()  # or the next try would find the same answers
        raise
    taken.journal = records.path
    return taken


def _processes(models: Mapping[str, Mapping[str, Any]], chunk: int, most_mib: int | None) -> int:
    """Among how many processes the subjects are dealt out, for each repeat.

    Raises:
        InputError: if a model's file alone is larger than what the device allows.
    """
    usual = -(-(len(models) - 1) // chunk)
    if most_mib is None:
        return usual
    sizes = {name: Path(model["path"]).stat().st_size / 2**20 for name, model in models.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > most_mib:
        raise InputError(
            f"{largest} has {sizes[largest]:.0f} MiB as a file, more than the {most_mib} that "
            "limits.memory_mib allows in the device's file"
        )
    least = math.ceil(_ENGINE_TAKES * sum(sizes.values()) / most_mib)
    return min(len(models) - 1, max(usual, least))


@dataclass(frozen=True)
class _Bench:
    """Models on disk, ready to be timed."""

    models: Mapping[str, dict[str, Any]]
    runtime: str
    threads: int
    protocol: Protocol
    place: Place
    device: Device | None
    gate: Gate

    def run(
        self,
        chunks: Sequence[Sequence[str]],
        records: "Journal | _Memory",
        progress: Progress,
        label: str,
    ) -> None:
        """Run every (chunk, process) that the journal does not hold yet."""
        wanted = [(c, p) for p in range(self.protocol.processes) for c in range(len(chunks))]
        done = {(record["chunk"], record["process"]) for record in records.records}
        rounds = self.protocol.rounds
        with progress.task(label, len(wanted) * rounds, done=len(done) * rounds) as task:
            for chunk, process in wanted:
                if (chunk, process) in done:
                    continue
                job = self._job(chunks[chunk], energy=process == 0)
                answer = self._measured(job, chunks[chunk], task)
                records.append({"chunk": chunk, "process": process, **answer})

    def _measured(self, job: Mapping[str, Any], names: Sequence[str], task: Task) -> dict[str, Any]:
        """What one process finds, while the device is as its file demands."""
        furthest = Furthest(task.advance)
        for tries in count(1):
            self.gate.before(lambda note: task.advance(0, note=note))
            try:
                answer = self.place.run(job, names, finished=furthest.begin())
            except Overheated as hot:
                self.gate.too_hot(hot.celsius, last=tries == TRIES)
                continue
            self.gate.after(answer)
            return answer
        raise AssertionError("too_hot ends it")

    def _job(self, names: Sequence[str], *, energy: bool) -> dict[str, Any]:
        return {
            "models": {name: self.models[name] for name in (*names, REFERENCE)},
            "reference": REFERENCE,
            "runtime": self.runtime,
            "settings": dict(builder(self.runtime).settings(self.threads)),
            "threads": self.threads,
            "protocol": asdict(self.protocol),
            "energy": energy,
            "gpu": on_gpu(self.runtime),
            "cores": list(self.device.cores) if self.device else [],
            "limits": self.device.limits.model_dump() if self.device else {},
        }


class _Memory:
    """A journal that is not kept."""

    path = None

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def clear(self) -> None:
        self.records.clear()


def _combine(names: Sequence[str], records: Sequence[dict[str, Any]], protocol: Protocol) -> Taken:
    """Medians over processes; refuses a machine on which they do not agree."""
    results = [record["result"] for record in records]
    # Other programs only ever slow a process down: the fastest one was disturbed least.
    reference_ms = min(result[""]["p10"] for result in results)
    taken = Taken({n: _measurement([r[n] for r in results if n in r], reference_ms) for n in names})
    taken.windows, taken.rejected, taken.throttled = (
        sum(record[kind] for record in records) for kind in ("windows", "rejected", "throttled")
    )
    taken.telemetry = Trace.joined(Trace.model_validate(record["trace"]) for record in records)
    taken.other_load = round(sum(record["others"] for record in records) / len(records), 3)
    disagreement = float(np.median([measured.spread for measured in taken.values()]))
    if disagreement > _TOO_NOISY:
        raise NoisyDeviceError(
            f"too noisy to measure: {protocol.processes} processes disagree by "
            f"{disagreement:.0%}, and the reference moved in {taken.rejected} of "
            f"{taken.rejected + taken.windows} windows; close other programs, then run again"
        )
    own = _measurement([result[""] for result in results], reference_ms)
    levels = np.array([result[""]["p10"] for result in results])
    spread = float(np.ptp(levels) / np.median(levels))
    taken[REFERENCE] = Measurement(**{**own.model_dump(), "spread": spread})
    return taken


def _measurement(results: Sequence[dict[str, float]], reference_ms: float) -> Measurement:
    ratios = np.array([result["ratio"] for result in results])
    middle = float(np.median(ratios))
    percentiles = {
        name: float(np.median([result[name] for result in results]))
        for name in ("p10", "p50", "p90", "p99")
    }
    return Measurement(
        ms=middle * reference_ms,
        spread=float(np.ptp(ratios)) / middle,
        repeats=int(sum(result["runs"] for result in results)),
        energy_mj=next((r["energy_mj"] for r in results if r.get("energy_mj") is not None), None),
        **percentiles,
    )
