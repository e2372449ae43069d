"""Before any training: what a space can reach, and which budgets can be met at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ofa_deploy.errors import InfeasibleError, InputError
from ofa_deploy.pareto import Candidate
from ofa_deploy.search.constraints import Constraint, GeneConstraint, split_metric
from ofa_deploy.search.evolution import search
from ofa_deploy.search.problem import Bounded, Metric, Problem
from ofa_deploy.space import SearchSpace

__all__ = ["Plan", "Reach", "check_untrained", "plan"]

_SAMPLE = 20_000


@dataclass(frozen=True)
class Reach:
    """What a metric can be.

    Attributes:
        least, greatest: over the networks that constraints on genes leave.
        middle: the median of random ones.
    """

    metric: str
    least: float
    middle: float
    greatest: float


@dataclass(frozen=True)
class Plan:
    """What can be had.

    Attributes:
        reach: of every metric.
        shares: of random networks that meet each constraint, and all of them, 0 to 1; by text.
        best: the network of the most MACs that meets all constraints; None where none does.
        nearest: the one that misses them least, where none meets them.
    """

    reach: tuple[Reach, ...]
    shares: Mapping[str, float]
    best: Candidate | None
    nearest: Candidate | None = None


def plan(
    space: SearchSpace,
    metrics: Mapping[str, Metric],
    constraints: Sequence[Constraint | GeneConstraint] = (),
    *,
    seed: int = 0,
) -> Plan:
    """What the networks of a space can reach, and whether constraints can be met.

    MACs stand in for accuracy, which nobody knows before training.

    Args:
        metrics: models of latency and the like, by metric name.
        constraints: of metrics that have a model, and of genes.

    Raises:
        InputError: if one is of accuracy.
    """
    check_untrained(constraints)
    stand_in = _Macs(space)
    problem = Problem.build(space, accuracy=stand_in, metrics=metrics, constraints=constraints)
    rng = np.random.default_rng([seed, 0x91A4])
    rows = problem.domain.sample(rng, _SAMPLE)
    reach = []
    for name, model in problem.metrics.items():
        if name == "top1":
            continue
        values = model.predict(rows)
        least, greatest = (
            model.bounds(problem.domain.allowed)
            if isinstance(model, Bounded)
            else (values.min(), values.max())
        )
        reach.append(Reach(name, float(least), float(np.median(values)), float(greatest)))
    shares = {str(c): float((problem.missed(c, rows) <= 0).mean()) for c in problem.constraints}
    if len(shares) > 1:
        shares["all of them"] = float((problem.violation(rows) == 0).mean())
    try:
        front = search(
            space,
            accuracy=stand_in,
            metrics=metrics,
            constraints=constraints,
            objectives={"top1": "max"},
            seed=seed,
        )
    except InfeasibleError as error:
        nearest = error.nearest if isinstance(error.nearest, Candidate) else None
        return Plan(tuple(reach), shares, None, nearest)
    return Plan(tuple(reach), shares, front.best("top1"))


def check_untrained(constraints: Sequence[Constraint | GeneConstraint]) -> None:
    """See that nothing is asked which only training tells.

    Raises:
        InputError: if a constraint is of accuracy.
    """
    for constraint in constraints:
        if isinstance(constraint, Constraint) and split_metric(constraint.metric)[0] == "top1":
            raise InputError(
                f"accuracy is not known before training; leave {constraint.text!r} out"
            )


class _Macs:
    """MACs under the name of accuracy."""

    def __init__(self, space: SearchSpace) -> None:
        from ofa_deploy.cost import macs_model

        self.space = space
        self.predict = macs_model(space).predict
