"""``Candidate`` and ``ParetoFront``: networks with their metrics, and the ones worth choosing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.space import Arch, readable_by

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OBJECTIVES", "Candidate", "CandidateField", "ParetoFront"]

OBJECTIVES: Mapping[str, str] = {"top1": "max", "latency": "min"}


@dataclass(frozen=True)
class Candidate:
    """One network and what is known of it.

    Metrics are keyed by name: ``top1`` (percent), ``top1.images`` (how many it was judged on),
    ``latency`` or ``latency[device]`` (ms), ``latency.p99`` and other percentiles of single runs,
    ``latency.spread`` (the relative range of ``latency`` over the measuring processes), ``energy``
    (mJ), ``macs``, ``params``, ``peak_memory`` and ``model_size`` (bytes).

    Attributes:
        predicted: what models say.
        intervals: (low, high) around a prediction.
        measured: what was observed.
        budget: the constraints that it was searched under, as text.
        target: what to export it to, where that is not ONNX in float32.
    """

    arch: Arch
    predicted: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    budget: str = ""
    target: str = ""

    def value(self, metric: str) -> float:
        """The measured value of ``metric``, or the predicted one where it was not measured.

        Raises:
            UnknownNameError: if the candidate has neither.
        """
        for values in (self.measured, self.predicted):
            if metric in values:
                return values[metric]
        raise UnknownNameError("metric", metric, {*self.measured, *self.predicted})

    def with_measured(self, **measured: float) -> "Candidate":
        """A copy with more measured metrics."""
        return replace(self, measured={**self.measured, **measured})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "arch": self.arch.to_dict(),
            "predicted": dict(self.predicted),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "measured": dict(self.measured),
            "budget": self.budget,
            **({"target": self.target} if self.target else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Candidate":
        """Read what ``to_dict`` wrote.

        Raises:
            FileFormatError: if a field is missing or unknown, or a metric is not a finite number.
        """
        try:
            _check_fields(value, _FIELDS)
            return cls(
                arch=Arch.from_dict(value["arch"]),
                predicted=_metrics(value["predicted"]),
                intervals={
                    str(name): (_finite(low), _finite(high))
                    for name, (low, high) in value["intervals"].items()
                },
                measured=_metrics(value["measured"]),
                budget=_text(value["budget"]),
                target=_text(value.get("target", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FileFormatError(f"not a candidate: {error!r}") from None


_FIELDS = frozenset(field.name for field in fields(Candidate))
CandidateField = Annotated[dict[str, Any], readable_by(Candidate.from_dict)]  # of a file


def _check_fields(value: Mapping[str, Any], known: Set[str]) -> None:
    if unknown := sorted(map(str, value.keys() - known)):
        raise ValueError(f"unknown field {unknown[0][:60]!r}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): _finite(value) for name, value in values.items()}


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


@dataclass(frozen=True)
class ParetoFront(Sequence[Candidate]):
    """Candidates none of which another dominates, sorted by the last objective.

    Attributes:
        candidates: the front.
        objectives: metric to ``"max"`` or ``"min"``.
    """

    candidates: tuple[Candidate, ...]
    objectives: Mapping[str, str] = field(default_factory=lambda: dict(OBJECTIVES))

    @classmethod
    def of(
        cls, candidates: Iterable[Candidate], objectives: Mapping[str, str] = OBJECTIVES
    ) -> "ParetoFront":
        """Keep the candidates that no other dominates; of equal ones the first.

        Raises:
            UnknownNameError: if a candidate lacks an objective's metric.
        """
        import moocore

        by_arch: dict[Arch, Candidate] = {}
        for candidate in candidates:
            by_arch.setdefault(candidate.arch, candidate)
        listed = list(by_arch.values())
        if not listed:
            return cls((), dict(objectives))
        values = _values(listed, objectives)
        keep = moocore.is_nondominated(values, maximise=_maximise(objectives))
        order = np.argsort(values[keep, -1], kind="stable")
        kept = [candidate for candidate, good in zip(listed, keep, strict=True) if good]
        return cls(tuple(kept[i] for i in order), dict(objectives))

    def __getitem__(self, index: Any) -> Any:
        return self.candidates[index]

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def values(self) -> npt.NDArray[np.float64]:
        """The objectives' values, shape (candidates, objectives)."""
        return _values(self.candidates, self.objectives)

    def best(self, metric: str = "top1") -> Candidate:
        """The candidate with the best value of an objective.

        Raises:
            UnknownNameError: if ``metric`` is not an objective.
            InputError: if the front is empty.
        """
        if metric not in self.objectives:
            raise UnknownNameError("objective", metric, self.objectives)
        if not self.candidates:
            raise InputError("the front is empty: it has no best candidate")
        choose = max if self.objectives[metric] == "max" else min
        return choose(self.candidates, key=lambda candidate: candidate.value(metric))

    def merge(self, *others: "ParetoFront") -> "ParetoFront":
        """The front of all candidates together.

        Raises:
            InputError: if the objectives differ.
        """
        for other in others:
            if dict(other.objectives) != dict(self.objectives):
                raise InputError(
                    f"fronts over {', '.join(self.objectives)} and over "
                    f"{', '.join(other.objectives)} cannot be merged"
                )
        everyone = [candidate for front in (self, *others) for candidate in front]
        return ParetoFront.of(everyone, self.objectives)

    def hypervolume(self, reference: Mapping[str, float]) -> float:
        """The volume between the front and a reference point, in the product of the units.

        Candidates that are worse than the reference in some objective add nothing.
        """
        import moocore

        if missing := sorted(set(self.objectives) - set(reference)):
            raise InputError(f"the reference point lacks {', '.join(missing)}")
        if not self.candidates:
            return 0.0
        point = [reference[name] for name in self.objectives]
        return float(
            moocore.hypervolume(self.values(), ref=point, maximise=_maximise(self.objectives))
        )

    def to_frame(self) -> "pd.DataFrame":
        """One row a candidate: arch, budget, and a column a metric and kind."""
        import pandas as pd

        rows = [
            {"arch": str(candidate.arch), "budget": candidate.budget}
            | {f"{name}_predicted": value for name, value in candidate.predicted.items()}
            | {f"{name}_low": low for name, (low, _) in candidate.intervals.items()}
            | {f"{name}_high": high for name, (_, high) in candidate.intervals.items()}
            | {f"{name}_measured": value for name, value in candidate.measured.items()}
            for candidate in self.candidates
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "objectives": dict(self.objectives),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ParetoFront":
        """Read what ``to_dict`` wrote."""
        try:
            _check_fields(value, {"objectives", "candidates"})
            objectives = {name: _text(goal) for name, goal in value["objectives"].items()}
            candidates = tuple(Candidate.from_dict(each) for each in value["candidates"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(f"not a front: {error!r}") from None
        if not objectives or set(objectives.values()) - {"max", "min"}:
            raise FileFormatError(f"not a front: objectives {objectives}; expected max or min each")
        for candidate in candidates:
            if missing := sorted(set(objectives) - {*candidate.predicted, *candidate.measured}):
                raise FileFormatError(f"not a front: a candidate lacks {', '.join(missing)}")
        return cls(candidates, objectives)


def _values(
    candidates: Sequence[Candidate], objectives: Mapping[str, str]
) -> npt.NDArray[np.float64]:
    return np.array([[c.value(name) for name in objectives] for c in candidates], dtype=np.float64)


def _maximise(objectives: Mapping[str, str]) -> list[bool]:
    return [goal == "max" for goal in objectives.values()]
