"""A search problem: metrics of a population, objectives, constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import macs_model, model_size_model, params_model, peak_memory_model
from ofa_deploy.errors import InfeasibleError, InputError, MismatchError, UnknownNameError
from ofa_deploy.pareto import OBJECTIVES, Candidate
from ofa_deploy.search.constraints import (
    Constraint,
    GeneConstraint,
    parse_constraint,
    split_metric,
)
from ofa_deploy.search.domain import Domain
from ofa_deploy.space import Population, SearchSpace
from ofa_deploy.terminal import metric, span

__all__ = ["Bounded", "Metric", "Problem", "Uncertain", "parse_objectives"]

Floats = npt.NDArray[np.float64]
Masks = Sequence[npt.NDArray[np.bool_]]

_OF_A_MOMENT = ("latency", "energy")  # a device may run at another speed later


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
    """A metric that knows its exact least and greatest value."""

    def bounds(self, allowed: Masks, /) -> tuple[float, float]:
        """(least, greatest) over networks whose genes take only allowed choices."""


@dataclass(frozen=True)
class Problem:
    """What to search for.

    Attributes:
        domain: the networks to choose among.
        metrics: models by metric name.
        objectives: metric to ``"max"`` or ``"min"``.
        constraints: of metrics; all must hold.
    """

    domain: Domain
    metrics: Mapping[str, Metric]
    objectives: Mapping[str, str]
    constraints: tuple[Constraint, ...]

    @classmethod
    def build(
        cls,
        space: SearchSpace,
        *,
        accuracy: Metric,
        latency: "Metric | Mapping[str, Metric] | None" = None,
        metrics: Mapping[str, Metric] | None = None,
        constraints: Sequence[str | Constraint | GeneConstraint] = (),
        objectives: Mapping[str, str] | None = None,
    ) -> "Problem":
        """Name the models and check that every constraint has one.

        A constraint or objective of no named device is one of each device there is.

        Raises:
            UnknownNameError: if a constraint or objective has no model.
            ConstraintError: if a constraint on genes leaves one no choice.
            MismatchError: if a model belongs to another space.
        """
        given = _named(accuracy, latency, metrics or {})
        for name, model in given.items():
            of = getattr(model, "space", space)
            if of.fingerprint != space.fingerprint:
                raise MismatchError(f"the {name} model is for space {of.name}, not {space.name}")
        every = {
            **given,
            "macs": macs_model(space),
            "params": params_model(space),
            "peak_memory": peak_memory_model(space),
            "model_size": model_size_model(space),
        }
        parsed = [parse_constraint(c) if isinstance(c, str) else c for c in constraints]
        bounds = [each for c in parsed if isinstance(c, Constraint) for each in _each(c, every)]
        goals = _goals(objectives or _default_objectives(every), every)
        for name in (*(constraint.metric for constraint in bounds), *goals):
            if name not in every:
                raise UnknownNameError("metric", name, every, hint="no model was given for it")
        if wrong := set(goals.values()) - {"max", "min"}:
            raise InputError(f"expected max or min for each objective, found {wrong.pop()!r}")
        if "top1" not in goals:
            raise InputError(f"expected top1 among the objectives, found {', '.join(goals)}")
        domain = Domain(space, [c for c in parsed if isinstance(c, GeneConstraint)])
        return cls(domain, every, goals, tuple(bounds))

    @property
    def space(self) -> SearchSpace:
        """The space that the networks are of."""
        return self.domain.space

    def costs(self, population: Population) -> Floats:
        """Objectives to be minimised, shape (n, objectives)."""
        columns = [
            _possible(name, self.metrics[name].predict(population)) * (-1 if goal == "max" else 1)
            for name, goal in self.objectives.items()
        ]
        return np.stack(columns, axis=1)

    def violation(self, population: Population) -> Floats:
        """By how much the constraints are missed, relative and summed; 0 is feasible; shape (n,).

        Where a model has an interval, its unfavourable end must keep the limit.
        """
        return self.summed(self.misses(population), len(population))

    def misses(self, population: Population) -> list[Floats]:
        """``missed`` of every constraint, in their order; each of shape (n,)."""
        return [self.missed(constraint, population) for constraint in self.constraints]

    @staticmethod
    def summed(misses: Sequence[Floats], n: int) -> Floats:
        """``violation`` of ``n`` networks, from their ``misses``."""
        total = np.zeros(n)
        for missed in misses:
            total += np.maximum(0, missed)
        return total

    def missed(self, constraint: Constraint, population: Population) -> Floats:
        """By how much one constraint is missed, relative; negative where kept; shape (n,)."""
        excess = self._pessimistic(constraint, population) / constraint.limit - 1
        return excess if constraint.upper else -excess

    def _pessimistic(self, constraint: Constraint, population: Population) -> Floats:
        name, model = constraint.metric, self.metrics[constraint.metric]
        if not isinstance(model, Uncertain):
            return _possible(name, model.predict(population))
        low, high = model.interval(population)
        return _possible(name, high) if constraint.upper else _finite(name, low)

    def check_reachable(self) -> None:
        """See at once whether some constraint can never be met.

        Raises:
            InfeasibleError: with the least and greatest reachable value of each metric.
            InputError: if a model predicts what cannot be.
        """
        ends = self.space.encode([self.space.smallest, self.space.largest])
        for name, model in self.metrics.items():
            _possible(name, model.predict(ends))
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

    def out_of_reach(self, slack: float = 1.0) -> list[Constraint]:
        """Limits that no network keeps even at the lower end of its intervals.

        Args:
            slack: times and energy may be off by this factor too, as where a device now runs at
                another speed than when it was measured.
        """
        found = []
        for each in self.constraints:
            model = self.metrics[each.metric]
            if not isinstance(model, Bounded):
                continue
            least, greatest = self._ends(model, lower=each.upper)
            off = slack if split_metric(each.metric)[0] in _OF_A_MOMENT else 1.0
            if least / off > each.limit if each.upper else greatest * off < each.limit:
                found.append(each)
        return found

    def _reachable(self, constraint: Constraint, model: Bounded) -> tuple[float, float]:
        """The bounds of what the limit is held against."""
        return self._ends(model, lower=not constraint.upper)

    def _ends(self, model: Bounded, *, lower: bool) -> tuple[float, float]:
        """Least and greatest at the lower end of the model's intervals, or at their upper end."""
        least, greatest = model.bounds(self.domain.allowed)
        if isinstance(model, Widening):
            low, high = model.widen(np.array([least, greatest]))
            least, greatest = low if lower else high
        return float(least), float(greatest)

    def infeasible(
        self,
        nearest: Candidate | None = None,
        seen: Mapping[str, tuple[float, float]] | None = None,
    ) -> InfeasibleError:
        """The error to raise when nothing fits.

        Args:
            nearest: the network that misses the constraints least, where one was looked for.
            seen: (least, greatest) that was met of constrained metrics whose bounds nobody knows.
        """
        reachable = {
            constraint.metric: self._reachable(constraint, model)
            for constraint in self.constraints
            if isinstance(model := self.metrics[constraint.metric], Bounded)
        }
        seen = {name: ends for name, ends in (seen or {}).items() if name not in reachable}
        ranges = "; ".join(
            [f"{name} reaches from {self._span(name, ends)}" for name, ends in reachable.items()]
            + [
                f"{name} was seen from {self._seen(name, ends, nearest)}"
                for name, ends in seen.items()
            ]
        )
        asked = ", ".join(dict.fromkeys(map(str, self._asked())))
        comes = f"; nearest: {self._described(nearest)}" if nearest else ""
        return InfeasibleError(
            f"no network of space {self.space.name} meets {asked}; "
            f"{ranges or 'relax one of them'}{comes}",
            {**reachable, **seen},
            nearest,
        )

    def _span(self, name: str, ends: tuple[float, float]) -> str:
        """What a metric reaches; where that counts its error, without it too."""
        model = self.metrics[name]
        plain = model.bounds(self.domain.allowed) if isinstance(model, Bounded) else ends
        without = "" if plain == ends else f" with its error ({span(name, plain)} without)"
        return span(name, ends) + without

    def _seen(self, name: str, ends: tuple[float, float], nearest: Candidate | None) -> str:
        """What was met of a metric, each value at the unfavourable end of its interval."""
        plain, held = self._held(nearest)[name] if nearest else (0.0, 0.0)
        return span(name, ends) + (" with its error" if plain != held else "")

    def _asked(self) -> tuple[Constraint | GeneConstraint, ...]:
        return (*self.constraints, *self.domain.constraints)

    def _described(self, candidate: Candidate) -> str:
        """What the constraints are held against, of one network, and its genes."""
        told = []
        for name, (plain, held) in self._held(candidate).items():
            without = "" if plain == held else f" ({metric(name, plain, 4)} without its error)"
            told.append(f"{name} {metric(name, held, 4)}{without}")
        return f"{', '.join(told)} ({candidate.arch})"

    def _held(self, candidate: Candidate) -> dict[str, tuple[float, float]]:
        """Each constrained metric of a network: predicted, and as limits are held against it."""
        row = self.space.encode([candidate.arch])
        return {
            c.metric: (
                float(self.metrics[c.metric].predict(row)[0]),
                float(self._pessimistic(c, row)[0]),
            )
            for c in self.constraints
        }

    def candidates(self, population: Population) -> list[Candidate]:
        """Rows as candidates with every metric predicted, and intervals where known."""
        predicted = {name: model.predict(population) for name, model in self.metrics.items()}
        intervals = {
            name: (low, high)
            for name, model in self.metrics.items()
            if isinstance(model, Uncertain)
            for low, high in [model.interval(population)]
            if (low < high).any()  # else its error is unknown
        }
        budget = ", ".join(dict.fromkeys(map(str, self._asked())))
        return [
            Candidate(
                arch,
                {name: float(values[i]) for name, values in predicted.items()},
                {name: (float(low[i]), float(high[i])) for name, (low, high) in intervals.items()},
                budget=budget,
            )
            for i, arch in enumerate(self.space.decode(population))
        ]


def parse_objectives(texts: Sequence[str]) -> dict[str, str]:
    """Objectives as people write them: ``latency min``, ``top1 max``, which is never missing.

    Raises:
        InputError: if one does not parse, or stands twice.
    """
    goals = {"top1": "max"}
    for text in texts:
        metric, _, goal = text.strip().rpartition(" ")
        metric = metric.strip()
        if goal not in ("min", "max") or not metric:
            raise InputError(
                f"objective {text!r} does not parse; expected METRIC min or METRIC max, such as "
                "'latency min'"
            )
        if goals.get(metric, goal) != goal:
            raise InputError(f"objective {text!r} contradicts {metric} {goals[metric]}")
        goals[metric] = goal
    return goals


def _named(
    accuracy: Metric, latency: "Metric | Mapping[str, Metric] | None", others: Mapping[str, Metric]
) -> dict[str, Metric]:
    named: dict[str, Metric] = {"top1": accuracy}
    if isinstance(latency, Mapping):
        named |= {f"latency[{device}]": model for device, model in latency.items()}
    elif latency is not None:
        named["latency"] = latency
    return {**named, **others}


def _each(constraint: Constraint, metrics: Mapping[str, Metric]) -> list[Constraint]:
    """A limit that names no device holds on every one."""
    return [replace(constraint, metric=name) for name in _on_devices(constraint.metric, metrics)]


def _on_devices(metric: str, metrics: Mapping[str, Metric]) -> list[str]:
    """A metric of no named device is that of each one."""
    base, device, percentile = split_metric(metric)
    if device or metric in metrics:
        return [metric]
    on_devices = [
        name
        for name in metrics
        if (parts := split_metric(name))[1] and (parts[0], parts[2]) == (base, percentile)
    ]
    return on_devices or [metric]


def _goals(objectives: Mapping[str, str], metrics: Mapping[str, Metric]) -> dict[str, str]:
    """An objective that names no device is one of each."""
    goals: dict[str, str] = {}
    for name, goal in objectives.items():
        for each in _on_devices(name, metrics):
            if goals.setdefault(each, goal) != goal:
                raise InputError(f"objective {name} {goal} contradicts {each} {goals[each]}")
    return goals


def _default_objectives(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Top-1 against latency, on the first device; against MACs where there is no latency."""
    latencies = [name for name in metrics if split_metric(name)[::2] == ("latency", "")]
    if latencies == ["latency"]:
        return dict(OBJECTIVES)
    return {"top1": "max", (latencies[0] if latencies else "macs"): "min"}


def _finite(name: str, values: Floats) -> Floats:
    if not (known := np.isfinite(values)).all():
        raise InputError(
            f"the {name} model predicts {values[~known][0]}, expected finite numbers: make it anew"
        )
    return values


def _possible(name: str, values: Floats) -> Floats:
    """What a model predicts, if it can be: finite, and no time of zero or less."""
    if name.startswith("latency") and (_finite(name, values) <= 0).any():
        raise InputError(
            f"the {name} model predicts {values.min():.4g} ms, expected more than 0: make it anew"
        )
    return _finite(name, values)
