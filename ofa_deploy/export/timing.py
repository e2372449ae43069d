"""How long files take, timed in turns with one of them, whatever their engines.

A file alone is timed as latency tables time its engine: TensorRT by the GPU's own clock, without
what the host does around an inference; a file as deployed, by the host's clock.
Several processes, one after another, each with all files loaded; this module is such a process
when run (``python -m ofa_deploy.export.timing``).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.errors import DeviceError
from ofa_deploy.export.classify import feed
from ofa_deploy.export.manifest import Input, Latency, Preprocessing
from ofa_deploy.export.targets import get_target
from ofa_deploy.profiling.process import run_worker
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.worker import Call, serve
from ofa_deploy.runtimes import Session
from ofa_deploy.runtimes.trt.cuda import gpu
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["REFERENCE", "Deployed", "TimedFile", "main", "time_files"]

REFERENCE = "onnx"
PROTOCOL = Protocol(rounds=12, processes=3)
_MODULE = "ofa_deploy.export.timing"
_SPINNING = ("tensorrt", "tensorrt-rtx")  # whose host waits busily for the GPU where it is timed


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
    answers = []
    label = f"time {len(files)} files, {threads} thread{'s' if threads > 1 else ''}"
    with progress.task(label, protocol.processes) as task:  # rounds end by the clock: no measure
        for _ in range(protocol.processes):
            answer = run_worker(job, files, module=_MODULE, finished=lambda _: None)
            answers.append(answer["result"])
            task.advance()
    reference_ms = min(answer[""]["p10"] for answer in answers)
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
    figures: Sequence[Mapping[str, float]],
    twins: Sequence[Mapping[str, float]],
    reference_ms: float,
    *,
    batch: int,
    threads: int,
) -> Latency:
    ratios = np.array([each["ratio"] for each in figures])
    ratio = float(np.median(ratios))
    beside = [
        each["ratio"] / twin["ratio"] for each, twin in zip(figures, twins, strict=bool(twins))
    ]
    percentiles = {
        name: float(np.median([each[name] for each in figures])) for name in ("p50", "p90", "p99")
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


def main() -> None:
    """Time the files that stdin names."""
    serve(_calls)


def _calls(job: dict[str, Any]) -> tuple[Call, dict[str, Call]]:
    calls = {name: _call(file, job["threads"]) for name, file in job["files"].items()}
    # Loaded once more: one that had just been the reference would find its caches warm.
    return _call(job["files"][job["reference"]], job["threads"]), calls


def _call(file: dict[str, Any], threads: int) -> Call:
    """What is timed of a file, done once already."""
    target = get_target(file["target"])
    if target.runtime in _SPINNING:
        with suppress(DeviceError):  # it is said where an engine is loaded
            gpu(spin=True)
    artefact = Path(file["artefact"]).read_bytes()
    session = target.load(artefact, threads=threads)
    rng = np.random.default_rng(0)
    if file["deployed"] is not None:
        call = _deployed(session, file["shape"][0], file["deployed"], rng)
    elif file["dtype"] == "uint8":
        call = session.timed(rng.integers(0, 256, file["shape"], dtype=np.uint8))
    else:
        call = session.timed(rng.standard_normal(file["shape"]).astype(np.float32))
    call()
    return call


def _deployed(
    session: Session, batch: int, around: dict[str, Any], rng: np.random.Generator
) -> Call:
    wanted = Preprocessing.model_validate(around["wanted"])
    images = list(rng.integers(0, 256, (batch, *around["image"], 3), dtype=np.uint8))

    def call() -> None:
        session.run(feed(images, wanted, around["inside"])).argmax(1)

    return call


if __name__ == "__main__":
    main()
