"""How long a run will take here, from a few of its steps."""

import time
from contextlib import closing
from dataclasses import dataclass

import torch

from ofa_deploy.cost import macs_model
from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import TrainConfig
from ofa_deploy.train.forecast import Forecast
from ofa_deploy.train.ranks import ALONE, Ranks
from ofa_deploy.train.threads import keep_freed_memory, repeatable_kernels
from ofa_deploy.train.trainer import Trainer

__all__ = ["Pace", "time_steps"]

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

    def seconds(
        self, run: Forecast, config: TrainConfig, space: SearchSpace, data: DataSplits
    ) -> tuple[float, float]:
        """A range of what a run takes, with the evaluations at the end of its epochs."""
        steps = sum(phase.macs / pace for phase, pace in zip(run.phases, self.macs, strict=True))
        model, archs = macs_model(space), [space.largest, space.smallest]
        images = len(data.validation) + min(config.calibration, len(data.train))
        each = images * float(model.predict(archs).sum()) / self.macs[-1]
        epochs = sum(phase.steps for phase in run.phases) * config.images_a_step / len(data.train)
        low, high = _RANGE
        return low * (steps + epochs * each), high * (steps + epochs * each)


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
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    repeatable_kernels(ranks.device)
    batch = _batch(config, run, ranks.device.type)
    small = config.model_copy(update={"batch": batch})
    with closing(Trainer(space, small, data, ranks)) as trainer:
        return _timed(trainer, batch)


def _batch(config: TrainConfig, run: Forecast, device: str) -> int:
    """As many images as are timed quickly, and no more than a step has."""
    dearest = max(phase.macs / phase.steps for phase in run.phases) / config.images_a_step
    return min(config.batch, max(_LEAST_BATCH, int(_MACS[device] / dearest)))


def _timed(trainer: Trainer, batch: int) -> Pace:
    end = time.monotonic() + _SECONDS
    first = steps = 0
    paces: list[float] = []
    for phase in trainer.plan.phases:
        if paces and time.monotonic() > end:
            paces.append(paces[-1])
            continue
        trainer.seek(first)
        trainer.advance()  # which begins the phase, and warms up
        second = first + min(1, phase.steps - 1)
        before, started = trainer.cost, time.perf_counter()
        for taken in range(1, _STEPS + 1):
            trainer.seek(second)
            trainer.advance()
            if taken > 1 and time.perf_counter() - started > _ENOUGH:
                break
        steps += taken
        paces.append((trainer.cost - before) / (time.perf_counter() - started))
        first += phase.steps
    return Pace(batch, steps, tuple(paces))
