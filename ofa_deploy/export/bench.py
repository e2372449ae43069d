"""How fast the files of a bundle are on this machine, alone and as deployed.

All files are timed in turns with one of them, so that what else moves the machine moves both; see
``timing.py`` and ``profiling/protocol.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ofa_deploy.errors import DeviceError, InputError, OfaDeployError
from ofa_deploy.export.busy import busy
from ofa_deploy.export.manifest import Latency
from ofa_deploy.export.options import MAX_BATCH
from ofa_deploy.export.targets import get_target
from ofa_deploy.export.timing import REFERENCE, Deployed, TimedFile, time_files
from ofa_deploy.export.verify import Bundle
from ofa_deploy.files import scratch, write_bytes
from ofa_deploy.hardware import LoadMeter
from ofa_deploy.profiling import Protocol
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["Bench", "BenchOptions", "Timed", "bench_bundle"]

Kind = Literal["alone", "deployed"]
_KINDS: tuple[Kind, ...] = ("alone", "deployed")
_ROUNDS = 10_000


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to time.

    Attributes:
        targets: all that run here if empty.
        batches: images an inference; a file of a fixed batch is timed with that one alone.
        threads: of each inference, one after another.
        load: processes that are at work beside, see ``busy.py``.
        image: height and width in pixels of the decoded images of the "deployed" rows.
        minutes: about how long to measure.
        processes: independent ones for each number of threads.

    Raises:
        InputError: for a value out of range.
    """

    targets: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 4, 16)
    threads: tuple[int, ...] = (1,)
    load: int = 0
    image: tuple[int, int] = (375, 500)
    minutes: float = 1.0
    processes: int = 4

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, Sequence[float], float, float], ...] = (
            ("batches", self.batches, 1, MAX_BATCH),
            ("threads", self.threads, 1, 1024),
            ("load", [self.load], 0, 256),
            ("image size", self.image, 1, 8192),
            ("minutes", [self.minutes], 0.01, 1e4),
            ("processes", [self.processes], 1, 100),
        )
        for what, values, least, greatest in limits:
            twice = len(set(values)) < len(values) and what != "image size"
            if not values or twice:
                listed = ", ".join(f"{value:g}" for value in values)
                raise InputError(f"{what}: expected distinct numbers, found {listed or 'none'}")
            for value in values:
                if not least <= value <= greatest:
                    raise InputError(f"{what}: expected {least:g} to {greatest:g}, found {value:g}")
        if len(set(self.targets)) < len(self.targets):
            raise InputError(f"expected distinct targets, found {', '.join(self.targets)}")


@dataclass(frozen=True)
class Timed:
    """One figure of a bench.

    Attributes:
        kind: the file ``alone``, or as ``deployed``: from decoded images to their most likely
            classes.
        latency: of one inference with ``latency.batch`` images.
    """

    target: str
    kind: Kind
    latency: Latency

    @property
    def images_per_s(self) -> float:
        """At the median latency."""
        return 1000 * self.latency.batch / self.latency.p50


@dataclass(frozen=True)
class Bench:
    """What was timed.

    Attributes:
        reference: the target whose file all were timed in turns with, alone.
        left_out: targets that cannot be timed here, and why.
        other_load: share of the machine's processors that other programs used, 0 to 1; what was
            asked for is not counted.
    """

    rows: tuple[Timed, ...]
    reference: str
    left_out: Mapping[str, str]
    other_load: float

    def fastest(self, bundle: Bundle) -> str | None:
        """The target that takes least at the smallest batch, of those that passed the gate.

        None where no such was timed: one that the gate has marked, or never saw running, is not
        recommended, however fast it is.
        """
        clean = [
            row
            for row in self.rows
            if row.kind == "alone" and bundle.record(row.target).status == "verified"
        ]
        if not clean:
            return None
        least = min(row.latency.batch for row in clean)
        threads = clean[0].latency.threads
        beside = [r for r in clean if (r.latency.batch, r.latency.threads) == (least, threads)]
        return min(beside, key=lambda row: row.latency.ratio).target


def bench_bundle(bundle: Bundle, options: BenchOptions, *, progress: Progress = SILENT) -> Bench:
    """Time files of a bundle.

    Raises:
        UnknownNameError: for a target that the bundle does not have.
        OfaDeployError: if one that was asked for, or none at all, can be timed here.
    """
    with scratch() as folder:
        artefacts, left_out = _artefacts(bundle, options.targets, folder)
        asked = [t for t in artefacts if t in (options.targets or artefacts)]
        reference = next(iter(artefacts))
        subjects = dict(_subjects(bundle, artefacts, asked, options))
        files = {key: file for key, (_, file) in subjects.items()}
        seconds = 60 * options.minutes / (options.processes * len(options.threads))
        protocol = Protocol(rounds=_ROUNDS, seconds=seconds, processes=options.processes)
        beside = _alone(bundle, reference, artefacts[reference], 1)
        against = _key(reference, "alone", beside.shape[0])
        files.setdefault(against, beside)
        rows = []
        meter = LoadMeter()
        with busy(options.load) if options.load else nullcontext():
            for threads in options.threads:
                timed = time_files(
                    files,
                    {},
                    reference=against,
                    threads=threads,
                    protocol=protocol,
                    progress=progress,
                )
                rows += [
                    Timed(file.target, kind, timed[key]) for key, (kind, file) in subjects.items()
                ]
    return Bench(tuple(rows), reference, left_out, meter.others())


def _artefacts(
    bundle: Bundle, asked: Sequence[str], folder: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """What engines load, of the targets that run here, the reference first; and why others do not.

    The reference is ``onnx``, or where that is not there whatever comes first.
    """
    for name in asked:
        bundle.record(name)
    found: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    names = sorted(bundle.manifest.targets, key=lambda name: name != REFERENCE)
    for name in names:
        if asked and name not in (*asked, REFERENCE):
            continue
        try:
            artefact = bundle.artefact(name)
            get_target(name).load(artefact)
        except OfaDeployError as error:
            if name in asked:
                raise
            left_out[name] = str(error)
            continue
        found[name] = write_bytes(folder / f"{name}.artefact", artefact)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DeviceError(f"none of the bundle's targets runs here ({why})")
    return found, left_out


def _subjects(
    bundle: Bundle, artefacts: Mapping[str, Path], asked: Sequence[str], options: BenchOptions
) -> Iterator[tuple[str, tuple[Kind, TimedFile]]]:
    wanted = bundle.manifest.preprocessing
    for name in asked:
        takes = bundle.record(name).input
        fixed = takes.shape[0]
        for batch in [fixed] if isinstance(fixed, int) else options.batches:
            alone = _alone(bundle, name, artefacts[name], batch)
            around = Deployed(options.image, wanted.model_dump(mode="json"), takes.preprocessing)
            for kind, file in zip(_KINDS, (alone, replace(alone, deployed=around)), strict=True):
                yield _key(name, kind, batch), (kind, file)


def _key(target: str, kind: Kind, batch: int) -> str:
    return f"{target}, {kind}, {batch}"


def _alone(bundle: Bundle, name: str, artefact: Path, batch: int) -> TimedFile:
    """A file by itself; images of free size are as large as the network sees them."""
    takes = bundle.record(name).input
    return TimedFile.of(name, artefact, takes, side=bundle.size, batch=batch)
