"""The front as a picture for print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy._files import write_with
from ofa_deploy.report.series import LATENCY, Point, Series, check, staircase
from ofa_deploy.report.style import MacsScale, Style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw", "write_png"]

SIZE_INCHES = (7.2, 4.6)
DPI = 160
AREAS = (30.0, 150.0)
GREY = "#555555"


def write_png(
    path: Path | str,
    series_list: Sequence[Series],
    *,
    title: str,
    budgets: Sequence[float] = (),
    latency: str = LATENCY,
) -> Path:
    """Draw the fronts into a PNG file of 1152 by 736 pixels.

    Args:
        budgets: latencies in ms, drawn as dashed lines.
        latency: the metric of the x axis, ``latency`` or ``latency[device]``.

    Raises:
        InputError: if there is no series, two have one name, or a budget is not a positive number.
        UnknownNameError: if a candidate lacks a metric.
        StorageError: if the file cannot be written.
    """
    figure = draw(series_list, title=title, budgets=budgets, latency=latency)
    return write_with(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))


def draw(
    series_list: Sequence[Series],
    *,
    title: str,
    budgets: Sequence[float] = (),
    latency: str = LATENCY,
) -> "Figure":
    """The picture as a matplotlib figure of its own, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check(series_list, budgets)
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    scale = MacsScale.of(series_list)
    handles = [
        _draw_series(axes, series, style, series.points(latency), scale)
        for series, style in zip(series_list, styles(series_list), strict=True)
    ]
    _draw_budgets(axes, budgets)
    _dress(axes, title, latency)
    _draw_legend(axes, handles, series_list, scale.note)
    return figure


def _draw_series(
    axes: "Axes", series: Series, style: Style, points: Sequence[Point], scale: MacsScale
) -> "Line2D":
    """Draw one series; returns its line in the legend."""
    from matplotlib.lines import Line2D

    joined = series.kind == "measured"
    if joined:
        steps = staircase(points)
        axes.step(
            [step.x for step in steps],
            [step.y for step in steps],
            where="post",
            color=style.colour,
            linewidth=1.4,
            zorder=2,
        )
    _draw_bars(axes, points, style)
    axes.scatter(
        [point.x for point in points],
        [point.y for point in points],
        s=[AREAS[0] + (AREAS[1] - AREAS[0]) * scale.share(point.candidate) for point in points],
        marker=style.marker,
        facecolors=[style.colour if point.measured else "white" for point in points],
        edgecolors=style.colour,
        linewidths=1.4,
        zorder=4 if joined else 3,
    )
    return Line2D(
        [],
        [],
        color=style.colour,
        marker=style.marker,
        markersize=7,
        markeredgewidth=1.4,
        markerfacecolor=style.colour if joined else "white",
        linestyle="-" if joined else "none",
    )


def _draw_bars(axes: "Axes", points: Sequence[Point], style: Style) -> None:
    axes.errorbar(
        [point.x for point in points],
        [point.y for point in points],
        xerr=[
            [point.x - point.x_range[0] for point in points],
            [point.x_range[1] - point.x for point in points],
        ],
        yerr=[
            [point.y - point.y_range[0] for point in points],
            [point.y_range[1] - point.y for point in points],
        ],
        fmt="none",
        ecolor=style.colour,
        elinewidth=0.9,
        alpha=0.65,
        zorder=2,
    )


def _draw_budgets(axes: "Axes", budgets: Sequence[float]) -> None:
    for budget in budgets:
        axes.axvline(budget, color=GREY, linestyle=(0, (5, 4)), linewidth=1, zorder=1)
        axes.annotate(
            f"≤ {budget:g} ms",
            (budget, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=GREY,
        )


def _dress(axes: "Axes", title: str, latency: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, pad=20, parse_math=False)
    axes.set_xlabel(f"{latency.capitalize()} (ms)", parse_math=False)
    axes.set_ylabel("Top-1 accuracy (%)")
    axes.margins(0.07)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(
    axes: "Axes", handles: Sequence["Line2D"], series_list: Sequence[Series], note: str
) -> None:
    # matplotlib leaves out labels that begin with an underscore.
    names = [f" {s.name}" if s.name.startswith("_") else s.name for s in series_list]
    legend = axes.legend(
        handles, names, title=note or None, loc="lower right", fontsize=9, title_fontsize=8
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
