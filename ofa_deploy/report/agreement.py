"""Measured against predicted: how far the models were off on networks that were measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ofa_deploy.pareto import Candidate
from ofa_deploy.report.series import TOP1, Series
from ofa_deploy.terminal import UNKNOWN, TextTable

__all__ = ["Agreement", "agreement", "agreement_table", "both"]


@dataclass(frozen=True)
class Agreement:
    """How one label's predictions of one metric agree with what was measured.

    Attributes:
        networks: how many have both.
        bias: mean of measured − predicted: percent of the prediction, or points of top-1.
        error: mean of its size.
        worst: the greatest size, with its sign.
        held: share of the networks inside the prediction's interval; None where there is none.
    """

    label: str
    metric: str
    networks: int
    bias: float
    error: float
    worst: float
    held: float | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


def both(series_list: Sequence[Series], metric: str) -> list[tuple[Candidate, float, float]]:
    """Each network that was predicted and measured: the candidate, predicted, measured.

    A network of several series of one label counts once, as measured where it was measured and as
    predicted in the same candidate, or else in another.
    """
    told: dict[tuple[str, Any], Candidate] = {}
    seen: dict[tuple[str, Any], Candidate] = {}
    for series in series_list:
        for candidate in series.front:
            key = (series.label, candidate.arch)
            if metric in candidate.measured:
                seen.setdefault(key, candidate)
            if metric in candidate.predicted and (key not in told or metric in candidate.measured):
                told[key] = candidate
    return [
        (told[key], told[key].predicted[metric], candidate.measured[metric])
        for key, candidate in seen.items()
        if key in told
    ]


def agreement(series_list: Sequence[Series]) -> list[Agreement]:
    """For each label of one device, latency and top-1 where any network has both."""
    found = []
    for label in dict.fromkeys(series.label for series in series_list):
        mine = [series for series in series_list if series.label == label]
        for metric in (mine[0].latency, TOP1):
            if pairs := both(mine, metric):
                found.append(_agreement(label, metric, pairs))
    return found


def _agreement(
    label: str, metric: str, pairs: Sequence[tuple[Candidate, float, float]]
) -> Agreement:
    told, seen = (np.array([pair[i] for pair in pairs]) for i in (1, 2))
    off = seen - told if metric == TOP1 else 100 * (seen / told - 1)
    ranges = [(c.intervals[metric], value) for c, _, value in pairs if metric in c.intervals]
    held = [low <= value <= high for (low, high), value in ranges]
    return Agreement(
        label,
        metric,
        len(pairs),
        float(off.mean()),
        float(np.abs(off).mean()),
        float(off[np.argmax(np.abs(off))]),
        float(np.mean(held)) if held else None,
    )


def agreement_table(found: Sequence[Agreement]) -> TextTable:
    """The agreements as text."""
    return TextTable(
        title="Measured against predicted",
        headers=("Front", "Metric", "Networks", "Bias", "Mean error", "Worst", "In interval"),
        numeric=(False, False, True, True, True, True, True),
        rows=tuple(
            (
                each.label,
                f"{each.metric}, {'points' if each.metric == TOP1 else '%'}",
                str(each.networks),
                f"{each.bias:+.2f}",
                f"{each.error:.2f}",
                f"{each.worst:+.2f}",
                UNKNOWN if each.held is None else f"{100 * each.held:.0f} %",
            )
            for each in found
        ),
        note="Measured less predicted: percent of the prediction for latency, points for top-1. "
        "Networks that a search picked for their predictions disappoint more than others.",
    )
