"""How long a run will take here, from a few of its steps."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import torch

from ofa_deploy.cost import macs_model
from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import Common, TrainConfig
from ofa_deploy.train.forecast import Forecast
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.runner import Runner
from ofa_deploy.train.threads import keep_freed_memory, repeatable_kernels
from ofa_deploy.train.trainer import Trainer

__all__ = ["Pace", "evaluation_macs", "pace_of", "time_steps"]

_SECONDS = 2.0  # of timing, about
_STEPS, _ENOUGH = 4, 0.5  # timed in each phase: so many at most, or so many seconds
_MACS = {"cpu": 3e9, "cuda": 1e12}  # of a step that is timed, about
_LEAST_BATCH = 2
_RANGE = (0.8, 1.6)  # other work, images that take longer to read, processors that get warm


@dataclass(frozen=True)
class Pace:
    """What was timed.

    Attributes:
        batch: images of a step that was timed.
        steps: so many were.
        macs: multiply-accumulates a second, by phase; later phases have that of the last timed.
    """

    batch: int
    steps: int
    macs: tuple[float, ...]

    def seconds(self, phases: Sequence[float], evaluations: float) -> tuple[float, float]:
        """A range of what a run takes.

        Args:
            phases: multiply-accumulates of each, and of all ``evaluations`` at the end of epochs.
        """
        steps = sum(macs / pace for macs, pace in zip(phases, self.macs, strict=True))
        low, high = ((steps + evaluations / self.macs[-1]) * factor for factor in _RANGE)
        return low, high


def time_steps(
    config: TrainConfig,
    space: SearchSpace,
    data: DataSplits,
    run: Forecast,
    ranks: Ranks = ALONE,
) -> Pace:
    """Take a few steps of each phase, of fewer images where a whole one would take long.

    Args:
        run: what the run costs, after ``config``.
    """
    dearest = max(phase.macs / phase.steps for phase in run.phases)

    def make(small: TrainConfig) -> Trainer:
        return Trainer(space, small, data, ranks)

    return pace_of(config, dearest, make, lambda trainer: trainer.cost, ranks)


def evaluation_macs(
    config: TrainConfig, space: SearchSpace, data: DataSplits, run: Forecast
) -> float:
    """Of the evaluations at the end of all epochs."""
    each = float(macs_model(space).predict([space.largest, space.smallest]).sum())
    images = len(data.validation) + min(config.calibration, len(data.train))
    epochs = sum(phase.steps for phase in run.phases) * config.images_a_step / len(data.train)
    return epochs * images * each


C = TypeVar("C", bound=Common)
R = TypeVar("R", bound=Runner)


def pace_of(
    config: C,
    dearest: float,
    make: Callable[[C], R],
    cost: Callable[[R], float],
    ranks: Ranks = ALONE,
) -> Pace:
    """Take a few steps of each phase of a run.

    Args:
        dearest: multiply-accumulates of its dearest step.
        make: gives its runner, from a config with perhaps a smaller batch.
        cost: multiply-accumulates that a runner has spent so far.
    """
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    repeatable_kernels(ranks.device)
    few = int(_MACS[ranks.device.type] * config.images_a_step / dearest)
    batch = min(config.batch, max(_LEAST_BATCH, few))
    with closing(make(config.model_copy(update={"batch": batch}))) as runner:
        return _timed(runner, batch, lambda: cost(runner))


def _timed(runner: Runner, batch: int, cost: Callable[[], float]) -> Pace:
    end = time.monotonic() + _SECONDS
    first = steps = 0
    paces: list[float] = []
    for phase in runner.plan.phases:
        if paces and time.monotonic() > end:
            paces.append(paces[-1])
            continue
        runner.seek(first)
        runner.advance()  # which begins the phase, and warms up
        second = first + min(1, phase.steps - 1)
        before, started = cost(), time.perf_counter()
        for taken in range(1, _STEPS + 1):
            runner.seek(second)
            runner.advance()
            if taken > 1 and time.perf_counter() - started > _ENOUGH:
                break
        steps += taken
        paces.append((cost() - before) / (time.perf_counter() - started))
        first += phase.steps
    return Pace(batch, steps, tuple(paces))
