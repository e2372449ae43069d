"""Latency tables that a search names by their devices, rather than by their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.cli._output import quoted
from ofa_deploy.cli._profile_command import profile_command
from ofa_deploy.errors import InputError, MismatchError, UnknownNameError

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.space import SearchSpace

__all__ = ["TablesOfDevices", "check_classes", "known_space", "shorter"]


def known_space(run: Path | None, accuracy: Path | None) -> "SearchSpace":
    """The space of a run, or of an accuracy model.

    Raises:
        InputError: if the run is still to be made of weights.
    """
    from ofa_deploy.predict import load_accuracy_model

    if run is not None and (run / "run.json").exists():
        from ofa_deploy.train import RunFile

        return RunFile.load(run).search_space
    models = [accuracy] if accuracy is not None else sorted((run or Path()).glob("accuracy*.onnx"))
    if not models:
        raise InputError(
            f"{run}: no run there yet, so that its space is not known; name tables with --table "
            "FILE the first time"
        )
    return load_accuracy_model(models[0]).space


def check_classes(space: "SearchSpace", tables: "Mapping[Path, LatencyTable]") -> None:
    """See that tables are for as many classes as the networks that are searched.

    Raises:
        MismatchError: if one of the same space is for others, naming a table that would do.
    """
    for path, table in tables.items():
        if (table.space, table.classes != space.classes) == (space.name, True):
            conditions = table.conditions
            use = _of_classes(space, conditions.device, conditions.runtime, conditions.precision)
            raise MismatchError(
                f"{path}: the table is for {table.classes} classes, the run has {space.classes}; "
                f"use {use}"
            )


def _of_classes(space: "SearchSpace", device: str, runtime: str, precision: str) -> str:
    """What to name instead of a table of other classes: the same device's come first."""
    from ofa_deploy.errors import FileFormatError
    from ofa_deploy.hardware import LatencyTable, table_files

    for path in sorted(table_files(), key=lambda path: path.parent.name != device):
        try:
            table = LatencyTable.load(path)
        except FileFormatError:
            continue
        form = (table.conditions.runtime, table.conditions.precision)
        if table.fingerprint == space.fingerprint and form == (runtime, precision):
            return f"--table {quoted(shorter(path))}, or --device {quoted(path.parent.name)}"
    return f"one of yours, made with: ofa-deploy profile --run RUN --device {quoted(device)}"


def shorter(path: Path) -> Path:
    """A path as people type it: from the folder they are in, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class TablesOfDevices:
    """Finds the table of a device among those at hand: in ./latency_tables, shipped, or the run's.

    Args:
        space: of which it must be, if need be with other resolutions.
        run: whose space it is, if a run's.
        runtime, precision: that it must have; None is any.
    """

    def __init__(
        self,
        space: "SearchSpace",
        run: Path | None,
        runtime: str | None,
        precision: str | None,
    ) -> None:
        self._space, self._run = space, run
        self._runtime, self._precision = runtime, precision

    def find(self, names: Sequence[str]) -> list[Path]:
        """A table each.

        Args:
            names: devices as ``profile --device`` takes them.

        Raises:
            UnknownNameError: if there is no table of a device.
            MismatchError: if none is of the space, runtime and precision.
            InputError: if several are, listing them.
        """
        return [self._of(name) for name in names]

    def _of(self, name: str) -> Path:
        from ofa_deploy.hardware import load_device, table_files

        device = load_device(name).id if "://" in name else name
        files: dict[str, Path] = {}
        for path in table_files():  # the user's come first
            if path.parent.name == device:
                files.setdefault(path.name, path)
        fitting = self._fitting(list(files.values()))
        if not fitting and (own := self._own(device)):
            return own
        if not files:
            known = {path.parent.name for path in table_files()}
            hint = f"those that have a latency table; make one with: {self._profile(name)}"
            raise UnknownNameError("device", name, known, hint=hint)
        if not fitting:
            raise MismatchError(
                f"no latency table of {device} is for {self._asked}; at hand: "
                f"{', '.join(map(str, files.values()))}; make one with: {self._profile(name)}"
            )
        if len(fitting) > 1:
            raise InputError(
                f"several latency tables of {device} are for {self._asked}: "
                f"{', '.join(map(str, fitting))}; choose with --runtime and --precision, or name "
                "one with --table FILE"
            )
        return fitting[0]

    def _own(self, device: str) -> Path | None:
        """The table that a quickstart left in its run, if it will do."""
        from ofa_deploy.hardware import LatencyTable

        path = self._run / "latency_table.json" if self._run else None
        if path is None or not path.exists() or LatencyTable.load(path).conditions.device != device:
            return None
        return next(iter(self._fitting([path])), None)

    def _profile(self, name: str) -> str:
        """The command that makes such a table."""
        from ofa_deploy.hardware import known_device

        whose = f"--run {quoted(self._run)}" if self._run else f"--space {self._space.name}"
        return profile_command(whose, name, known_device(name), self._runtime, self._precision)

    @property
    def _asked(self) -> str:
        form = "-".join(part for part in (self._runtime, self._precision) if part)
        return f"{self._space.name} ({self._space.classes} classes)" + (form and f", {form}")

    def _fitting(self, paths: Sequence[Path]) -> list[Path]:
        """Those of the very space, or else those that share resolutions with it."""
        from ofa_deploy.hardware import LatencyTable
        from ofa_deploy.search import shared_space

        same, sharing = [], []
        for path in paths:
            table = LatencyTable.load(path)
            conditions = table.conditions
            if self._runtime not in (None, conditions.runtime):
                continue
            if self._precision not in (None, conditions.precision):
                continue
            if table.fingerprint == self._space.fingerprint:
                same.append(path)
                continue
            try:
                shared_space(self._space, [table])
            except MismatchError:
                continue
            sharing.append(path)
        return same or sharing
