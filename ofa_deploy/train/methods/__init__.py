"""Training methods: each makes a plan from its config."""

from ofa_deploy.errors import InputError
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

    Raises:
        InputError: if it would have no step.
    """
    match config:
        case DepsConfig():
            plan = deps_plan(config, steps_per_epoch)
        case BigNasConfig():
            plan = bignas_plan(config, steps_per_epoch)
        case ProgressiveConfig():
            plan = progressive_plan(config, space, steps_per_epoch)
        case CompOfaConfig():
            plan = compofa_plan(config, space, steps_per_epoch)
    if not plan.steps:
        raise InputError(f"method {config.method}: every phase has 0 epochs, nothing would train")
    return plan
