"""BigNAS (Yu et al. 2020): the sandwich from the first step, at an exponentially falling rate.

The largest learns from labels; the smallest and random ones from its live soft labels. The rate
decays by a constant factor an epoch, and stays at a share of its start (``lr_floor``).
"""

from ofa_deploy.train.config import BigNasConfig
from ofa_deploy.train.plan import Phase, Plan, Rule

__all__ = ["bignas_plan"]


def bignas_plan(config: BigNasConfig, steps_per_epoch: int) -> Plan:
    """One phase."""
    rules = (
        Rule("largest", dropout=True),
        Rule("smallest", target="teacher"),
        *(Rule("random", target="teacher"),) * config.random_subnets,
    )

    def lr(step: int) -> float:
        return config.lr * max(config.lr_floor, float(config.decay ** (step / steps_per_epoch)))

    return Plan((Phase("sandwich", config.epochs * steps_per_epoch, lr, lambda _: rules),))
