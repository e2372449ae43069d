"""How series look: colours that the colour-blind tell apart, and a marker for each as well.

Colours: M. Okabe and K. Ito, "Color Universal Design" (2008), without its yellow and black, which
vanish on white and on dark pages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ofa_deploy.pareto import Candidate
from ofa_deploy.report.series import Kind, Series, known
from ofa_deploy.terminal import count

__all__ = ["COLOURS", "EXTERNAL", "MacsScale", "Style", "nth_style", "styles"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# One more marker than colours, so that 42 labels differ in one or the other.
_MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("p", "pentagon"),
)
_TURN = 3  # from the marker of what was measured to that of what is predicted


@dataclass(frozen=True)
class Style:
    """The looks of one label.

    Attributes:
        marker: matplotlib's name of the marker.
        symbol: the page's name of the same.
    """

    colour: str
    marker: str
    symbol: str


# What was not measured here: grey, and a marker that no front has.
EXTERNAL = Style("#6e7781", "x", "x")


def styles(series_list: Sequence[Series]) -> list[Style]:
    """One style a series: a colour a label, on whatever device, and in it a marker a kind."""
    labels = list(dict.fromkeys(series.label for series in series_list))
    return [nth_style(labels.index(each.label), each.kind) for each in series_list]


def nth_style(index: int, kind: Kind = "measured") -> Style:
    """The looks of the label, or device, of that number."""
    turned = index + (_TURN if kind == "predicted" else 0)
    marker, symbol = _MARKERS[turned % len(_MARKERS)]
    return Style(COLOURS[index % len(COLOURS)], marker, symbol)


@dataclass(frozen=True)
class MacsScale:
    """Marker areas that rise linearly with MACs, over all the candidates of a report.

    Attributes:
        share: candidate to a number from 0 (fewest MACs) to 1 (most).
        note: one line that tells a reader so; empty if MACs are unknown or all equal.
    """

    share: Callable[[Candidate], float]
    note: str

    @classmethod
    def of(cls, series_list: Sequence[Series]) -> "MacsScale":
        """The scale for these series."""
        macs = {
            candidate.arch: known(candidate, "macs")
            for series in series_list
            for candidate in series.front
        }
        values = [value for value in macs.values() if value is not None]
        if len(values) < len(macs) or min(values) == max(values):
            return cls(lambda candidate: 0.3, "")
        low, high = min(values), max(values)
        return cls(
            lambda candidate: ((known(candidate, "macs") or low) - low) / (high - low),
            f"larger marker: more MACs ({count(low)} to {count(high)})",
        )
