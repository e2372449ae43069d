"""What the page is given: charts as columns of numbers, networks, and glyphs to draw them with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ofa_deploy.pareto import Candidate
from ofa_deploy.report.agreement import both
from ofa_deploy.report.changes import VERDICTS
from ofa_deploy.report.content import Report
from ofa_deploy.report.network import FRAME, RAMP
from ofa_deploy.report.panels import Panel
from ofa_deploy.report.series import TOP1, Point, Series, one_a_label, staircase
from ofa_deploy.report.store import Store
from ofa_deploy.report.style import EXTERNAL, MacsScale, Style, nth_style, styles
from ofa_deploy.terminal import short

__all__ = ["payload"]

TOP1_AXIS = "Top-1 accuracy (%)"


def _shorts(values: Iterable[float]) -> list[float]:
    return [short(value) for value in values]


def payload(report: Report) -> dict[str, Any]:
    """The page's data, JSON-able; every text in it is plain text."""
    store = Store()
    for series in report.series:
        store.add(series)
    looks = dict(zip(map(id, report.series), styles(report.series), strict=True))
    scale = MacsScale.of(report.series)
    draw = _Charts(report, store, looks, scale)
    charts = [draw.front(panel) for panel in report.panels]
    if len(report.panels) > 1:
        charts.append(draw.relative())
    for panel, found in report.agreements:
        charts += [draw.agreement(panel, name) for name in dict.fromkeys(a.metric for a in found)]
    charts += [draw.changes(index) for index in range(len(report.changes))]
    return {
        "charts": charts,
        "networks": store.to_dict(report.series),
        "frame": FRAME,
        "ramp": RAMP,
    }


@dataclass(frozen=True)
class _Charts:
    report: Report
    store: Store
    looks: dict[int, Style]
    scale: MacsScale

    def front(self, panel: Panel) -> dict[str, Any]:
        """One device's fronts."""
        return {
            "kind": "front",
            "title": panel.titled or "Accuracy against latency",
            "note": self._note(panel.series, bool(panel.external), bool(panel.budgets)),
            "x": "Latency (ms)",
            "y": TOP1_AXIS,
            "unit": "ms",
            "line": "",
            "budgets": _shorts(panel.budgets),
            "series": [*map(self._series, panel.series), *_external(panel)],
        }

    def relative(self) -> dict[str, Any]:
        """All devices on one axis; nothing is compared on it."""
        made: list[dict[str, Any]] = []
        seen: dict[tuple[str, str], int] = {}
        for panel in self.report.panels:
            for series in panel.series:
                each = self._series(series, panel.fastest)
                index = seen.setdefault((panel.name, series.label), len(seen))
                style = nth_style(index, series.kind)
                made.append(
                    {
                        **each,
                        "name": f"{series.name}, {panel.name or 'device unknown'}",
                        "colour": style.colour,
                        "marker": style.symbol,
                    }
                )
        return {
            "kind": "relative",
            "title": "All devices, latency relative",
            "note": f"{self.report.relative_note} Nothing is compared across devices.",
            "x": "Latency relative to the device's fastest network",
            "y": TOP1_AXIS,
            "unit": "×",
            "line": "",
            "budgets": [],
            "series": made,
        }

    def agreement(self, panel: Panel, name: str) -> dict[str, Any]:
        """Measured against predicted of one metric, a point for each network that has both."""
        made = []
        for series in {s.label: s for s in panel.series}.values():
            mine = [each for each in panel.series if each.label == series.label]
            if pairs := both(mine, name):
                made.append(self._agreeing(mine, name, pairs))
        unit = "%" if name == TOP1 else "ms"
        what = "top-1" if name == TOP1 else "latency"
        return {
            "kind": "agreement",
            "title": f"Measured against predicted {what}"
            + (f" on {panel.name}" if panel.name and len(self.report.panels) > 1 else ""),
            "note": "On the line: as predicted. Horizontal bars: the prediction's interval.",
            "x": f"Predicted {what} ({unit})",
            "y": f"Measured {what} ({unit})",
            "unit": unit,
            "line": "diagonal",
            "budgets": [],
            "series": made,
        }

    def _agreeing(
        self, mine: Sequence[Series], name: str, pairs: Sequence[tuple[Candidate, float, float]]
    ) -> dict[str, Any]:
        ends = [c.intervals.get(name, (told, told)) for c, told, _ in pairs]
        return {
            **self._look(one_a_label(mine)[0], hollow=False),
            "name": mine[0].label,
            "x": _shorts(told for _, told, _ in pairs),
            "y": _shorts(seen for _, _, seen in pairs),
            "xl": _shorts(low for low, _ in ends),
            "xh": _shorts(high for _, high in ends),
            "net": [self.store.find(c, *mine) for c, _, _ in pairs],
        }

    def changes(self, index: int) -> dict[str, Any]:
        """Each network's change of latency, by its latency before."""
        changed = self.report.changes[index]
        after = [
            s
            for p in self.report.panels
            if p.name == changed.panel
            for s in p.series
            if s.name == changed.after
        ]
        nets = {str(c.arch): self.store.find(c, s) for s in after for c in s.front}
        made = []
        for index, verdict in enumerate(VERDICTS):
            chosen = [a for a in changed.archs if a.latency.verdict == verdict]
            if chosen:
                made.append(
                    {
                        "name": changed.said(verdict),
                        "colour": nth_style(index).colour,
                        "marker": nth_style(index).symbol,
                        "hollow": verdict != "beyond",
                        "x": _shorts(a.latency.before for a in chosen),
                        "y": _shorts(a.latency.change for a in chosen),
                        "net": [nets.get(a.arch, -1) for a in chosen],
                    }
                )
        return {
            "kind": "change",
            "title": f"Change of latency from {changed.before} to {changed.after}",
            "note": " ".join(changed.lines()),
            "x": "Latency before (ms)",
            "y": "Change of latency (%)",
            "unit": "ms",
            "line": "zero",
            "budgets": [],
            "series": made,
        }

    def _series(self, series: Series, per: float = 1.0) -> dict[str, Any]:
        points = series.points()
        index = {id(point): i for i, point in enumerate(points)}
        made = {
            **self._look(series, hollow=series.kind == "predicted"),
            "name": series.name,
            "x": _shorts(p.x / per for p in points),
            "y": _shorts(p.y for p in points),
            "net": [self.store.find(p.candidate, series) for p in points],
            "steps": [index[id(p)] for p in staircase(points)],
            "joined": series.kind == "measured",
        }
        made |= _ranges(points, per)
        if series.kind == "measured" and not all(p.measured for p in points):
            made["told"] = [i for i, p in enumerate(points) if not p.measured]
        if self.scale.note:
            made["size"] = [round(self.scale.share(p.candidate), 3) for p in points]
        return made

    def _look(self, series: Series, *, hollow: bool) -> dict[str, Any]:
        style = self.looks[id(series)]
        return {"colour": style.colour, "marker": style.symbol, "hollow": hollow}

    def _note(self, series_list: Sequence[Series], external: bool, budgets: bool) -> str:
        kinds = {series.kind for series in series_list}
        note = self.scale.note
        parts = (
            "Hollow: predicted, with the prediction's interval." if "predicted" in kinds else "",
            "Filled: measured, joined by the best accuracy within each latency."
            if "measured" in kinds
            else "",
            "Crosses: external points, as their file says." if external else "",
            "Dashed: latency budgets." if budgets else "",
            f"{note[0].upper()}{note[1:]}." if note else "",
        )
        return " ".join(filter(None, parts))


def _ranges(points: Sequence[Point], per: float) -> dict[str, list[float]]:
    """The error bars, left out where there are none."""
    made: dict[str, list[float]] = {}
    for axis, scale in (("x", per), ("y", 1.0)):
        ends = [getattr(point, f"{axis}_range") for point in points]
        if any(low < high for low, high in ends):
            made[f"{axis}l"] = _shorts(low / scale for low, _ in ends)
            made[f"{axis}h"] = _shorts(high / scale for _, high in ends)
    assert all(isfinite(value) for values in made.values() for value in values)
    return made


def _external(panel: Panel) -> list[dict[str, Any]]:
    if not panel.external:
        return []
    points = sorted(panel.external, key=lambda point: point.latency)
    return [
        {
            "name": "external points",
            "colour": EXTERNAL.colour,
            "marker": EXTERNAL.symbol,
            "hollow": False,
            "external": [f"{p.name} (external, from {p.source})" for p in points],
            "x": _shorts(p.latency for p in points),
            "y": _shorts(p.top1 for p in points),
        }
    ]
