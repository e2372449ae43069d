"""DεpS, delayed ε-shrinking (arXiv 2407.06167): train the largest alone first, then shrink.

``T`` epochs, the ramp of ``s`` epochs ends at epoch ``W``, ``nB`` steps an epoch; one cosine over
the whole run. The largest subnet trains alone before epoch ``W - s``. Then channels are sorted,
once, and every step trains the largest on labels and the smallest and random ones on its live soft
labels. During the ramp the subnets' gradients are weighted by

    β = r · η_W / η_t,    r = steps into the ramp / (s · nB),

so that their effective rate β·η_t climbs linearly from 0 to η_W. From W on, β = 1.
"""

from ofa_deploy.train.config import DepsConfig
from ofa_deploy.train.plan import Phase, Plan, Rule
from ofa_deploy.train.rates import cosine

__all__ = ["deps_plan"]

_FLOOR = 2.5e-3 / 2.6  # the paper's η_min over its η0


def deps_plan(config: DepsConfig, steps_per_epoch: int) -> Plan:
    """Warm-up, ramp, and the rest."""
    floor = config.lr * _FLOOR if config.lr_min is None else config.lr_min
    steps = config.epochs * steps_per_epoch
    shrinking = (config.ramp_end - config.ramp_epochs) * steps_per_epoch
    end = config.ramp_end * steps_per_epoch

    def lr(step: int) -> float:
        return max(floor, cosine(config.lr, step, steps))

    def beta(step: int) -> float:
        return (step - shrinking + 1) / (end - shrinking) * lr(end) / lr(step)

    def sandwich(weight: float) -> tuple[Rule, ...]:
        return (
            largest,
            Rule("smallest", weight, "teacher"),
            *(Rule("random", weight, "teacher"),) * config.random_subnets,
        )

    largest = Rule("largest", dropout=True)
    phases = (
        Phase("warm-up", shrinking, lr, lambda _: (largest,)),
        Phase(
            "ramp",
            end - shrinking,
            lambda step: lr(shrinking + step),
            lambda step: sandwich(beta(shrinking + step)),
            ("sort channels",),
        ),
        Phase(
            "shrink",
            steps - end,
            lambda step: lr(end + step),
            lambda _: sandwich(1.0),
            () if config.ramp_epochs else ("sort channels",),
        ),
    )
    return Plan(tuple(phase for phase in phases if phase.steps))
