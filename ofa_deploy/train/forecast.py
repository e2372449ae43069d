"""What a run will cost, before a second of it is spent."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ofa_deploy.cost import macs_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import TrainConfig
from ofa_deploy.train.plan import Phase, Plan, step_macs

__all__ = ["Forecast", "PhaseForecast", "forecast"]

_SAMPLES = 64
_BYTES = 4


@dataclass(frozen=True)
class PhaseForecast:
    """One phase.

    Attributes:
        lr: at its first, middle and last step.
        passes: such as ``largest + smallest + 2 random``.
        weight: of its last pass's loss, at its first and last step; β in DεpS.
        macs: multiply-accumulates of the whole phase, forward and backward, expected.
    """

    name: str
    steps: int
    start: tuple[str, ...]
    lr: tuple[float, float, float]
    passes: str
    weight: tuple[float, float]
    macs: float


@dataclass(frozen=True)
class Forecast:
    """A run.

    Attributes:
        phases: in order.
        macs: multiply-accumulates in all.
        weight_bytes: weights, gradients and momentum (and RMSProp's squares, a teacher's weights)
            of one process.
        activation_bytes: what the largest subnet keeps for its backward pass, about.
    """

    phases: tuple[PhaseForecast, ...]
    macs: float
    weight_bytes: int
    activation_bytes: int


def forecast(config: TrainConfig, space: SearchSpace, plan: Plan) -> Forecast:
    """What ``plan`` asks for; random subnets enter with the mean of a sample."""
    images = config.images_a_step
    phases, first, taught = [], 0, False
    for phase in plan.phases:
        taught = taught or "freeze teacher" in phase.start
        phases.append(_phase(phase, plan, space, config.seed, images, first, taught))
        first += phase.steps
    blocks = space.lower(space.largest)
    params = sum(block.params for block in blocks)
    # Every convolution, BN and activation keeps what it was given; about what a block moves.
    kept = sum(block.bytes_moved - _BYTES * block.params for block in blocks)
    return Forecast(
        phases=tuple(phases),
        macs=sum(phase.macs for phase in phases),
        weight_bytes=_BYTES * params * (3 + taught + (config.optimizer == "rmsprop")),
        activation_bytes=config.batch * kept,
    )


def _phase(
    phase: Phase, plan: Plan, space: SearchSpace, seed: int, images: int, first: int, taught: bool
) -> PhaseForecast:
    model = macs_model(space)
    steps = np.unique(np.linspace(0, phase.steps - 1, _SAMPLES).astype(int))
    teacher = space.largest if taught else None
    per_step = [
        step_macs(model, plan.passes(space, first + int(step), seed), images, teacher)
        for step in steps
    ]
    rules = [phase.rules(step) for step in (0, phase.steps - 1)]
    counts = Counter(rule.role for rule in rules[0])
    return PhaseForecast(
        name=phase.name,
        steps=phase.steps,
        start=phase.start,
        lr=(phase.lr(0), phase.lr(phase.steps // 2), phase.lr(phase.steps - 1)),
        passes=" + ".join(f"{n} {role}" if n > 1 else role for role, n in counts.items()),
        weight=(rules[0][-1].weight, rules[1][-1].weight),
        macs=phase.steps * float(np.mean(per_step)),
    )
