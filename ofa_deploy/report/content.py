"""``Report``: everything that a page, a picture, tables and files say, worked out once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ofa_deploy.files import write_json, write_text
from ofa_deploy.report.agreement import Agreement, agreement, agreement_table
from ofa_deploy.report.changes import Changes, repeated
from ofa_deploy.report.compare import Comparison, compare
from ofa_deploy.report.external import ExternalPoint
from ofa_deploy.report.panels import Panel, panels_of
from ofa_deploy.report.series import Series, one_a_label
from ofa_deploy.report.table import Row, csv_text, front_rows, front_table
from ofa_deploy.terminal import UNKNOWN, TextTable, milliseconds, percent

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Fronts to be told of, and what is asked of them.

    Attributes:
        series: the fronts; those of one device stand on common axes.
        title: of page and picture.
        facts: what the numbers hold for, such as device, runtime and the supernet's hash.
        commands: what to run next, one line each.
        reference: the point that hypervolumes reach to; see ``compare``.
        external: points from elsewhere.
        before_after: two runs of the same thing; if not given, every two fronts of a device that
            share networks are taken for that.

    Raises:
        InputError: if there is no series, two of a device have one name, a budget is not a
            positive number, or an external point's device is none of theirs.
    """

    series: Sequence[Series]
    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    reference: Mapping[str, float] | None = None
    external: Sequence[ExternalPoint] = ()
    before_after: Sequence[Changes] | None = None

    def __post_init__(self) -> None:
        panels_of(self.series, self.external)

    @cached_property
    def panels(self) -> list[Panel]:
        """The series by device."""
        return panels_of(self.series, self.external)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """For each device its fronts held against each other, measured ones where there are."""
        return [
            compare(one_a_label(panel.series), self.reference, budgets=panel.budgets)
            for panel in self.panels
        ]

    @cached_property
    def agreements(self) -> list[tuple[Panel, list[Agreement]]]:
        """For each device with predicted and measured networks, how far they agree."""
        found = [(panel, agreement(panel.series)) for panel in self.panels]
        return [(panel, made) for panel, made in found if made]

    @cached_property
    def changes(self) -> list[Changes]:
        """Two runs of the same thing, each time there are some."""
        return repeated(self.series) if self.before_after is None else list(self.before_after)

    @cached_property
    def rows(self) -> list[Row]:
        """One for each network."""
        return front_rows(self.series)

    @property
    def relative_note(self) -> str:
        """What relative latencies are relative to."""
        ends = [f"{panel.name or 'device unknown'}: {milliseconds(panel.fastest)} ms"
                for panel in self.panels]  # fmt: skip
        return f"1 is the fastest network of each device's fronts ({'; '.join(ends)})."

    def networks_table(self) -> TextTable:
        """The networks themselves."""
        return front_table(self.rows, title="Networks")

    def tables(self, most: int | None = None) -> dict[str, TextTable]:
        """All tables but that of the networks, by a name that a file can bear.

        Args:
            most: networks that a table of changes shows.
        """
        made: dict[str, TextTable] = {}
        for index, comparison in enumerate(self.comparisons, start=1):
            end = f"-{index}" if len(self.comparisons) > 1 else ""
            if len(comparison.fronts) > 1 or end:
                names = ("fronts", "equal-latency", "equal-accuracy")
                for name, table in zip(names, comparison.tables(), strict=False):
                    made[f"{name}{end}"] = table
        for index, (panel, found) in enumerate(self.agreements, start=1):
            end = f"-{index}" if len(self.agreements) > 1 else ""
            made[f"agreement{end}"] = _of_device(agreement_table(found), panel, bool(end))
        for index, changed in enumerate(self.changes, start=1):
            made["changes" + (f"-{index}" if len(self.changes) > 1 else "")] = changed.table(most)
        if self.external:
            made["external"] = self._external()
        return made

    def _external(self) -> TextTable:
        rows = []
        for panel in self.panels:
            points = [p for series in one_a_label(panel.series) for p in series.points()]
            for each in panel.external:
                best = max((p.y for p in points if p.x <= each.latency), default=None)
                rows.append(
                    (
                        each.name,
                        panel.name or UNKNOWN,
                        milliseconds(each.latency),
                        percent(each.top1),
                        percent(best),
                        UNKNOWN if best is None else f"{best - each.top1:+.2f}",
                        each.source,
                    )
                )
        return TextTable(
            title="External points",
            headers=("Name", "Device", "ms", "%", "Fronts within ms, %", "Difference", "From"),
            numeric=(False, False, True, True, True, True, False),
            rows=tuple(rows),
            note="Not measured by ofa-deploy: as the file says. They count in no front, volume or "
            "coverage. Difference: the best network of the fronts within the same latency, in "
            "points over the external one.",
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number as JSON."""
        return {
            "schema": "report/1",
            "title": self.title,
            "budgets_ms": {panel.name: panel.budgets for panel in self.panels},
            "facts": dict(self.facts),
            "networks": [dict(row) for row in self.rows],
            "comparisons": [each.to_dict() for each in self.comparisons],
            "differing_conditions": {p.name: p.differences for p in self.panels if p.differences},
            "agreements": {
                panel.name: [each.to_dict() for each in found] for panel, found in self.agreements
            },
            "changes": [each.to_dict() for each in self.changes],
            "external": [asdict(point) for point in self.external],
        }

    def write_json(self, path: Path | str) -> Path:
        """Write every number as JSON."""
        return write_json(path, self.to_dict())

    def write_csv(self, path: Path | str) -> list[Path]:
        """Write the networks to ``NAME.csv``; to any other path, a folder with all tables."""
        path = Path(path)
        if path.suffix.lower() == ".csv":
            return [write_text(path, csv_text(self.rows))]
        named = {name: table.to_csv() for name, table in self.tables().items()}
        return [
            write_text(path / f"{name}.csv", text)
            for name, text in {"networks": csv_text(self.rows), **named}.items()
        ]


def _of_device(table: TextTable, panel: Panel, several: bool) -> TextTable:
    from dataclasses import replace

    return replace(table, title=f"{table.title} on {panel.name}") if several else table
