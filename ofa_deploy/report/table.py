"""The numbers of a report, written once: rows for files, and text tables to render anywhere."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypedDict, cast

from ofa_deploy.pareto import Candidate
from ofa_deploy.report.few import best_places, few_places
from ofa_deploy.report.series import TOP1, Series, check, known, one_a_label, top1_range
from ofa_deploy.space import Arch
from ofa_deploy.terminal import UNKNOWN, TextTable, count, interval, milliseconds, percent_within

__all__ = ["Row", "csv_text", "few_rows", "front_rows", "front_table", "rich_table"]


class Row(TypedDict):
    """One network of a report; None where a value is unknown.

    Times in ms, accuracies in percent; ``measured_ms`` and ``top1`` are measurements,
    ``measured_spread`` is relative. ``top1_low`` and ``top1_high`` are what the number of images
    leaves open. ``best``: the most accurate of its front that keeps its budget, as measured where
    that was measured.
    """

    series: str
    device: str
    budget: str
    predicted_ms: float | None
    low_ms: float | None
    high_ms: float | None
    measured_ms: float | None
    measured_spread: float | None
    top1_predicted: float | None
    top1_predicted_low: float | None
    top1_predicted_high: float | None
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    macs: float | None
    params: float | None
    arch: str
    best: bool


def front_rows(series_list: Sequence[Series]) -> list[Row]:
    """One row for each network of each label and device, in the order of series and fronts.

    Series of one label and device are merged, so a network predicted in one and measured in the
    other is one row with both.

    Raises:
        InputError: if there is no series, or two have one name.
    """
    check(series_list)
    merged: dict[tuple[str, str, Arch, int], Row] = {}
    deciding = _deciding(series_list)
    for series in series_list:
        seen: Counter[Arch] = Counter()  # one network may answer several budgets
        best = best_places(series) if id(series) in deciding else ()
        for place, candidate in enumerate(series.front):
            key = (series.panel, series.label, candidate.arch, seen[candidate.arch])
            seen[candidate.arch] += 1
            row = _row(series, candidate, place in best)
            merged[key] = _either(row, merged.get(key, row))
    order = list(dict.fromkeys((series.panel, series.label) for series in series_list))
    return sorted(merged.values(), key=lambda row: order.index((row["device"], row["series"])))


def _deciding(series_list: Sequence[Series]) -> set[int]:
    """Of each device and label the series that says which network is best: the measured one."""
    panels = dict.fromkeys(series.panel for series in series_list)
    mine = ([series for series in series_list if series.panel == panel] for panel in panels)
    return {id(series) for each in mine for series in one_a_label(each)}


def _row(series: Series, candidate: Candidate, best: bool) -> Row:
    latency = series.latency
    low, high = candidate.intervals.get(latency, (None, None))
    top1_low, top1_high = candidate.intervals.get(TOP1, (None, None))
    open_low, open_high = top1_range(candidate.measured) or (None, None)
    return Row(
        series=series.label,
        device=series.panel,
        budget=candidate.budget,
        predicted_ms=candidate.predicted.get(latency),
        low_ms=low,
        high_ms=high,
        measured_ms=candidate.measured.get(latency),
        measured_spread=candidate.measured.get(f"{latency}.spread"),
        top1_predicted=candidate.predicted.get(TOP1),
        top1_predicted_low=top1_low,
        top1_predicted_high=top1_high,
        top1=candidate.measured.get(TOP1),
        top1_low=open_low,
        top1_high=open_high,
        macs=known(candidate, "macs"),
        params=known(candidate, "params"),
        arch=str(candidate.arch),
        best=best,
    )


def _either(row: Row, other: Row) -> Row:
    """``row``, with what it lacks taken from ``other``."""
    own = {key: value for key, value in row.items() if value not in (None, "")}
    return cast("Row", {**other, **own, "best": row["best"] or other["best"]})


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV with a heading; full precision, empty where unknown."""
    out = io.StringIO()
    writer = csv.DictWriter(out, Row.__annotations__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _measured(row: Row) -> str:
    spread = row["measured_spread"]
    said = milliseconds(row["measured_ms"])
    return said if spread is None else f"{said} ±{50 * spread:.1f} %"


_BEST = "*"
_COLUMNS: tuple[tuple[str, bool, Callable[[Row], str]], ...] = (
    (_BEST, True, lambda row: _BEST if row["best"] else ""),
    ("Front", False, lambda row: row["series"]),
    ("Device", False, lambda row: row["device"] or UNKNOWN),
    ("Budget", False, lambda row: row["budget"] or UNKNOWN),
    (
        "Predicted ms",
        True,
        lambda row: interval(row["low_ms"], row["predicted_ms"], row["high_ms"]),
    ),
    ("Measured ms", True, lambda row: _measured(row)),
    (
        "Predicted top-1 %",
        True,
        lambda row: percent_within(
            row["top1_predicted"], (row["top1_predicted_low"], row["top1_predicted_high"])
        ),
    ),
    (
        "Measured top-1 %",
        True,
        lambda row: percent_within(row["top1"], (row["top1_low"], row["top1_high"])),
    ),
    ("MACs", True, lambda row: count(row["macs"])),
    ("Params", True, lambda row: count(row["params"])),
    ("Architecture", False, lambda row: row["arch"]),
)

_SPARE = ("Params", "MACs", "Architecture", "Predicted top-1 %", "Predicted ms")

# Below a table in which any row has it.
_NOTES: dict[str, Callable[[Row], bool]] = {
    "in brackets: the prediction's interval": lambda row: row["low_ms"] is not None,
    "ms ±: half of what the measuring processes span": lambda row: (
        row["measured_spread"] is not None
    ),
    "predicted top-1 ±: half of the model's 90 % interval": lambda row: (
        row["top1_predicted_low"] is not None
    ),
    "measured top-1 ±: half of what its number of images leaves open (90 %)": lambda row: (
        row["top1_low"] is not None
    ),
}


def front_table(rows: Sequence[Row], *, title: str = "", arch: bool = True) -> TextTable:
    """Rows as text, without columns that say nothing: one front's name, values known of none.

    Args:
        arch: whether to show the architectures, which need a wide page.
    """
    told_apart = 0 < sum(row["best"] for row in rows) < len(rows)
    several = len({row["series"] for row in rows}) > 1
    devices = len({row["device"] for row in rows}) > 1
    cells = {header: [text(row) for row in rows] for header, _, text in _COLUMNS}
    kept = [
        (header, numeric)
        for header, numeric, _ in _COLUMNS
        if {_BEST: told_apart, "Front": several, "Device": devices, "Architecture": arch}.get(
            header, set(cells[header]) != {UNKNOWN}
        )
    ]
    told = [text for text, applies in _NOTES.items() if any(map(applies, rows))]
    best = [f"{_BEST}: the most accurate of its front that keeps its budget"] if told_apart else []
    return TextTable(
        title,
        headers=tuple(header for header, _ in kept),
        numeric=tuple(numeric for _, numeric in kept),
        rows=tuple(zip(*(cells[header] for header, _ in kept), strict=True)),
        note="; ".join([*best, *told]),
        spare=_SPARE,
    )


def few_rows(rows: Sequence[Row]) -> list[Row]:
    """About ``MOST`` rows of each front: all that are best, what was measured, and end to end."""
    kept: list[Row] = []
    for _, group in groupby(rows, key=lambda row: (row["series"], row["device"])):
        found = list(group)
        best = [i for i, row in enumerate(found) if row["best"]]
        seen = [i for i, row in enumerate(found) if row["measured_ms"] or row["top1"] is not None]
        few = few_places(len(found), {*best, *seen})
        missing = [i for i in best if i not in few]
        kept += [found[i] for i in sorted([*few, *missing])]
    return kept


def rich_table(
    rows: "Sequence[Row] | TextTable", *, title: str = "", arch: bool = False
) -> TextTable:
    """A table that ``rich`` prints, of rows (with the architectures if ``arch``) or as it is."""
    return rows if isinstance(rows, TextTable) else front_table(rows, title=title, arch=arch)
