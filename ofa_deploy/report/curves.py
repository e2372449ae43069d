"""How a training run went, as a picture."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.errors import InputError
from ofa_deploy.files import write_with
from ofa_deploy.report.picture import DPI, GREY, drawable
from ofa_deploy.report.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "write_curves"]

_ROLES = ("largest", "smallest", "random")


def write_curves(path: Path | str, rows: Sequence[Mapping[str, str]], *, title: str) -> Path:
    """Draw the rows of a run's ``metrics.csv`` into a PNG file.

    Raises:
        InputError: if there is no row.
        StorageError: if the file cannot be written.
    """
    figure = draw_curves(rows, title=title)
    return write_with(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))


def draw_curves(rows: Sequence[Mapping[str, str]], *, title: str) -> "Figure":
    """Accuracy, losses, and rate with β, by epoch, as a figure unknown to pyplot.

    Raises:
        InputError: if there is no row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not rows:
        raise InputError("expected at least one epoch to draw, found none")
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title, parse_math=False)
    epochs = [float(row["epoch"]) for row in rows]
    for role, colour in zip(_ROLES, COLOURS, strict=False):
        for axes, column in ((top, f"top1_{role}"), (middle, f"loss_{role}")):
            if column in rows[0]:
                axes.plot(
                    epochs, [float(r[column]) for r in rows], marker=".", color=colour, label=role
                )
    bottom.plot(epochs, [float(r["lr"]) for r in rows], color=COLOURS[0], label="learning rate")
    beta = bottom.twinx()
    beta.plot(epochs, [float(r["beta"]) for r in rows], color=COLOURS[1], label="β")
    beta.set(ylabel="β", ylim=(-0.05, 1.05))
    top.set(ylabel="validation top-1, %")
    middle.set(ylabel="training loss")
    bottom.set(ylabel="learning rate", xlabel="epoch")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, lines in (
        (top, top.lines),
        (middle, middle.lines),
        (bottom, [*bottom.lines, *beta.lines]),
    ):
        # Beside the axes, where it covers no curve; past the numbers of β.
        axes.legend(
            handles=list(lines), loc="center left", bbox_to_anchor=(1.12, 0.5), frameon=False
        )
    _mark_phases(top, rows)
    return drawable(figure)


def _mark_phases(axes: "Axes", rows: Sequence[Mapping[str, str]]) -> None:
    """A dotted line where a phase begins, with its name above the axes."""
    for name, group in groupby(rows, key=lambda row: row["phase"]):
        begins = float(next(group)["epoch"]) - 1
        axes.axvline(begins, color=GREY, linestyle=":", linewidth=0.8)
        axes.annotate(
            name,
            (begins, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )
