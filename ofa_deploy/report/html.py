"""The report as one page that works offline: chart with hover, tables, facts, commands."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ofa_deploy._files import write_text
from ofa_deploy.pareto import Candidate
from ofa_deploy.report._page import PAGE
from ofa_deploy.report.compare import compare
from ofa_deploy.report.series import LATENCY, Point, Series, check, staircase
from ofa_deploy.report.style import MacsScale, Style, styles
from ofa_deploy.report.table import TextTable, front_rows, front_table
from ofa_deploy.report.units import metric

__all__ = ["plotly_figure", "write_html"]

DIAMETERS = (9.0, 19.0)
GREY = "#7d8590"


def write_html(
    path: Path | str,
    series_list: Sequence[Series],
    *,
    title: str,
    budgets: Sequence[float] = (),
    facts: Mapping[str, str],
    commands: Sequence[str],
    reference: Mapping[str, float] | None = None,
    latency: str = LATENCY,
) -> Path:
    """Write the page, about 5 MB with the chart library in it; it loads nothing else.

    Two labels or more are compared on it too, by what was measured where anything was.

    Args:
        budgets: latencies in ms, drawn as dashed lines.
        facts: what the numbers hold for, such as device, runtime and the supernet's hash.
        commands: what to run next, one line each.
        reference: the point that hypervolumes reach to; see ``compare``.
        latency: the metric of the x axis, ``latency`` or ``latency[device]``.

    Raises:
        InputError: if there is no series, two have one name, or a budget is not a positive number.
        UnknownNameError: if a candidate lacks a metric.
        StorageError: if the file cannot be written.
    """
    from plotly.offline import get_plotlyjs

    figure = plotly_figure(series_list, budgets=budgets, latency=latency)
    tables = [front_table(front_rows(series_list, latency=latency), title="Networks")]
    if len(compared := _one_a_label(series_list)) > 1:
        tables += compare(compared, reference, budgets=budgets, latency=latency).tables()
    page = Template(PAGE).substitute(
        title=escape(title),
        caption=escape(_caption(series_list, budgets)),
        sections="\n".join([_facts(facts), *map(_table, tables), _commands(commands)]),
        figure=_script_json(figure),
        plotly=get_plotlyjs(),
    )
    return write_text(path, page)


def _one_a_label(series_list: Sequence[Series]) -> list[Series]:
    """For each label its measured series, or else its predicted one."""
    chosen: dict[str, Series] = {}
    for series in series_list:
        if series.label not in chosen or series.kind == "measured":
            chosen[series.label] = series
    return list(chosen.values())


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _caption(series_list: Sequence[Series], budgets: Sequence[float]) -> str:
    kinds = {series.kind for series in series_list}
    said = [
        "Hollow: predicted, with the prediction's interval." if "predicted" in kinds else "",
        "Filled: measured, joined by the best accuracy within each latency."
        if "measured" in kinds
        else "",
        "Dashed: latency budgets." if budgets else "",
        f"{note[0].upper()}{note[1:]}." if (note := MacsScale.of(series_list).note) else "",
    ]
    return " ".join(filter(None, said))


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    items = "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<section>\n<h2>What this holds for</h2>\n<dl>\n{items}\n</dl>\n</section>"


def _commands(commands: Sequence[str]) -> str:
    if not commands:
        return ""
    items = "\n".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands)
    return f"<section>\n<h2>What to run next</h2>\n{items}\n</section>"


def _table(table: TextTable) -> str:
    head = "".join(
        f'<th scope="col"{_kind(header, numeric)}>{escape(header)}</th>'
        for header, numeric in zip(table.headers, table.numeric, strict=True)
    )
    body = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    title = escape(table.title)
    return (
        f'<section>\n<div class="scroll" role="region" tabindex="0" aria-label="{title}">\n'
        f"<table>\n<caption><h2>{title}</h2></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>{note}\n</section>"
    )


def _cells(table: TextTable, row: Sequence[str]) -> str:
    return "".join(
        f"<td{_kind(header, numeric)}>{escape(text)}</td>"
        for header, numeric, text in zip(table.headers, table.numeric, row, strict=True)
    )


def _kind(header: str, numeric: bool) -> str:
    if numeric:
        return ' class="number"'
    return ' class="code"' if header == "Architecture" else ' class="text"'


def plotly_figure(
    series_list: Sequence[Series], *, budgets: Sequence[float] = (), latency: str = LATENCY
) -> dict[str, Any]:
    """The chart as plotly's JSON: ``data`` and ``layout``, without colours of the page."""
    check(series_list, budgets)
    scale = MacsScale.of(series_list)
    traces: list[dict[str, Any]] = []
    for series, style in zip(series_list, styles(series_list), strict=True):
        points = series.points(latency)
        if series.kind == "measured":
            traces.append(_steps(series, style, points))
        traces.append(_markers(series, style, points, scale))
    ends = [x for trace in traces for x in trace["x"]] + list(budgets)
    ends += [end for s in series_list for point in s.points(latency) for end in point.x_range]
    return {"data": traces, "layout": _layout(latency, budgets, min(ends), max(ends))}


def _steps(series: Series, style: Style, points: Sequence[Point]) -> dict[str, Any]:
    steps = staircase(points)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [step.x for step in steps],
        "y": [step.y for step in steps],
        "line": {"color": style.colour, "shape": "hv", "width": 2},
        "hoverinfo": "skip",
        "legendgroup": _plain(series.name),
        "showlegend": False,
    }


def _markers(
    series: Series, style: Style, points: Sequence[Point], scale: MacsScale
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _plain(series.name),
        "legendgroup": _plain(series.name),
        "x": [point.x for point in points],
        "y": [point.y for point in points],
        "error_x": _bars([point.x for point in points], [p.x_range for p in points], style),
        "error_y": _bars([point.y for point in points], [p.y_range for p in points], style),
        "marker": {
            "color": style.colour,
            "opacity": 1,
            "symbol": [style.symbol + ("" if p.measured else "-open") for p in points],
            "size": [_diameter(scale.share(point.candidate)) for point in points],
            "line": {"color": style.colour, "width": 2},
        },
        "hoverinfo": "text",
        "hovertext": [_hover(series, point.candidate) for point in points],
    }


def _diameter(share: float) -> float:
    """Of a marker whose area lies at ``share`` between the least and the greatest."""
    low, high = DIAMETERS
    return float((low**2 + (high**2 - low**2) * share) ** 0.5)


def _bars(
    values: Sequence[float], ranges: Sequence[tuple[float, float]], style: Style
) -> dict[str, Any]:
    pairs = list(zip(values, ranges, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, (_, high) in pairs],
        "arrayminus": [value - low for value, (low, _) in pairs],
        "visible": any(low < high for low, high in ranges),
        "color": style.colour,
        "thickness": 1,
        "width": 0,
    }


def _plain(text: str) -> str:
    """Text that plotly shows as it is: it reads a few tags and entities in names and hovers."""
    return escape(text, quote=False)


def _hover(series: Series, candidate: Candidate) -> str:
    """Name, metrics, budget and arch, one stage a line."""
    names = dict.fromkeys([*candidate.predicted, *candidate.measured])
    lines = [f"<b>{_plain(series.name)}</b>"]
    lines += [f"{_plain(name)}: {_plain(_said(candidate, name))}" for name in names]
    lines += [f"budget: {_plain(candidate.budget)}"] if candidate.budget else []
    return "<br>".join([*lines, *_plain(str(candidate.arch)).split(" | ")])


def _said(candidate: Candidate, name: str) -> str:
    parts = []
    if name in candidate.measured:
        parts.append(f"{metric(name, candidate.measured[name])} measured")
    if name in candidate.predicted:
        predicted = metric(name, candidate.predicted[name])
        exact = name in ("macs", "params", "peak_memory")
        parts.append(predicted if exact else f"{predicted} predicted")
    if name in candidate.intervals:
        low, high = (metric(name, end) for end in candidate.intervals[name])
        parts[-1] += f" ({low} to {high})"
    return ", ".join(parts)


def _layout(latency: str, budgets: Sequence[float], low: float, high: float) -> dict[str, Any]:
    margin = 0.06 * (high - low) or 0.1 * high
    axis = {"showline": True, "zeroline": False, "automargin": True}
    return {
        "font": {"family": "system-ui, sans-serif", "size": 14},
        "margin": {"l": 60, "r": 20, "t": 56, "b": 50},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "namelength": -1},
        "xaxis": {
            **axis,
            "title": {"text": _plain(f"{latency.capitalize()} (ms)")},
            "range": [low - margin, high + margin],
        },
        "yaxis": {**axis, "title": {"text": "Top-1 accuracy (%)"}},
        "legend": {"x": 1, "xanchor": "right", "y": 0, "yanchor": "bottom"},
        "showlegend": True,
        "shapes": [_budget_line(budget) for budget in budgets],
        "annotations": [_budget_label(budget) for budget in budgets],
    }


def _budget_line(budget: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": budget,
        "x1": budget,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": GREY, "width": 1.5, "dash": "dash"},
    }


def _budget_label(budget: float) -> dict[str, Any]:
    return {
        "x": budget,
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "text": f"≤ {budget:g} ms",
        "showarrow": False,
        "font": {"size": 12},
    }
