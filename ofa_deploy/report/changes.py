"""What changed between two runs of the same thing: network by network, and on the whole."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MismatchError
from ofa_deploy.report.few import few_places
from ofa_deploy.report.resample import DRAWS, SURE, interval_of
from ofa_deploy.report.series import Point, Series, one_a_label
from ofa_deploy.space import Arch
from ofa_deploy.terminal import TextTable, milliseconds, percent

__all__ = ["VERDICTS", "ArchChange", "Changes", "Moved", "changes", "repeated"]

FEWEST = 5  # networks that tell what is usual among them
SIGMAS = 3.0
_MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation

Basis = Literal["spread", "others", "unknown"]
Verdict = Literal["beyond", "within", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("within", "beyond", "unknown")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """One figure of one network, before and after.

    Attributes:
        change: percent of the latency before, or percentage points of top-1.
        verdict: whether that is beyond what counts as noise.
    """

    before: float
    after: float
    change: float
    verdict: Verdict


@dataclass(frozen=True)
class ArchChange:
    """One network that both runs hold."""

    arch: str
    latency: Moved
    top1: Moved


@dataclass(frozen=True)
class Changes:
    """Two runs of the same thing.

    Attributes:
        before, after: the names of the series.
        panel: the device.
        conditions: those that differ, each as ``name (before, after)``.
        archs: the networks that both hold, the fastest first.
        only_before, only_after: how many networks the other run does not hold.
        latency: the median change in percent, with the ends of its interval where it has one.
        top1: the same in percentage points.
        basis: what noise was judged by: the spread of each network's own figures; how far the
            others' changes lie apart; or nothing.
    """

    before: str
    after: str
    panel: str
    conditions: tuple[str, ...]
    archs: tuple[ArchChange, ...]
    only_before: int
    only_after: int
    latency: tuple[float, float | None, float | None]
    top1: tuple[float, float | None, float | None]
    basis: Basis

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)

    def lines(self) -> tuple[str, ...]:
        """What to say of it first, a sentence each."""
        differ = ", ".join(self.conditions)
        missing = f"{self.only_before} networks only before, {self.only_after} only after"
        beyond = [sum(getattr(a, n).verdict == "beyond" for a in self.archs) for n in _FIGURES]
        return (
            f"What differs (before, after): {differ}."
            if differ
            else "No stated condition differs.",
            f"{len(self.archs)} networks in both; {missing}.",
            f"Median change: latency {_summary(self.latency, '%')}; top-1 "
            f"{_summary(self.top1, 'points')}; in brackets the {SURE:.0%} interval of {DRAWS} "
            "draws of networks.",
            f"{_WORDS[self.basis]['beyond'].capitalize()}: {beyond[0]} in latency, {beyond[1]} in "
            f"top-1. {_BASIS[self.basis]}",
        )

    def said(self, verdict: Verdict) -> str:
        """A verdict in words, which say what it was judged by."""
        return _WORDS[self.basis][verdict]

    def _cells(self, moved: Moved, said: Callable[[float], str]) -> tuple[str, str, str, str]:
        words = self.said(moved.verdict)
        return said(moved.before), said(moved.after), f"{moved.change:+.2f}", words

    def table(self, most: int | None = None) -> TextTable:
        """Network by network; of more than ``most`` those that moved, and some from end to end."""
        places: Sequence[int] = range(len(self.archs))
        if most is not None:
            changed = ((a.latency.verdict, a.top1.verdict) for a in self.archs)
            moved = [i for i, verdicts in enumerate(changed) if "beyond" in verdicts]
            places = few_places(len(self.archs), moved, most)
        shown = [self.archs[i] for i in places]
        few = [f"{len(shown)} of them shown."] if len(shown) < len(self.archs) else []
        return TextTable(
            title=f"From {self.before} to {self.after}",
            headers=(
                *("Before ms", "After ms", "Change %", "Latency"),
                *("Before top-1 %", "After top-1 %", "Change points", "Top-1", "Architecture"),
            ),
            numeric=(True, True, True, False, True, True, True, False, False),
            rows=tuple(
                (
                    *self._cells(each.latency, milliseconds),
                    *self._cells(each.top1, percent),
                    each.arch,
                )
                for each in shown
            ),
            note=" ".join([*self.lines(), *few]),
        )


_FIGURES = ("latency", "top1")
_BASIS: dict[Basis, str] = {
    "spread": "The spread: that of the network's own figures, before and after, added in squares.",
    "others": f"Apart: more than {SIGMAS:g} deviations from the median change (by the median "
    "absolute deviation), since no spread is recorded; a change that all share is in the median.",
    "unknown": f"No spread is recorded, and fewer than {FEWEST} networks tell none.",
}
_WORDS: dict[Basis, dict[Verdict, str]] = {
    "spread": {"within": "within spread", "beyond": "beyond spread", "unknown": "spread unknown"},
    "others": {"within": "as the others", "beyond": "apart from the others", "unknown": "unknown"},
    "unknown": {
        "within": "within spread", "beyond": "beyond spread", "unknown": "spread unknown",
    },
}  # fmt: skip


def _summary(figure: tuple[float, float | None, float | None], unit: str) -> str:
    value, low, high = figure
    said = f"{value:+.2f} {unit}"
    if low is None or high is None:
        return said
    sure = "" if low > 0 or high < 0 else ", which may be none"
    return f"{said} [{low:+.2f}, {high:+.2f}]{sure}"


def repeated(series_list: Sequence[Series]) -> list[Changes]:
    """The changes between every two labels of a device that hold some of the same networks.

    Of each label the measured series counts, or else the predicted one; a measured and a predicted
    series are not held against each other.
    """
    found = []
    for first, second in combinations(one_a_label(series_list), 2):
        of_one_kind = (first.panel, first.kind) == (second.panel, second.kind)
        if of_one_kind and _shared(first, second):
            found.append(changes(first, second))
    return found


def _shared(first: Series, second: Series) -> set[Arch]:
    if _fingerprint(first) != _fingerprint(second):
        return set()
    return {c.arch for c in first.front} & {c.arch for c in second.front}


def _fingerprint(series: Series) -> str | None:
    return series.context.space.fingerprint if series.context.space else None


def changes(before: Series, after: Series, *, seed: int = 0) -> Changes:
    """What changed from one run to the other, on the networks that both hold.

    Raises:
        MismatchError: if the runs are of two spaces, devices or batch sizes, or share no network.
    """
    if _fingerprint(before) != _fingerprint(after):
        raise MismatchError(
            f"{before.label!r} and {after.label!r} are of two spaces; expected two runs of one"
        )
    old, new = before.context.conditions, after.context.conditions
    differences = tuple(old.differences(new)) if old and new else ()
    fixed = [each for each in differences if each.split(" ")[0] in ("device", "batch")]
    if fixed or (before.panel != after.panel and not (old and new)):
        said = ", ".join(fixed) or f"device ({before.panel}, {after.panel})"
        raise MismatchError(
            f"expected two runs of the same thing, found other conditions: {said}; compare such "
            "fronts without --before and --after"
        )
    olds, news = _by_arch(before), _by_arch(after)
    shared = [arch for arch in olds if arch in news]
    if not shared:
        raise MismatchError(
            f"{before.label!r} and {after.label!r} share no network; expected two fronts with some "
            "of the same, such as one measured twice"
        )
    pairs = [(olds[arch], news[arch]) for arch in shared]
    latency, top1 = _moves(pairs, "x"), _moves(pairs, "y")
    basis: Basis = "others" if len(pairs) >= FEWEST else "unknown"
    if all(any(_half(p, axis) > 0 for axis in "xy") for pair in pairs for p in pair):
        basis = "spread"
    verdicts = [_verdicts(pairs, "x", latency, basis), _verdicts(pairs, "y", top1, basis)]
    return Changes(
        before.name,
        after.name,
        after.panel,
        differences,
        tuple(
            ArchChange(
                str(arch),
                Moved(old_point.x, new_point.x, float(latency[i]), verdicts[0][i]),
                Moved(old_point.y, new_point.y, float(top1[i]), verdicts[1][i]),
            )
            for i, (arch, (old_point, new_point)) in enumerate(zip(shared, pairs, strict=True))
        ),
        len(olds) - len(shared),
        len(news) - len(shared),
        _median(latency, seed),
        _median(top1, seed),
        basis,
    )


def _by_arch(series: Series) -> dict[Arch, Point]:
    found: dict[Arch, Point] = {}
    for point in series.points():
        found.setdefault(point.candidate.arch, point)
    return found


def _moves(pairs: Sequence[tuple[Point, Point]], axis: str) -> Floats:
    old, new = (np.array([getattr(pair[i], axis) for pair in pairs]) for i in (0, 1))
    return np.asarray(100 * (new / old - 1) if axis == "x" else new - old)


def _half(point: Point, axis: str) -> float:
    low, high = getattr(point, f"{axis}_range")
    return float(high - low) / 2


def _verdicts(
    pairs: Sequence[tuple[Point, Point]], axis: str, moved: Floats, basis: Basis
) -> list[Verdict]:
    if basis == "unknown":
        return ["unknown"] * len(pairs)
    if basis == "others":
        centre = np.median(moved)
        limit = SIGMAS * _MAD * np.median(np.abs(moved - centre))
        return ["beyond" if abs(each - centre) > limit else "within" for each in moved]
    return [_beyond_own(*pair, axis) for pair in pairs]


def _beyond_own(old: Point, new: Point, axis: str) -> Verdict:
    halves = (_half(old, axis), _half(new, axis))
    if not any(halves):
        return "unknown"
    moved = abs(getattr(new, axis) - getattr(old, axis))
    return "beyond" if moved > float(np.hypot(*halves)) else "within"


def _median(moved: Floats, seed: int) -> tuple[float, float | None, float | None]:
    value = float(np.median(moved))
    if len(moved) < FEWEST:
        return value, None, None
    drawn = np.random.default_rng(seed).integers(len(moved), size=(DRAWS, len(moved)))
    ends = interval_of(np.median(moved[drawn], axis=1))
    return (value, *(ends or (None, None)))
