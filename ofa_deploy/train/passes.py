"""Which subnets a step trains, on what, and how strongly."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.train.schedule import DepsSchedule

__all__ = ["Pass", "deps_passes"]


@dataclass(frozen=True)
class Pass:
    """One forward and backward of a step; a step sums the gradients of its passes.

    Attributes:
        role: the name under which its loss is reported.
        arch: the subnet.
        weight: of its loss.
        target: hard ``labels``, or the soft labels of the step's ``teacher`` (its first pass).
        dropout: whether dropout is on.
    """

    role: str
    arch: Arch
    weight: float
    target: Literal["labels", "teacher"]
    dropout: bool


def deps_passes(
    space: SearchSpace, schedule: DepsSchedule, step: int, *, random_subnets: int, seed: int
) -> tuple[Pass, ...]:
    """The passes of one DεpS step.

    The largest subnet learns from labels. Once shrinking has begun the smallest and random ones
    learn from its live soft labels, weighted by β. The draw depends on (seed, step) only, so it is
    the same on every rank and after a resume.
    """
    largest = Pass("largest", space.largest, 1.0, "labels", dropout=True)
    if step < schedule.shrinking_step:
        return (largest,)
    beta = schedule.beta_at(step)
    rng = np.random.default_rng([seed, step, 0xA2C4])
    drawn = space.decode(space.sample(rng, random_subnets)) if random_subnets else []
    return (
        largest,
        Pass("smallest", space.smallest, beta, "teacher", dropout=False),
        *(Pass("random", arch, beta, "teacher", dropout=False) for arch in drawn),
    )
