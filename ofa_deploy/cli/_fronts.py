"""Front files as a report takes them: by device, with their run, kept subnets and block times."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.errors import InputError, MismatchError, OfaDeployError

if TYPE_CHECKING:
    from ofa_deploy.hardware import Conditions, LatencyTable
    from ofa_deploy.pareto import ParetoFront
    from ofa_deploy.report import Context, Series
    from ofa_deploy.search import FrontFile
    from ofa_deploy.space import Arch

__all__ = ["ReadSeries", "doubts", "read_fronts", "read_tables"]

_OF_DEVICE = re.compile(r"latency\[([^\]]+)\]")
_MOST_SUBNETS = 200  # files of a run that are looked into


def doubts(series_list: "Sequence[Series]") -> list[str]:
    """What to say of fronts of other data, and of accuracy models that do not rank networks."""
    from ofa_deploy.export import accuracy_file
    from ofa_deploy.predict import load_accuracy_model

    files: dict[Path, None] = {}
    for series in series_list:
        context = series.context
        if context.run:
            files[accuracy_file(Path(context.run), *context.engine)] = None
    said = _other_data(series_list)
    for path in files:
        if not path.exists():
            continue
        with suppress(OfaDeployError):  # nobody named it: left alone where it cannot be read
            if doubt := load_accuracy_model(path).doubt:
                said.append(f"{path}: {doubt}")
    return said


def _other_data(series_list: "Sequence[Series]") -> list[str]:
    """Whether top-1 of these fronts is of different images, or told among other classes."""
    from ofa_deploy.train import RunFile

    data: dict[str, str] = {}  # a digest, with what it is called and by whom
    classes: dict[int, str] = {}
    for series in series_list:
        context = series.context
        if context.space is not None:
            classes.setdefault(context.space.classes, series.label)
        if context.run:
            with suppress(OfaDeployError):
                run = RunFile.load(Path(context.run))
                data.setdefault(run.data_digest, f"{series.label} on {Path(run.data).name}")
    if len(data) > 1:
        which = ", ".join(f"{called} ({digest})" for digest, called in data.items())
    elif len(classes) > 1:
        which = ", ".join(f"{label} among {count}" for count, label in classes.items())
        which += " classes"
    else:
        return []
    return [
        f"top-1 of these fronts was judged on different images: {which}; gains in points, "
        "dominance and hypervolumes then compare the data as much as the networks"
    ]


@dataclass(frozen=True)
class ReadSeries:
    """One front on one device; the device's id, empty if unknown."""

    series: "Series"
    device: str


def read_tables(paths: Sequence[Path]) -> "list[LatencyTable]":
    """The tables that were named.

    Raises:
        InputError, FileFormatError: if one cannot be read.
    """
    from ofa_deploy.hardware import find_table

    return [find_table(str(path)) for path in paths]


def read_fronts(
    paths: Sequence[Path], labels: Sequence[str] | None, tables: "Sequence[LatencyTable]"
) -> list[list[ReadSeries]]:
    """Read front files: of each, a series a device that its networks have a latency on.

    Raises:
        InputError: if a file cannot be read, or there are not as many labels as files.
        MismatchError: if a table that was named is of no front's space.
    """
    from ofa_deploy.search import FrontFile

    files = [FrontFile.load(path) for path in paths]
    if labels and len(labels) != len(files):
        raise InputError(f"expected {len(files)} labels, found {len(labels)}")
    names = list(labels or _labels(paths, files))
    reader = _Reader(tables)
    read = [reader.read(*each) for each in zip(paths, files, names, strict=True)]
    used = {id(each.series.context.table) for front in read for each in front}
    for table in tables:
        if id(table) not in used:
            raise MismatchError(
                f"the latency table for {table.space} on {table.conditions.device} is of no front "
                "shown: space and conditions must agree; leave it out"
            )
    return read


def _labels(paths: Sequence[Path], files: "Sequence[FrontFile]") -> list[str]:
    """File stems; NAME and NAME-measured are two views of one front and share its name.

    A file that is named by its kind alone is known by the label in it.

    Of fronts that would be named alike, the folders tell them apart.
    """
    stems = [path.name.removesuffix(".front.json") for path in paths]
    kinds = [file.kind for file in files]
    names = [
        file.label if stem == file.kind else stem.removesuffix(f"-{file.kind}")
        for stem, file in zip(stems, files, strict=True)
    ]
    named = list(zip(names, kinds, strict=True))
    if len(set(named)) == len(named):
        return names
    folders = [path.resolve().parts[:-1] for path in paths]
    own = [[part for part in mine if any(part not in each for each in folders)] for mine in folders]
    return [f"{own[i][-1]}/{name}" if own[i] else name for i, name in enumerate(names)]


class _Reader:
    """Reads fronts with what lies around them; each table and run is looked into once."""

    def __init__(self, named: "Sequence[LatencyTable]") -> None:
        self.named = named
        self.tables: dict[Path, LatencyTable | None] = {}
        self.kept: dict[Path, dict[Arch, str]] = {}

    def read(self, path: Path, file: "FrontFile", label: str) -> list[ReadSeries]:
        from ofa_deploy.report import Series
        from ofa_deploy.report.series import LATENCY

        front = file.pareto
        if not front:
            raise InputError(f"{path}: a front of no network; search again under a larger budget")
        metrics = [] if file.conditions is not None else _latencies(front)
        contexts = {metric: self._context(path, file, device) for metric, device in metrics}
        if not contexts:
            contexts[LATENCY] = self._context(path, file, "")
        return [
            ReadSeries(
                Series(label, front, file.kind, metric, context),
                context.conditions.device if context.conditions else context.device,
            )
            for metric, context in contexts.items()
        ]

    def _context(self, path: Path, file: "FrontFile", device: str) -> "Context":
        from ofa_deploy.report import Context
        from ofa_deploy.space import SearchSpace

        space = SearchSpace.from_dict(file.space)
        run = path.parent.parent if path.parent.name == "fronts" else None
        run = run if run and (run / "run.json").exists() else None
        stated = file.conditions
        return Context(
            conditions=stated,
            device=device,
            space=space,
            table=self._table(file, space.fingerprint, device, run),
            run=str(run) if run else "",
            subnets=self._subnets(run) if run else {},
            target=_target(stated) if stated else "",
            budgets=() if device else file.budgets,  # those of several devices name none
        )

    def _table(
        self, file: "FrontFile", fingerprint: str, device: str, run: Path | None
    ) -> "LatencyTable | None":
        """The table of that space and those conditions: named, the run's own, or at hand."""
        from ofa_deploy.hardware import table_files

        def fits(table: "LatencyTable | None") -> bool:
            if table is None or table.fingerprint != fingerprint:
                return False
            if file.conditions is None:
                return bool(device) and table.conditions.device == device
            return table.conditions == file.conditions

        if found := next(filter(fits, self.named), None):
            return found
        own = [run / "latency_table.json"] if run else []
        return next(filter(fits, map(self._readable, [*own, *table_files()])), None)

    def _readable(self, path: Path) -> "LatencyTable | None":
        """A table that nobody named: left alone where it cannot be read."""
        from ofa_deploy.hardware import LatencyTable

        if path not in self.tables:
            try:
                self.tables[path] = LatencyTable.load(path) if path.exists() else None
            except OfaDeployError:
                self.tables[path] = None
        return self.tables[path]

    def _subnets(self, run: Path) -> "dict[Arch, str]":
        """The subnets that a run keeps, by arch; files that cannot be read are left alone."""
        from ofa_deploy.files import read_json
        from ofa_deploy.space import Arch

        if run in self.kept:
            return self.kept[run]
        found: dict[Arch, str] = {}
        for path in sorted((run / "subnets").glob("*.subnet.json"))[:_MOST_SUBNETS]:
            try:
                found.setdefault(Arch.from_dict(read_json(path)["candidate"]["arch"]), str(path))
            except (OfaDeployError, KeyError, TypeError):
                continue
        self.kept[run] = found
        return found


def _latencies(front: "ParetoFront") -> list[tuple[str, str]]:
    """Of a front for several devices: each metric ``latency[device]`` with its device."""
    first = next(iter(front), None)
    names = dict.fromkeys([*first.measured, *first.predicted]) if first else {}
    return [(name, found[1]) for name in names if (found := _OF_DEVICE.fullmatch(name))]


def _target(conditions: "Conditions") -> str:
    from ofa_deploy.export import export_target

    return export_target(conditions.runtime, conditions.precision)
