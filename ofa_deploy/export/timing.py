"""How long files take, timed in turns with one of them, whatever their engines.

Several processes, one after another, each with all files loaded; this module is such a process
when run (``python -m ofa_deploy.export.timing``): it reads a job on stdin and writes figures.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofa_deploy._processes import module_command, module_environment
from ofa_deploy._progress import SILENT, Progress
from ofa_deploy.errors import DeviceError, OfaDeployError
from ofa_deploy.export.classify import feed
from ofa_deploy.export.manifest import Input, Latency, Preprocessing
from ofa_deploy.export.targets import get_target
from ofa_deploy.profiling.protocol import Protocol, Timings, time_in_turns
from ofa_deploy.profiling.worker import summary
from ofa_deploy.runtimes import Session

__all__ = ["REFERENCE", "Deployed", "TimedFile", "main", "time_files"]

REFERENCE = "onnx"
PROTOCOL = Protocol(rounds=12, processes=3)
_SECONDS = 1800


@dataclass(frozen=True)
class Deployed:
    """What stands around a file in use: from decoded images to their most likely classes.

    Attributes:
        image: height and width of the images.
        wanted: the fields of a ``Preprocessing``.
        inside: what of it the file does.
    """

    image: tuple[int, int]
    wanted: Mapping[str, Any]
    inside: str


@dataclass(frozen=True)
class TimedFile:
    """A file to time.

    Attributes:
        target: that it belongs to.
        artefact: where what its engine loads lies.
        shape, dtype: of the images.
        deployed: to be timed with what is done before and after it; it alone if None.
    """

    target: str
    artefact: Path
    shape: tuple[int, ...]
    dtype: str
    deployed: Deployed | None = None

    @classmethod
    def of(
        cls, target: str, artefact: Path, takes: Input, *, side: int, batch: int = 1
    ) -> "TimedFile":
        """A file that takes that, alone.

        Args:
            side: height and width of images whose size is free.
            batch: of a file whose batch is free.
        """
        free = {"batch": batch, "height": side, "width": side}
        shape = tuple(free[d] if isinstance(d, str) else d for d in takes.shape)
        return cls(target, artefact, shape, takes.dtype)


class _Figures(BaseModel):
    """What a process says of one file; ``p..`` in ms."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    ratio: float = Field(gt=0)
    p10: float = Field(gt=0)
    p50: float = Field(gt=0)
    p90: float = Field(gt=0)
    p99: float = Field(gt=0)


class _Answer(BaseModel):
    """What a process says: figures by name, ``""`` being the reference, or why it gave up."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    result: dict[str, _Figures] = Field(default_factory=dict)
    error: str = ""


def time_files(
    files: Mapping[str, TimedFile],
    twins: Mapping[str, str],
    *,
    reference: str = REFERENCE,
    threads: int = 1,
    protocol: Protocol = PROTOCOL,
    progress: Progress = SILENT,
) -> dict[str, Latency]:
    """Time all files in turns.

    Args:
        files: by name.
        twins: name to that of the float32 file that it is compared with, where it has one.
        reference: the name of the file that all are timed in turns with.
        threads: of each inference.

    Returns:
        A latency a name.

    Raises:
        DeviceError: if a process failed.
    """
    job = {
        "files": {
            name: asdict(file) | {"artefact": str(file.artefact)} for name, file in files.items()
        },
        "reference": reference,
        "threads": threads,
        "protocol": asdict(protocol),
    }
    seconds = _SECONDS + 2 * protocol.seconds
    answers = []
    label = f"time {len(files)} files, {threads} thread{'s' if threads > 1 else ''}"
    with progress.task(label, protocol.processes) as task:
        for _ in range(protocol.processes):
            answers.append(_ask(job, files, threads, seconds))
            task.advance()
    reference_ms = min(answer[""].p10 for answer in answers)
    return {
        name: _latency(
            [answer[name] for answer in answers],
            [answer[twins[name]] for answer in answers] if name in twins else [],
            reference_ms,
            batch=file.shape[0],
            threads=threads,
        )
        for name, file in files.items()
    }


def _latency(
    figures: Sequence[_Figures],
    twins: Sequence[_Figures],
    reference_ms: float,
    *,
    batch: int,
    threads: int,
) -> Latency:
    ratios = np.array([each.ratio for each in figures])
    ratio = float(np.median(ratios))
    beside = [each.ratio / twin.ratio for each, twin in zip(figures, twins, strict=bool(twins))]
    percentiles = {
        name: float(np.median([getattr(each, name) for each in figures]))
        for name in ("p50", "p90", "p99")
    }
    return Latency(
        ms=ratio * reference_ms,
        ratio=ratio,
        spread=float(np.ptp(ratios)) / ratio,
        twin_ratio=float(np.median(beside)) if twins else None,
        batch=batch,
        threads=threads,
        processes=len(figures),
        **percentiles,
    )


def _ask(
    job: dict[str, Any], files: Mapping[str, TimedFile], threads: int, seconds: float
) -> dict[str, _Figures]:
    """What one process says, checked."""
    try:
        done = subprocess.run(
            module_command("ofa_deploy.export.timing"),
            input=json.dumps(job | {"sent": time.monotonic()}),
            capture_output=True,
            text=True,
            env=module_environment({"OMP_NUM_THREADS": str(threads)}),
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"a timing process took more than {seconds:.0f} s") from None
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode:
        raise DeviceError(f"a timing process failed (exit {done.returncode}): {last}")
    try:
        answer = _Answer.model_validate_json(done.stdout)
    except ValidationError:
        raise DeviceError(f"a timing process answered {done.stdout[:80]!r}, no figures") from None
    if answer.error:
        raise DeviceError(f"a timing process failed: {answer.error}")
    if set(answer.result) != {"", *files}:
        raise DeviceError("a timing process answered for other files than asked")
    return answer.result


def main() -> None:
    """Do the job that stdin describes."""
    job = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"result": _times(job)}
    except OfaDeployError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


def _times(job: dict[str, Any]) -> dict[str, dict[str, float]]:
    threads = job["threads"]
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    calls = {name: _call(file, threads) for name, file in job["files"].items()}
    # Loaded once more: one that had just been the reference would find its caches warm.
    reference = _call(job["files"][job["reference"]], threads)
    spent_s = time.monotonic() - job["sent"]  # the start of this process included
    protocol = Protocol(**job["protocol"])
    for timings in time_in_turns(reference, calls, protocol, spent_s=spent_s):
        if isinstance(timings, Timings):
            found = summary(timings)
    return {name: {k: figures[k] for k in _Figures.model_fields} for name, figures in found.items()}


def _call(file: dict[str, Any], threads: int) -> Callable[[], None]:
    """What is timed of a file, done once already."""
    artefact = Path(file["artefact"]).read_bytes()
    session = get_target(file["target"]).load(artefact, threads=threads)
    rng = np.random.default_rng(0)
    if file["deployed"] is not None:
        call = _deployed(session, file["shape"][0], file["deployed"], rng)
    elif file["dtype"] == "uint8":
        call = session.bound(rng.integers(0, 256, file["shape"], dtype=np.uint8))
    else:
        call = session.bound(rng.standard_normal(file["shape"]).astype(np.float32))
    call()
    return call


def _deployed(
    session: Session, batch: int, around: dict[str, Any], rng: np.random.Generator
) -> Callable[[], None]:
    wanted = Preprocessing.model_validate(around["wanted"])
    images = list(rng.integers(0, 256, (batch, *around["image"], 3), dtype=np.uint8))

    def call() -> None:
        session.run(feed(images, wanted, around["inside"])).argmax(1)

    return call


if __name__ == "__main__":
    main()
