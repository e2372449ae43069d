"""A search problem: metrics of a population, objectives, constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import macs_model, params_model, peak_memory_model
from ofa_deploy.errors import InfeasibleError, InputError, MismatchError, UnknownNameError
from ofa_deploy.pareto import OBJECTIVES, Candidate
from ofa_deploy.search.constraints import Constraint, parse_constraint
from ofa_deploy.space import Population, SearchSpace

__all__ = ["Bounded", "Metric", "Problem", "Uncertain"]

Floats = npt.NDArray[np.float64]


class Metric(Protocol):
    """A model of one metric."""

    def predict(self, archs: Population, /) -> Floats:
        """Population (n, genes) to values (n,)."""


@runtime_checkable
class Uncertain(Protocol):
    """A metric that knows its error."""

    def interval(self, archs: Population, /) -> tuple[Floats, Floats]:
        """(low, high), each (n,)."""


@runtime_checkable
class Widening(Protocol):
    """An uncertain metric whose interval follows from the prediction alone."""

    def widen(self, predicted: Floats, /) -> tuple[Floats, Floats]:
        """(low, high) around predictions, each (n,)."""


@runtime_checkable
class Bounded(Protocol):
    """A metric that knows its exact least and greatest value over the space."""

    def bounds(self) -> tuple[float, float]:
        """(least, greatest)."""


@dataclass(frozen=True)
class Problem:
    """What to search for.

    Attributes:
        metrics: models by metric name.
        objectives: metric to ``"max"`` or ``"min"``.
        constraints: all must hold.
    """

    space: SearchSpace
    metrics: Mapping[str, Metric]
    objectives: Mapping[str, str]
    constraints: tuple[Constraint, ...]

    @classmethod
    def build(
        cls,
        space: SearchSpace,
        *,
        accuracy: Metric,
        latency: "Metric | Mapping[str, Metric] | None",
        constraints: Sequence[str | Constraint],
        objectives: Mapping[str, str] | None = None,
    ) -> "Problem":
        """Name the models and check that every constraint has one.

        Raises:
            UnknownNameError: if a constraint or objective has no model.
            MismatchError: if a model belongs to another space.
        """
        metrics: dict[str, Metric] = {"top1": accuracy}
        if isinstance(latency, Mapping):
            metrics |= {f"latency[{device}]": model for device, model in latency.items()}
        elif latency is not None:
            metrics["latency"] = latency
        for name, model in metrics.items():
            of = getattr(model, "space", space)
            if of.fingerprint != space.fingerprint:
                raise MismatchError(f"the {name} model is for space {of.name}, not {space.name}")
        metrics |= {
            "macs": macs_model(space),
            "params": params_model(space),
            "peak_memory": peak_memory_model(space),
        }
        parsed = tuple(parse_constraint(c) if isinstance(c, str) else c for c in constraints)
        goals = objectives or _default_objectives(metrics)
        for name in (*(constraint.metric for constraint in parsed), *goals):
            if name not in metrics:
                raise UnknownNameError("metric", name, metrics, hint="no model was given for it")
        if wrong := set(goals.values()) - {"max", "min"}:
            raise InputError(f"expected max or min for each objective, found {wrong.pop()!r}")
        if "top1" not in goals:
            raise InputError(f"expected top1 among the objectives, found {', '.join(goals)}")
        return cls(space, metrics, goals, parsed)

    def costs(self, population: Population) -> Floats:
        """Objectives to be minimised, shape (n, objectives)."""
        columns = [
            self.metrics[name].predict(population) * (-1 if goal == "max" else 1)
            for name, goal in self.objectives.items()
        ]
        return np.stack(columns, axis=1)

    def violation(self, population: Population) -> Floats:
        """By how much the constraints are missed, relative and summed; 0 is feasible; shape (n,).

        Where a model has an interval, its unfavourable end must keep the limit.
        """
        total = np.zeros(len(population))
        for constraint in self.constraints:
            values = self._pessimistic(constraint, population)
            excess = values / constraint.limit - 1
            total += np.maximum(0, excess if constraint.upper else -excess)
        return total

    def _pessimistic(self, constraint: Constraint, population: Population) -> Floats:
        model = self.metrics[constraint.metric]
        if not isinstance(model, Uncertain):
            return model.predict(population)
        low, high = model.interval(population)
        return high if constraint.upper else low

    def check_reachable(self) -> None:
        """See at once whether some constraint can never be met.

        Raises:
            InfeasibleError: with the least and greatest reachable value of each metric.
        """
        for constraint in self.constraints:
            model = self.metrics[constraint.metric]
            if isinstance(model, Bounded):
                least, greatest = self._reachable(constraint, model)
                if (
                    (least > constraint.limit)
                    if constraint.upper
                    else (greatest < constraint.limit)
                ):
                    raise self.infeasible()

    def _reachable(self, constraint: Constraint, model: Bounded) -> tuple[float, float]:
        """The bounds of what the limit is held against."""
        least, greatest = model.bounds()
        if isinstance(model, Widening):
            low, high = model.widen(np.array([least, greatest]))
            least, greatest = high if constraint.upper else low
        return float(least), float(greatest)

    def infeasible(self) -> InfeasibleError:
        """The error to raise when nothing fits."""
        reachable = {
            constraint.metric: self._reachable(constraint, model)
            for constraint in self.constraints
            if isinstance(model := self.metrics[constraint.metric], Bounded)
        }
        ranges = "; ".join(
            f"{name} reaches from {least:.4g} to {greatest:.4g}"
            for name, (least, greatest) in reachable.items()
        )
        asked = ", ".join(str(constraint) for constraint in self.constraints)
        return InfeasibleError(
            f"no network of space {self.space.name} meets {asked}; {ranges or 'relax one of them'}",
            reachable,
        )

    def candidates(self, population: Population) -> list[Candidate]:
        """Rows as candidates with every metric predicted, and intervals where known."""
        predicted = {name: model.predict(population) for name, model in self.metrics.items()}
        intervals = {
            name: model.interval(population)
            for name, model in self.metrics.items()
            if isinstance(model, Uncertain)
        }
        budget = ", ".join(str(constraint) for constraint in self.constraints)
        return [
            Candidate(
                arch,
                {name: float(values[i]) for name, values in predicted.items()},
                {name: (float(low[i]), float(high[i])) for name, (low, high) in intervals.items()},
                budget=budget,
            )
            for i, arch in enumerate(self.space.decode(population))
        ]


def _default_objectives(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Top-1 against latency, on the first device; against MACs where there is no latency."""
    latencies = [name for name in metrics if name.startswith("latency")]
    if latencies == ["latency"]:
        return dict(OBJECTIVES)
    return {"top1": "max", (latencies[0] if latencies else "macs"): "min"}
