"""Measure graphs on this machine: worker processes, one after another, with a journal."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ofa_deploy._files import Journal, digest
from ofa_deploy._progress import SILENT, Progress, Task
from ofa_deploy.errors import DeviceError, InputError, NoisyDeviceError
from ofa_deploy.hardware import Measurement, processor_name
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.runtimes import get_runtime

__all__ = ["REFERENCE", "Subject", "measure"]

REFERENCE = "reference"
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_TOO_NOISY = 0.25  # median disagreement of the processes beyond which nothing is returned
_MANY = 20  # graphs that may take long enough to build for somebody to wonder
_CHUNK = 64  # subjects a process: bounds its memory and the time between two looks at the reference


@dataclass(frozen=True)
class Subject:
    """A graph to time.

    Attributes:
        shape: of its input.
        calibration: batches for INT8; random ones of that shape if empty, good for timing only.
    """

    graph: onnx.ModelProto
    shape: tuple[int, ...]
    calibration: tuple[npt.NDArray[np.float32], ...] = ()


def measure(
    subjects: Mapping[str, Subject],
    reference: Subject,
    *,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    threads: int = 1,
    protocol: Protocol | None = None,
    journal: Path | None = None,
    progress: Progress = SILENT,
    label: str = "measure",
) -> dict[str, Measurement]:
    """Time every subject in turns with ``reference``.

    Args:
        subjects: by name.
        journal: a folder that keeps finished processes; a second call with the same subjects and
            settings reuses them.

    Returns:
        A measurement a name, and the reference's own under ``REFERENCE``.

    Raises:
        NoisyDeviceError: if the processes disagree too much.
        DeviceError: if a worker process failed.
    """
    if not subjects:
        raise InputError("nothing to measure")
    protocol = protocol or Protocol()
    bench = _Bench(runtime, threads, protocol, label, progress)
    with tempfile.TemporaryDirectory(prefix="ofa-deploy-") as folder:
        models = _write_models(
            {**subjects, REFERENCE: reference}, Path(folder), runtime, precision, progress
        )
        names = list(subjects)
        count = -(-len(names) // _CHUNK)
        # Dealt out, not cut: what is timed beside it moves a figure by a percent.
        chunks = [names[i::count] for i in range(count)]
        identity = {
            "processor": processor_name(),
            "models": {name: model["sha256"] for name, model in models.items()},
            "runtime": [runtime, get_runtime(runtime).version, precision, threads],
            "protocol": asdict(protocol),
            "chunks": "dealt",
        }
        records = Journal(journal / f"{digest(identity)}.jsonl", identity) if journal else _Memory()
        bench.run(chunks, models, records)
    try:
        return _combine(names, records.records, protocol)
    except NoisyDeviceError:
        records.clear()  # or the next try would find the same answers
        raise


class _Memory:
    """A journal that is not kept."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def clear(self) -> None:
        self.records.clear()


def _write_models(
    subjects: Mapping[str, Subject],
    folder: Path,
    runtime: str,
    precision: str,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Build every graph into a file; the hash is the graph's, since engines build no two alike."""
    engine = get_runtime(runtime)
    models = {}
    bars = progress if len(subjects) > _MANY else SILENT
    with bars.task(f"build {len(subjects)} {precision} graphs", len(subjects)) as task:
        for position, (name, subject) in enumerate(subjects.items()):
            path = folder / f"{position}.model"
            path.write_bytes(engine.build(subject.graph, precision, _calibration(subject)))
            models[name] = {
                "path": str(path),
                "shape": list(subject.shape),
                "sha256": hashlib.sha256(subject.graph.SerializeToString()).hexdigest(),
            }
            task.advance()
    return models


def _calibration(subject: Subject) -> tuple[npt.NDArray[np.float32], ...]:
    if subject.calibration:
        return subject.calibration
    return (np.random.default_rng(0).standard_normal(subject.shape).astype(np.float32),)


class _Figures(BaseModel):
    """What a worker says of one subject; ``p..`` in ms."""

    model_config = _STRICT

    ratio: float = Field(gt=0)
    p10: float = Field(gt=0)
    p50: float = Field(gt=0)
    p90: float = Field(gt=0)
    p99: float = Field(gt=0)
    runs: int = Field(ge=1)
    energy_mj: float | None = Field(None, ge=0)


class _Message(BaseModel):
    """One line of a worker's: how far it is, its result, or why it gave up."""

    model_config = _STRICT

    rounds: int = Field(0, ge=0, le=10**9)
    result: dict[str, _Figures] | None = None
    rejected: int | None = Field(None, ge=0)
    error: str = ""

    @model_validator(mode="after")
    def _result_is_whole(self) -> Self:
        if (self.result is None) != (self.rejected is None):
            raise ValueError("a result comes with the number of rejected rounds")
        return self


@dataclass(frozen=True)
class _Bench:
    runtime: str
    threads: int
    protocol: Protocol
    label: str
    progress: Progress

    def run(
        self,
        chunks: Sequence[Sequence[str]],
        models: Mapping[str, dict[str, Any]],
        records: Journal | _Memory,
    ) -> None:
        """Run every (chunk, process) that the journal does not hold yet."""
        wanted = [(c, p) for p in range(self.protocol.processes) for c in range(len(chunks))]
        done = {(record["chunk"], record["process"]) for record in records.records}
        rounds = self.protocol.rounds
        with self.progress.task(self.label, len(wanted) * rounds, done=len(done) * rounds) as task:
            for chunk, process in wanted:
                if (chunk, process) in done:
                    continue
                asked = {name: models[name] for name in (*chunks[chunk], REFERENCE)}
                job = self._job(asked, energy=process == 0)
                answer = self._answer(job, task)
                if set(answer["result"]) != {"", *chunks[chunk]}:
                    raise DeviceError("a measuring process answered for other graphs than asked")
                records.append({"chunk": chunk, "process": process, **answer})

    def _job(self, models: Mapping[str, dict[str, Any]], *, energy: bool) -> str:
        return json.dumps(
            {
                "models": models,
                "reference": REFERENCE,
                "runtime": self.runtime,
                "threads": self.threads,
                "protocol": asdict(self.protocol),
                "core": _last_core() if self.threads == 1 else None,
                "energy": energy,
            }
        )

    def _answer(self, job: str, task: Task) -> dict[str, Any]:
        """Run one worker and follow its rounds."""
        command = [sys.executable, "-m", "ofa_deploy.profiling.worker"]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with (
            tempfile.TemporaryFile("w+") as complaints,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=environment,
            ) as worker,
        ):
            try:
                answer = self._converse(worker, job, task)
            except BaseException:
                worker.kill()
                raise
            worker.wait()
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or ["no message"])[-1]
        if worker.returncode or answer is None:
            raise DeviceError(f"a measuring process failed (exit {worker.returncode}): {last}")
        return answer

    def _converse(
        self, worker: "subprocess.Popen[str]", job: str, task: Task
    ) -> dict[str, Any] | None:
        assert worker.stdin is not None
        with suppress(BrokenPipeError):  # a worker that died says why on its stderr
            worker.stdin.write(job)
            worker.stdin.close()
        return self._follow(_messages(worker), task)

    def _follow(self, messages: Iterator[_Message], task: Task) -> dict[str, Any] | None:
        answer, seen = None, 0
        for message in messages:
            if message.result is not None:
                answer = message.model_dump(exclude={"rounds", "error"})
            elif message.error:
                raise DeviceError(f"a measuring process failed: {message.error}")
            elif message.rounds > seen:
                task.advance(message.rounds - seen)
                seen = message.rounds
        return answer


def _messages(worker: "subprocess.Popen[str]") -> Iterator[_Message]:
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            yield _Message.model_validate_json(line)
        except ValidationError:
            raise DeviceError(
                f"a measuring process answered {line.strip()[:80]!r}, not a result"
            ) from None


def _last_core() -> int | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    return max(os.sched_getaffinity(0))


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
        raise NoisyDeviceError(
            f"too noisy to measure: {protocol.processes} processes disagree by "
            f"{disagreement:.0%}, and the reference moved in {rejected} of "
            f"{rejected + len(records) * protocol.rounds} rounds; close other programs, then run "
            "again"
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
