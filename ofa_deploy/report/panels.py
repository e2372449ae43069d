"""Panels: one a device, since latencies of two devices stand on no common axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from ofa_deploy.errors import InputError
from ofa_deploy.report.external import ExternalPoint
from ofa_deploy.report.series import Series, check

__all__ = ["Panel", "panels_of"]


@dataclass(frozen=True)
class Panel:
    """What stands on common axes.

    Attributes:
        name: the device; empty if it is not known.
        series: its fronts.
        external: points from elsewhere that are said to be of this device.
    """

    name: str
    series: tuple[Series, ...]
    external: tuple[ExternalPoint, ...] = ()

    @property
    def titled(self) -> str:
        """The device and the form that all its fronts' networks run in; empty if not known."""
        forms = self._forms
        return ", ".join(filter(None, (self.name, *(forms if len(forms) == 1 else ()))))

    def said(self, series: Series) -> str:
        """A front's name, with the form that its networks run in where there are several."""
        form = series.context.form if len(self._forms) > 1 else ""
        return ", ".join(filter(None, (series.name, form)))

    @property
    def _forms(self) -> list[str]:
        return list(dict.fromkeys(series.context.form for series in self.series))

    @property
    def budgets(self) -> list[float]:
        """Latencies in ms that were asked for in any of its fronts, the least first."""
        return sorted({budget for each in self.series for budget in each.context.budgets})

    @property
    def fastest(self) -> float:
        """The least latency of its fronts, in ms: what relative latencies are relative to."""
        return min(series.points()[0].x for series in self.series)

    @property
    def differences(self) -> dict[str, tuple[str, ...]]:
        """Conditions of which its fronts have several, each with its values."""
        stated = [s.context.conditions.model_dump() for s in self.series if s.context.conditions]
        names = stated[0] if stated else {}
        values = {name: tuple(dict.fromkeys(str(each[name]) for each in stated)) for name in names}
        return {name: found for name, found in values.items() if len(found) > 1}


def panels_of(
    series_list: Sequence[Series],
    external: Sequence[ExternalPoint] = (),
) -> list[Panel]:
    """The series by device, in the order in which devices first occur.

    External points go where their device stands, by id or by the panel's whole name; points that
    name none go to the only panel.

    Raises:
        InputError: if ``check`` refuses the series, or a point's panel cannot be told.
    """
    check(series_list)
    names = list(dict.fromkeys(series.panel for series in series_list))
    placed = [(_place(point, names, series_list), point) for point in external]
    return [
        Panel(
            name,
            tuple(series for series in series_list if series.panel == name),
            tuple(point for at, point in placed if at == name),
        )
        for name in names
    ]


def _place(point: ExternalPoint, names: Sequence[str], series_list: Sequence[Series]) -> str:
    if not point.device and len(names) == 1:
        return names[0]
    matching = dict.fromkeys(s.panel for s in series_list if point.device in _names(s))
    if len(matching) == 1:
        return next(iter(matching))
    known = ", ".join(repr(name) for name in names)
    found = f"device {point.device!r}" if point.device else "no device"
    mend = "correct it there" if point.device else "name it in the column 'device'"
    raise InputError(
        f"external point {point.name!r}: expected the device of one panel ({known}), found "
        f"{found}; {mend}"
    )


def _names(series: Series) -> set[str]:
    conditions = series.context.conditions
    return {series.panel, conditions.device if conditions else series.context.device} - {""}
