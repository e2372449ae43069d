"""How good an answer is: against its neighbours, a long independent run, and the exact optimum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.pareto import Candidate
from ofa_deploy.search.evolution import search
from ofa_deploy.search.exact import Optimum, best_within
from ofa_deploy.search.problem import Metric, Problem, Widening
from ofa_deploy.space import SearchSpace

__all__ = ["Certificate", "certify"]

_OFFSPRING, _GENERATIONS, _CLIMBS = 400, 225, 30  # of the long run
_OTHER_SEED = 1_000_003


@dataclass(frozen=True)
class Certificate:
    """What was tried to do better, by the same models.

    Attributes:
        top1: predicted of the answer, in percent.
        neighbours: feasible networks one or two genes away.
        best_neighbour: the greatest top-1 among them; minus infinity if there is none.
        long_run: the greatest top-1 that a long run of another seed found.
        optimum: exact, where accuracy is a sum over genes and what limits it is one sum; else None.
        unknown: why there is no optimum, where there is none.
    """

    top1: float
    neighbours: int
    best_neighbour: float
    long_run: float
    optimum: Optimum | None
    unknown: str = ""

    @property
    def locally_optimal(self) -> bool:
        """Whether no change of one or two genes is predicted to be better."""
        return self.best_neighbour <= self.top1

    def __str__(self) -> str:
        local = "none is" if self.locally_optimal else f"one is: {self.best_neighbour:.3f} %"
        lines = [
            f"of {self.neighbours} feasible networks one or two genes away, better: {local}",
            f"an independent run of {_OFFSPRING * _GENERATIONS:,} offspring and {_CLIMBS} climbs: "
            f"{self.long_run:.3f} % ({self.long_run - self.top1:+.3f} points)",
        ]
        if self.optimum is None:
            lines.append(f"exact optimum: not known, since {self.unknown}")
        else:
            lines.append(
                f"exact optimum: between {self.optimum.value:.3f} and {self.optimum.bound:.3f} %; "
                f"the answer is at most {max(0.0, self.optimum.bound - self.top1):.3f} points below"
            )
        return "\n".join(lines)


def certify(space: SearchSpace, answer: Candidate, *, seed: int = 0, **asked: Any) -> Certificate:
    """Try to do better than a search's most accurate network.

    Args:
        answer: ``front.best("top1")`` of ``search(space, seed=seed, **asked)``.
        asked: what ``search`` was asked: models and constraints.
    """
    problem = Problem.build(space, **asked)
    row = space.encode([answer.arch])[0]
    accuracy = problem.metrics["top1"]
    near = problem.domain.neighbours(row)
    near = near[problem.violation(near) == 0]
    long: Mapping[str, Any] = {
        **asked,
        "population": _OFFSPRING,
        "generations": _GENERATIONS,
        "climbs": _CLIMBS,
    }
    found = search(space, seed=seed + _OTHER_SEED, **long)
    optimum, unknown = _optimum(problem)
    return Certificate(
        top1=float(accuracy.predict(row[None])[0]),
        neighbours=len(near),
        best_neighbour=float(accuracy.predict(near).max(initial=-np.inf)),
        long_run=found.best("top1").predicted["top1"],
        optimum=optimum,
        unknown=unknown,
    )


def _optimum(problem: Problem) -> tuple[Optimum | None, str]:
    """By dynamic programming, of one upper limit on a sum, and genes; or why it cannot be had."""
    accuracy = problem.metrics["top1"]
    if not _is_sum(accuracy):
        return None, "accuracy is not a sum over genes"
    if len(problem.constraints) != 1:
        return None, f"it needs one limit, here are {len(problem.constraints)}"
    (constraint,) = problem.constraints
    if not constraint.upper:
        return None, f"{constraint} is a lower limit"
    cost = problem.metrics[constraint.metric]
    if not _is_sum(cost):
        return None, f"{constraint.metric} is not a sum over blocks"
    limit = constraint.limit
    if isinstance(cost, Widening):
        limit /= float(cost.widen(np.ones(1))[1][0])
    found = best_within(problem.domain, accuracy, cost, limit)
    return found, "" if found else "the grid of costs is too coarse for so low a limit"


def _is_sum(model: Metric) -> TypeGuard[AdditiveModel]:
    return isinstance(model, AdditiveModel) and model.reduce == "sum"
