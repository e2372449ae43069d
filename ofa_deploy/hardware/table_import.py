"""Latency tables that others measured, as tables of this project.

An imported table has blocks and nothing else: no reference network, so that nothing measured here
can be compared with it, and no whole networks, so that its error is unknown.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError, MismatchError, UnknownNameError
from ofa_deploy.hardware.figures import Figure, Form, Readings
from ofa_deploy.hardware.measurement import Conditions
from ofa_deploy.hardware.ofa_yaml import OFA_YAML
from ofa_deploy.hardware.table import BlockEntry, LatencyTable
from ofa_deploy.hardware.table_csv import CSV
from ofa_deploy.space import Block, SearchSpace

__all__ = ["FORMS", "UNITS", "import_tables", "resolutions_present"]

FORMS = {"ofa-yaml": OFA_YAML, "csv": CSV}
UNITS = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_UNKNOWN = "unknown"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# What no device does. Above: a network at batch 1 is tens of kernels, each launched after the last,
# so that even an accelerator of 10^6 GMAC/s reaches less than 3,000 on it; where 300 are exceeded,
# at least its blocks take no less than a few launches, 5 us. Below: the slowest microcontrollers
# reach 1e-3 GMAC/s; and nobody times hundreds of runs of what takes 20 s an image.
_MOST_GMACS, _MANY_GMACS, _LEAST_BLOCK_MS = 3_000.0, 300.0, 0.005
_MOST_GMACS_BATCHED = 1e6
_LEAST_GMACS, _MOST_MS = 1e-4, 20_000.0


def import_tables(
    form: str,
    path: Path | str,
    *,
    space: SearchSpace,
    device: str,
    resolutions: Sequence[int] | None = None,
    unit: str = "ms",
    processor: str = _UNKNOWN,
    runtime: str = _UNKNOWN,
    runtime_version: str = _UNKNOWN,
    precision: str = _UNKNOWN,
    batch: int | None = None,
    threads: int | None = None,
    power_mode: str = "",
) -> LatencyTable:
    """A latency table from files that somebody else made.

    Args:
        form: ``ofa-yaml`` (once-for-all's tables: a folder, or one file) or ``csv``, with columns
            ``block`` (or the block's fields), ``ms``, and if known ``spread`` and ``count``.
        path: a file, or a folder of YAML files.
        space: what the blocks belong to.
        device: what they were measured on: a name, as in ``devices/``.
        resolutions: input sizes to keep; by default those of the space's that the files hold.
        unit: what the files' figures are in: ``ms``, ``us`` or ``s``.
        batch: images an inference; 1 is assumed if not given, and so for ``threads``.

    Raises:
        FileFormatError: if a file is damaged, or holds NaN, negative, zero or duplicate figures.
        MismatchError: if a block of the space is missing, naming the nearest that are there.
        InputError: if the figures cannot be in that unit, or an argument makes no sense.
    """
    for kind, name, known in (("form", form, FORMS), ("unit", unit, UNITS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    conditions = Conditions(
        device=_named("device", device),
        processor=processor,
        runtime=_named("runtime", runtime),
        runtime_version=runtime_version,
        precision=_named("precision", precision),
        batch=_at_least_one("batch", batch),
        threads=_at_least_one("threads", threads),
        power_mode=_named("power mode", power_mode) if power_mode else "",
    )
    path = Path(path)
    readings = FORMS[form].read(path)
    matched = _Match(path, FORMS[form], readings)
    space = matched.space(space, resolutions)
    entries = matched.entries(space, UNITS[unit], conditions.batch)
    _check_plausible(path, space, entries, conditions.batch, unit)
    assumed = [f"{n} 1" for n, v in (("batch", batch), ("threads", threads)) if v is None]
    protocol: dict[str, int | float | str] = {
        "imported": form,
        "unit": unit,
        "figures": len(readings.figures),
        "unused": len(readings.figures.keys() - matched.used),
        "repeated": readings.repeated,
        "repeated_differ": round(readings.differ, 4),
    }
    files = "1 file" if readings.files == 1 else f"{readings.files} files"
    return LatencyTable(
        space=space.name,
        classes=space.classes,
        fingerprint=space.fingerprint,
        resolutions=space.resolutions,
        conditions=conditions,
        protocol=protocol | ({"assumed": ", ".join(assumed)} if assumed else {}),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        blocks=entries,
        source=f"{form}: {path.resolve().name}, {files}, sha256 {readings.sha256}",
    )


def _named(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{kind}: expected lower-case letters, digits, '.', '_' and '-', found {name!r}"
        )
    return name


def _at_least_one(kind: str, value: int | None) -> int:
    if value is not None and value < 1:
        raise InputError(f"{kind}: expected 1 or more, found {value}")
    return 1 if value is None else value


def resolutions_present(space: SearchSpace, present: Callable[[Block], bool]) -> tuple[int, ...]:
    """The resolutions of a space for which there is something that no other resolution has."""
    by_size = {r: set(space.with_resolutions(r).blocks()) for r in space.resolutions}
    seen: dict[Block, int] = {}
    for blocks in by_size.values():
        for block in blocks:
            seen[block] = seen.get(block, 0) + 1
    return tuple(
        r
        for r, blocks in by_size.items()
        if any(seen[block] == 1 and present(block) for block in blocks)
    )


@dataclass(frozen=True)
class _Match:
    """What stands in the files, seen as the blocks of a space."""

    path: Path
    form: Form
    readings: Readings
    used: set[str] = field(default_factory=set)

    def space(self, space: SearchSpace, resolutions: Sequence[int] | None) -> SearchSpace:
        """The space with those of its resolutions that are asked for, or that the files hold."""
        if resolutions is not None:
            return space.with_resolutions(*resolutions)
        promised = set(space.resolutions) & set(self.readings.resolutions)
        held = promised | set(resolutions_present(space, lambda b: self._names(b) is not None))
        return space.with_resolutions(*(held or space.resolutions))

    def _names(self, block: Block) -> tuple[str, ...] | None:
        """The names under which the block's figures stand, if they do."""
        for names in self.form.names(block):
            if all(name in self.readings.figures for name in names):
                return names
        return None

    def entries(self, space: SearchSpace, unit_ms: float, batch: int) -> dict[str, BlockEntry]:
        found: dict[str, BlockEntry] = {}
        missing = []
        for block in space.blocks():
            names = self._names(block)
            if names is None:
                missing.append(block)
                continue
            self.used.update(names)
            figure = _sum([self.readings.figures[name] for name in names])
            found[block.key] = self._entry(block, figure, unit_ms, batch)
        if missing:
            self._refuse(space, missing)
        return found

    def _entry(self, block: Block, figure: Figure, unit_ms: float, batch: int) -> BlockEntry:
        ms, spread, count = figure.mean * unit_ms, figure.spread, figure.count
        try:
            return BlockEntry.of(block, ms=ms, spread=spread, count=count, batch=batch)
        except ValidationError as error:
            raise FileFormatError(f"{self.path}: block {block.key}: {problem(error)}") from None

    def _refuse(self, space: SearchSpace, missing: list[Block]) -> None:
        import difflib

        first, figures = missing[0], self.readings.figures
        alternatives = self.form.names(first)
        if not alternatives:
            raise MismatchError(
                f"{self.path}: this form cannot hold {first.kind} blocks such as {first.key}, "
                f"which space {space.name} has; import a csv instead"
            )
        name = next(name for name in alternatives[0] if name not in figures)
        kind = name.partition("-")[0]
        alike = [each for each in figures if each.partition("-")[0] == kind] or list(figures)
        near = difflib.get_close_matches(name, alike, n=2, cutoff=0)
        expected = "" if name == first.key else f", expected as {name!r}"
        raise MismatchError(
            f"{self.path}: {len(missing)} of {len(space.blocks())} blocks of space {space.name} "
            f"are missing; the first: {first.key}{expected}; nearest present: "
            f"{', '.join(repr(each[:120]) for each in near) or 'none'}; complete it, or name the "
            "space and the resolutions that it was made for"
        )


def _sum(figures: Sequence[Figure]) -> Figure:
    """Of independent parts, run one after another."""
    if len(figures) == 1:
        return figures[0]
    mean = sum(f.mean for f in figures)
    spread = float(np.hypot.reduce([f.spread * f.mean for f in figures])) / mean
    return Figure(mean, spread, min(f.count for f in figures))


def _check_plausible(
    path: Path, space: SearchSpace, entries: dict[str, BlockEntry], batch: int, unit: str
) -> None:
    """See that the figures can be in that unit at all."""
    whole = [entries[block.key] for block in space.lower(space.largest)]
    ms = sum(entry.ms for entry in whole)
    gmacs = sum(entry.macs for entry in whole) / ms / 1e6
    middle = float(np.median([entry.ms for entry in whole]))
    hurried = gmacs > _MANY_GMACS and middle < _LEAST_BLOCK_MS
    fast = gmacs > _MOST_GMACS or hurried if batch == 1 else gmacs > _MOST_GMACS_BATCHED
    slow = gmacs < _LEAST_GMACS or ms > _MOST_MS * batch
    if fast or slow:
        larger = [name for name in UNITS if UNITS[name] > UNITS[unit]]
        smaller = [name for name in UNITS if UNITS[name] < UNITS[unit]]
        hint = " or ".join(f"--unit {name}" for name in (larger if fast else smaller))
        raise InputError(
            f"{path}: read as {unit}, the largest network takes {ms:.3g} ms ({gmacs:.3g} GMAC/s), "
            f"which is too {'fast' if fast else 'slow'} to be true; "
            + (
                f"if the figures are in another unit, say {hint}"
                if hint
                else "are these latencies?"
            )
        )
