"""Measure graphs, here or on another device: processes, one after another, with a journal."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy._files import Journal, digest
from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.errors import InputError, NoisyDeviceError
from ofa_deploy.hardware import Measurement, processor_name
from ofa_deploy.profiling.process import run_worker
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.remote import RemoteTarget
from ofa_deploy.profiling.subject import Subject, builder, write_models

__all__ = ["REFERENCE", "engine_version", "measure"]

REFERENCE = "reference"
_TOO_NOISY = 0.25  # median disagreement of the processes beyond which nothing is returned
_CHUNK = 128  # subjects a process: bounds its memory and what a crash costs


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
    target: RemoteTarget | None = None,
    progress: Progress = SILENT,
    label: str = "measure",
) -> dict[str, Measurement]:
    """Time every subject in turns with ``reference``.

    Args:
        subjects: by name.
        minutes: about how long to take, once all is built: the protocol's rounds are cut short.
        journal: a folder that keeps finished processes; a second call with the same subjects and
            settings reuses them.
        target: the device to measure on; None is this machine.

    Returns:
        A measurement a name, and the reference's own under ``REFERENCE``.

    Raises:
        NoisyDeviceError: if the processes disagree too much.
        DeviceError: if a worker process failed, or the device is not reached any more.
    """
    if not subjects:
        raise InputError("nothing to measure")
    names = list(subjects)
    count = -(-len(names) // (target.chunk if target else _CHUNK))
    # Dealt out, not cut: what is timed beside it moves a figure by a percent.
    chunks = [names[i::count] for i in range(count)]
    protocol = protocol or Protocol()
    if minutes is not None:
        seconds = round(60 * minutes / (protocol.processes * count), 1)
        protocol = replace(protocol, seconds=seconds)
    version = engine_version(runtime, target)
    with tempfile.TemporaryDirectory(prefix="ofa-deploy-") as folder:
        models = write_models(
            {**subjects, REFERENCE: reference},
            Path(folder),
            runtime,
            precision,
            progress,
            target.processor if target else "here",
        )
        identity = {
            "processor": processor_name(),
            "models": {name: model["sha256"] for name, model in models.items()},
            "runtime": [runtime, version, precision, threads],
            "protocol": asdict(protocol),
            "form": 2,  # of the records
            **(target.identity() if target else {}),
        }
        records = Journal(journal / f"{digest(identity)}.jsonl", identity) if journal else _Memory()
        bench = _Bench(models, runtime, threads, protocol, target)
        bench.run(chunks, records, progress, label)
    try:
        return _combine(names, records.records, protocol)
    except NoisyDeviceError:
        records.clear()  # or the next try would find the same answers
        raise


def engine_version(runtime: str, target: RemoteTarget | None = None) -> str:
    """The version of the engine that measures.

    Raises:
        DeviceError: if the device has none.
    """
    return target.version(runtime) if target else builder(runtime).version


@dataclass(frozen=True)
class _Bench:
    """Models on disk, ready to be timed."""

    models: Mapping[str, dict[str, Any]]
    runtime: str
    threads: int
    protocol: Protocol
    target: RemoteTarget | None

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
        measured = self.target.run if self.target else run_worker
        with progress.task(label, len(wanted) * rounds, done=len(done) * rounds) as task:
            for chunk, process in wanted:
                if (chunk, process) in done:
                    continue
                job = self._job(chunks[chunk], energy=process == 0)
                answer = measured(job, chunks[chunk], finished=task.advance)
                records.append({"chunk": chunk, "process": process, **answer})

    def _job(self, names: Sequence[str], *, energy: bool) -> dict[str, Any]:
        return {
            "models": {name: self.models[name] for name in (*names, REFERENCE)},
            "reference": REFERENCE,
            "runtime": self.runtime,
            "settings": dict(builder(self.runtime).settings(self.threads)),
            "threads": self.threads,
            "protocol": asdict(self.protocol),
            "energy": energy,
        }


class _Memory:
    """A journal that is not kept."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def clear(self) -> None:
        self.records.clear()


def _combine(
    names: Sequence[str], records: Sequence[dict[str, Any]], protocol: Protocol
) -> dict[str, Measurement]:
    """Medians over processes; refuses a machine on which they do not agree."""
    results = [record["result"] for record in records]
    # Other programs only ever slow a process down: the fastest one was disturbed least.
    reference_ms = min(result[""]["p10"] for result in results)
    taken = {
        name: _measurement([r[name] for r in results if name in r], reference_ms) for name in names
    }
    disagreement = float(np.median([measured.spread for measured in taken.values()]))
    if disagreement > _TOO_NOISY:
        rejected = sum(record["rejected"] for record in records)
        windows = rejected + sum(record["windows"] for record in records)
        raise NoisyDeviceError(
            f"too noisy to measure: {protocol.processes} processes disagree by "
            f"{disagreement:.0%}, and the reference moved in {rejected} of {windows} windows; "
            "close other programs, then run again"
        )
    own = _measurement([result[""] for result in results], reference_ms)
    levels = np.array([result[""]["p10"] for result in results])
    spread = float(np.ptp(levels) / np.median(levels))
    return {**taken, REFERENCE: Measurement(**{**own.model_dump(), "spread": spread})}


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
