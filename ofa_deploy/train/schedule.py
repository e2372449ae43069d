"""The DεpS schedule: one cosine, and a ramp for the subnets' share (arXiv 2407.06167).

``T`` epochs, the ramp of ``s`` epochs ends at epoch ``W``, ``nB`` steps an epoch. The largest
subnet trains alone before epoch ``W - s``. During the ramp the subnets' gradients are weighted by

    β = r · η_W / η_t,    r = steps into the ramp / (s · nB),

so that their effective rate β·η_t climbs linearly from 0 to η_W. From W on, β = 1.
"""

import math
from dataclasses import dataclass

from ofa_deploy.train.config import TrainConfig

__all__ = ["DepsSchedule"]

_FLOOR = 2.5e-3 / 2.6  # the paper's η_min over its η0


@dataclass(frozen=True, kw_only=True)
class DepsSchedule:
    """Learning rate and β of every step.

    Attributes:
        epochs, ramp_end, ramp_epochs: T, W and s.
        steps_per_epoch: nB.
        lr, lr_min: where the cosine starts, and its floor.
    """

    epochs: int
    ramp_end: int
    ramp_epochs: int
    steps_per_epoch: int
    lr: float
    lr_min: float

    @classmethod
    def from_config(cls, config: TrainConfig, steps_per_epoch: int) -> "DepsSchedule":
        """The schedule of a run."""
        return cls(
            epochs=config.epochs,
            ramp_end=config.ramp_end,
            ramp_epochs=config.ramp_epochs,
            steps_per_epoch=steps_per_epoch,
            lr=config.lr,
            lr_min=config.lr * _FLOOR if config.lr_min is None else config.lr_min,
        )

    @property
    def steps(self) -> int:
        """All steps of the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def shrinking_step(self) -> int:
        """The first step with subnets, at epoch W - s; channels are sorted just before it."""
        return (self.ramp_end - self.ramp_epochs) * self.steps_per_epoch

    def lr_at(self, step: int) -> float:
        """η_t."""
        cosine = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.steps))
        return max(self.lr_min, cosine)

    def beta_at(self, step: int) -> float:
        """The weight of the subnets' gradients: 0 before W - s, 1 from W on."""
        if step < self.shrinking_step:
            return 0.0
        end = self.ramp_end * self.steps_per_epoch
        if step >= end:
            return 1.0
        ramp = (step - self.shrinking_step + 1) / (end - self.shrinking_step)
        return ramp * self.lr_at(end) / self.lr_at(step)
