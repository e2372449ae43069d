"""Training methods: each makes a plan from its config."""

from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import (
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    ProgressiveConfig,
    TrainConfig,
)
from ofa_deploy.train.methods.bignas import bignas_plan
from ofa_deploy.train.methods.compofa import compofa_plan
from ofa_deploy.train.methods.deps import deps_plan
from ofa_deploy.train.methods.progressive import progressive_plan
from ofa_deploy.train.plan import Plan

__all__ = ["plan_for"]


def plan_for(config: TrainConfig, space: SearchSpace, steps_per_epoch: int) -> Plan:
    """The plan of a run.

    Args:
        steps_per_epoch: ``nB``.
    """
    match config:
        case DepsConfig():
            return deps_plan(config, steps_per_epoch)
        case BigNasConfig():
            return bignas_plan(config, steps_per_epoch)
        case ProgressiveConfig():
            return progressive_plan(config, space, steps_per_epoch)
        case CompOfaConfig():
            return compofa_plan(config, space, steps_per_epoch)
