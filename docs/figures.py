"""Draws the documentation's figures: from the package's own code and the benchmarks' results.

``python docs/figures.py FOLDER`` writes them; building the documentation draws them anew.
"""

import csv
import io
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ofa_deploy.report.style import COLOURS
from ofa_deploy.space import get_space
from ofa_deploy.train.config import build_config
from ofa_deploy.train.methods import plan_for

_GREY = "#777777"  # legible on a light page and on a dark one
_RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def all_figures(results: Path = _RESULTS) -> dict[str, str]:
    """SVG text by name.

    Args:
        results: the benchmarks' folder of CSV files.
    """
    drawn = {
        "deps_schedule": _deps_schedule(),
        "training": _training(results / "training.csv"),
        "table_error": _table_error(results),
        "few_shot": _few_shot(results / "few_shot_latency.csv"),
        "closed_loop": _closed_loop(results / "closed_loop.csv"),
        "search": _search(results / "search.csv"),
        "erk": _erk(),
    }
    return {name: _svg(figure) for name, figure in drawn.items()}


def _axes(width: float = 6.4, height: float = 3.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for item in (*axes.spines.values(), axes.xaxis.label, axes.yaxis.label):
        item.set_color(_GREY) if hasattr(item, "set_color") else None
    axes.tick_params(colors=_GREY)
    return figure, axes


def _legend(axes: Any, **where: Any) -> None:
    axes.legend(frameon=False, labelcolor=_GREY, fontsize=9, **where)


def _svg(figure: Figure) -> str:
    """The same text for the same figure."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "ofa_deploy", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _deps_schedule() -> Figure:
    """Rates of the paper's schedule on ImageNet, as the plan gives them."""
    config = build_config("deps", epochs=270, ramp_end=150, ramp_epochs=5, lr=2.6)
    per_epoch = 20
    space = get_space("deps-mbv3")
    plan = plan_for(config, space, per_epoch)
    largest, subnets = [], []
    for step in range(plan.steps):
        phase, local = plan.at(step)
        rules = {rule.role: rule.weight for rule in phase.rules(local)}
        rate = phase.lr(local)
        largest.append(rate * rules["largest"])
        subnets.append(rate * rules.get("smallest", 0.0))
    epochs = np.arange(plan.steps) / per_epoch
    figure, axes = _axes()
    axes.plot(epochs, largest, color=COLOURS[0], label="largest subnet")
    axes.plot(epochs, subnets, color=COLOURS[1], label="smallest and random subnets")
    axes.set_xlabel("epoch")
    axes.set_ylabel("effective learning rate")
    _legend(axes)
    return figure


def _training(path: Path) -> Figure:
    """Accuracy over cost of each method's subnets, mean over seeds."""
    top1: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            top1[row["method"]][int(row["macs"])].append(float(row["top1"]))
    wanted = ("DεpS, 1/1.8", "progressive", "BigNAS", "CompOFA")
    figure, axes = _axes(6.4, 3.8)
    for colour, method in zip(COLOURS, (m for m in wanted if m in top1), strict=False):
        macs = sorted(top1[method])
        seeds = len(top1[method][macs[0]])
        axes.plot(
            [m / 1e6 for m in macs],
            [float(np.mean(top1[method][m])) for m in macs],
            marker="o",
            markersize=4,
            color=colour,
            label=f"{method}, {seeds} seed{'s' if seeds > 1 else ''}",
        )
    axes.set_xlabel("million multiply-accumulates")
    axes.set_ylabel("test top-1, %")
    _legend(axes)
    return figure


def _rows(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["figure"]: row["value"] for row in csv.DictReader(file)}


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"expected {pattern!r} in {text!r}")
    return float(found[1])


def _table_error(results: Path) -> Figure:
    """Mean errors on networks that had no part in the fit."""
    ways = {
        "line through MACs": "line through MACs, same networks",
        "plain sum of blocks": "plain sum of lone blocks",
        "calibrated table": "calibrated table",
    }
    spaces = ("mbv3-nano-32", "ofa-mbv3-w1.0")
    figure, axes = _axes(6.4, 2.6)
    for i, space in enumerate(spaces):
        rows = _rows(results / f"latency_{space}.csv")
        errors = [_number(r"mean error ([\d.]+) %", rows[name]) for name in ways.values()]
        at = np.arange(len(ways)) + (i - 0.5) * 0.36
        bars = axes.barh(at, errors, height=0.34, color=COLOURS[i], label=space)
        axes.bar_label(bars, fmt="%.1f", color=_GREY, padding=3, fontsize=9)
    axes.set_yticks(range(len(ways)), list(ways))
    axes.invert_yaxis()
    axes.set_xlabel("mean error on 200 hold-out networks, %")
    _legend(axes, loc="lower right")
    return figure


def _few_shot(path: Path) -> Figure:
    """Error over the number of timed networks."""
    labels = {
        "few-shot, five priors": "five other tables as priors",
        "few-shot, no priors": "no priors",
        "line through MACs": "a line through MACs",
    }
    figure, axes = _axes()
    rows = _rows(path)
    for colour, (name, label) in zip(COLOURS, labels.items(), strict=False):
        points = _few_shot_points(rows, name)
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("timed networks of the new device")
    axes.set_ylabel("mean error, %")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return figure


def _few_shot_points(rows: dict[str, str], name: str) -> list[tuple[int, float]]:
    points = []
    for figure, value in rows.items():
        found = re.match(r"(\d+) networks, (.*)", figure)
        if found and found[2] == f"{name}, mean":
            points.append((int(found[1]), _number(r"([\d.]+) %", value)))
    return sorted(points)


def _closed_loop(path: Path) -> Figure:
    """Budget, prediction and measurement of the ten answers."""
    figure, axes = _axes()
    budgets, predicted, measured = [], [], []
    for name, value in _rows(path).items():
        if found := re.fullmatch(r"latency <= ([\d.]+) ms", name):
            budgets.append(float(found[1]))
            predicted.append(_number(r"predicted ([\d.]+)", value))
            measured.append(_number(r"measured ([\d.]+) ms", value))
    line = [min(budgets), max(budgets)]
    axes.plot(line, line, color=_GREY, linewidth=1, label="the budget")
    axes.plot(budgets, predicted, "o", color=COLOURS[0], label="predicted")
    axes.plot(budgets, measured, "s", color=COLOURS[1], label="measured")
    axes.set_xlabel("budget, ms")
    axes.set_ylabel("latency, ms")
    _legend(axes)
    return figure


def _search(path: Path) -> Figure:
    """What searches find, by the same models."""
    figure, axes = _axes()
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, value in _rows(path).items():
        if hit := re.fullmatch(r"latency <= ([\d.]+) ms, (.*)", name):
            found[hit[2]].append((float(hit[1]), _number(r"top-1 ([\d.]+)", value)))
    styles = {"ours": "-o", "a long run of ours": "+", "plain Python": "v", "pymoo NSGA-II": "s"}
    for colour, (name, style) in zip(COLOURS, styles.items(), strict=False):
        if name in found:
            axes.plot(*zip(*found[name], strict=True), style, color=colour, label=name)
    axes.set_xlabel("latency budget, ms")
    axes.set_ylabel("predicted top-1, %")
    _legend(axes)
    return figure


def _erk() -> Figure:
    """Densities that ERK gives the layers of a space's largest network."""
    from ofa_deploy.specialize.masks import erk_densities, maskable
    from ofa_deploy.specialize.units import units_of
    from ofa_deploy.supernet import Supernet

    space = get_space("mbv3-nano-32")
    subnet = Supernet(space).extract(space.largest)
    weights = maskable(subnet, units_of(space, space.largest), ())
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    densities = erk_densities(shapes, 0.2)
    figure, axes = _axes()
    sizes = [int(np.prod(shapes[name])) for name in densities]
    axes.scatter(sizes, list(densities.values()), s=14, color=COLOURS[0])
    axes.axhline(0.2, color=_GREY, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("weights of the layer")
    axes.set_ylabel("share that lives")
    return figure


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in all_figures().items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
