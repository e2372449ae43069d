"""The report as a picture for print, PNG or SVG: a panel a device."""

import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.files import write_with
from ofa_deploy.report.agreement import both
from ofa_deploy.report.changes import VERDICTS, Changes
from ofa_deploy.report.content import Report
from ofa_deploy.report.external import ExternalPoint
from ofa_deploy.report.panels import Panel
from ofa_deploy.report.series import TOP1, Point, Series, one_a_label, staircase
from ofa_deploy.report.style import EXTERNAL, MacsScale, Style, nth_style, styles

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["DPI", "GREY", "draw", "drawable", "write_png", "write_svg"]

SIZE_INCHES = (7.2, 4.6)  # of a panel that stands alone; of several, each is smaller
COLUMN_INCHES = (5.6, 4.6)
COLUMNS = 3
DPI = 160
AREAS = (30.0, 150.0)
GREY = "#555555"
TITLE = 56  # characters of a line
TOP1_AXIS = "Top-1 accuracy (%)"
BELOW = -36  # points from the axes to their legend, past numbers and name
NAMES = 50  # characters of names that stand side by side in a legend
_NO_BREAK = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"(\b\d+) (?=\w)")  # stays on the line of what it counts

Fill = Callable[["Axes"], None]


def write_png(
    path: Path | str, report: Report, *, relative: bool = False, everything: bool = False
) -> Path:
    """Draw the fronts into a PNG file; of one panel 1152 by 736 pixels.

    Args:
        relative: draw all devices on one axis, by latency relative to each device's fastest
            network, instead of in panels.
        everything: add measured against predicted, and changes between runs, where there are some.

    Raises:
        UnknownNameError: if a candidate lacks a metric.
        InputError: if a value is not finite.
        StorageError: if the file cannot be written.
    """
    figure = draw(report, relative=relative, everything=everything)
    return write_with(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))


def write_svg(
    path: Path | str, report: Report, *, relative: bool = False, everything: bool = False
) -> Path:
    """Draw the fronts into an SVG file, whose text stays text; arguments as in ``write_png``.

    The same report gives the same file.
    """
    import matplotlib as mpl

    figure = draw(report, relative=relative, everything=everything)

    def save(temporary: Path) -> None:
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report"}):
            figure.savefig(temporary, format="svg", metadata={"Date": None})

    return write_with(path, save)


def draw(report: Report, *, relative: bool = False, everything: bool = False) -> "Figure":
    """The picture as a matplotlib figure of its own, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fills = _Drawer(report).fills(relative=relative, everything=everything)
    columns = min(COLUMNS, len(fills))
    rows = -(-len(fills) // columns)
    each = SIZE_INCHES if len(fills) == 1 else COLUMN_INCHES
    figure = Figure(figsize=(each[0] * columns, each[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, fill in enumerate(fills, start=1):
        fill(figure.add_subplot(rows, columns, index))
    if len(fills) > 1:
        if len(report.panels) > 1 and not relative:  # else the first axes bear it
            figure.suptitle(report.title, x=0.01, ha="left", parse_math=False)
        _share_accuracies(figure.axes[: 1 if relative else len(report.panels)])
    return drawable(figure)


def drawable(figure: "Figure") -> "Figure":
    """The figure, with names whose bytes are not UTF-8 shown as in files, with a backslash."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(text.get_text().encode(errors="backslashreplace").decode())
    return figure


def _share_accuracies(fronts: Sequence["Axes"]) -> None:
    ends = [axes.get_ylim() for axes in fronts]
    for axes in fronts:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))


class _Drawer:
    """Draws the parts of one report."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.scale = MacsScale.of(report.series)
        self.looks = dict(zip(map(id, report.series), styles(report.series), strict=True))

    def fills(self, *, relative: bool, everything: bool) -> list[Fill]:
        """What draws each of the picture's axes."""
        fills: list[Fill] = [partial(self._front, panel) for panel in self.report.panels]
        if relative:
            fills = [self._relative]
        if everything:
            for panel, found in self.report.agreements:
                metrics = dict.fromkeys(each.metric for each in found)
                fills += [partial(self._agreement, panel, name) for name in metrics]
            fills += [partial(self._changes, changed) for changed in self.report.changes]
        return fills

    def _front(self, panel: Panel, axes: "Axes") -> None:
        handles: list[Artist] = [
            _draw_series(axes, series, self.looks[id(series)], self.scale)
            for series in panel.series
        ]
        names = [panel.said(series) for series in panel.series]
        if panel.external:
            handles.append(_draw_external(axes, panel.external))
            names.append("external points")
        _draw_budgets(axes, panel.budgets)
        alone = len(self.report.panels) == 1
        _dress(axes, self.report.title if alone else panel.titled or "Device unknown")
        _label(axes, "Latency (ms)", TOP1_AXIS)
        _draw_legend(axes, handles, names, self.scale.note)

    def _relative(self, axes: "Axes") -> None:
        handles: list[Artist] = []
        names = []
        seen: dict[tuple[str, str], int] = {}
        for panel in self.report.panels:
            for series in panel.series:
                index = seen.setdefault((panel.name, series.label), len(seen))
                style = nth_style(index, series.kind)
                handles.append(_draw_series(axes, series, style, self.scale, panel.fastest))
                names.append(f"{panel.said(series)}, {panel.titled or 'device unknown'}")
        _dress(axes, self.report.title)
        _label(axes, "Latency relative to the device's fastest network", TOP1_AXIS)
        _draw_legend(axes, handles, names, self.scale.note)

    def _agreement(self, panel: Panel, name: str, axes: "Axes") -> None:
        handles: list[Artist] = []
        names: list[str] = []
        for series in one_a_label(panel.series):
            pairs = both([s for s in panel.series if s.label == series.label], name)
            if not pairs:
                continue
            style = self.looks[id(series)]
            told, seen = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
            ends = [c.intervals.get(name, (value, value)) for c, value, _ in pairs]
            bars = [[v - low for v, (low, _) in zip(told, ends, strict=True)],
                    [high - v for v, (_, high) in zip(told, ends, strict=True)]]  # fmt: skip
            axes.errorbar(told, seen, xerr=_positive(bars), fmt="none", ecolor=style.colour,
                          elinewidth=0.9, alpha=0.65)  # fmt: skip
            handles.append(_scatter(axes, told, seen, style))
            names.append(series.label)
        axes.axline((told[0], told[0]), slope=1, color=GREY, linewidth=1, zorder=1)
        unit, what = ("%", "top-1") if name == TOP1 else ("ms", "latency")
        device = f" on {panel.name}" if len(self.report.panels) > 1 else ""
        _dress(axes, f"Measured against predicted {what}{device}")
        _label(axes, f"Predicted {what} ({unit})", f"Measured {what} ({unit})")
        _equal_scales(axes)
        if len(names) > 1:
            _draw_legend(axes, handles, names, "")

    def _changes(self, changed: Changes, axes: "Axes") -> None:
        handles: list[Artist] = []
        names: list[str] = []
        for index, verdict in enumerate(VERDICTS):
            found = [each.latency for each in changed.archs if each.latency.verdict == verdict]
            if found:
                x, y = [each.before for each in found], [each.change for each in found]
                handles.append(_scatter(axes, x, y, nth_style(index)))
                names.append(changed.said(verdict))
        axes.axhline(0, color=GREY, linewidth=1, zorder=1)
        _dress(axes, f"From {changed.before} to {changed.after}")
        _label(axes, "Latency before (ms)", "Change of latency (%)")
        _draw_legend(axes, handles, names, "")


def _equal_scales(axes: "Axes") -> None:
    """A unit is as long on both axes; margins stay, also on the axis that decides."""
    axes.update_datalim(list(zip(axes.get_xlim(), axes.get_ylim(), strict=True)))
    axes.set_aspect("equal", adjustable="datalim")


def _positive(bars: list[list[float]]) -> list[list[float]]:
    """A bar that an interval which misses its value would draw backwards has no length."""
    return [[max(0.0, length) for length in side] for side in bars]


def _scatter(axes: "Axes", x: Sequence[float], y: Sequence[float], style: Style) -> "Artist":
    return axes.scatter(
        x, y, s=40, marker=style.marker, facecolors=style.colour, edgecolors=style.colour, zorder=3
    )


def _draw_series(
    axes: "Axes", series: Series, style: Style, scale: MacsScale, per: float = 1.0
) -> "Line2D":
    """Draw one series, its latencies divided by ``per``; returns its line in the legend."""
    from matplotlib.lines import Line2D

    points = series.points()
    joined = series.kind == "measured"
    if joined:
        steps = staircase(points)
        axes.step(
            [step.x / per for step in steps],
            [step.y for step in steps],
            where="post",
            color=style.colour,
            linewidth=1.4,
            zorder=2,
        )
    _draw_bars(axes, points, style, per)
    axes.scatter(
        [point.x / per for point in points],
        [point.y for point in points],
        s=[AREAS[0] + (AREAS[1] - AREAS[0]) * scale.share(point.candidate) for point in points],
        marker=style.marker,
        facecolors=[style.colour if point.measured else "white" for point in points],
        # A rim sets a filled marker off from those below it.
        edgecolors=["white" if point.measured else style.colour for point in points],
        linewidths=[0.8 if point.measured else 1.4 for point in points],
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


def _draw_bars(axes: "Axes", points: Sequence[Point], style: Style, per: float) -> None:
    axes.errorbar(
        [point.x / per for point in points],
        [point.y for point in points],
        xerr=[
            [(point.x - point.x_range[0]) / per for point in points],
            [(point.x_range[1] - point.x) / per for point in points],
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


def _draw_external(axes: "Axes", points: Sequence[ExternalPoint]) -> "Artist":
    return axes.scatter(
        [point.latency for point in points],
        [point.top1 for point in points],
        s=45,
        marker=EXTERNAL.marker,
        color=EXTERNAL.colour,
        linewidths=1.6,
        zorder=3,
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


def _dress(axes: "Axes", title: str) -> None:
    kept = _NUMBER.sub(f"\\1{_NO_BREAK}", title)
    wrapped = "\n".join(textwrap.wrap(kept, TITLE)).replace(_NO_BREAK, " ")
    axes.set_title(wrapped, loc="left", fontsize=12, pad=20, parse_math=False)
    axes.margins(0.07)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)


def _draw_legend(
    axes: "Axes", handles: "Sequence[Artist]", names: Sequence[str], note: str
) -> None:
    """Below the axes, where it covers nothing."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, BELOW / 72, axes.figure.dpi_scale_trans)
    # matplotlib leaves out labels that begin with an underscore.
    shown = [f" {name}" if name.startswith("_") else name for name in names]
    legend = axes.legend(
        handles,
        shown,
        title=note or None,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + below,
        borderaxespad=0,
        frameon=False,
        ncols=max(1, min(len(shown), NAMES // max(map(len, shown)))),
        fontsize=9,
        title_fontsize=8,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
