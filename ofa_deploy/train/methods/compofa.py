"""CompOFA (Sahni et al. 2021): progressive shrinking over a few networks that are worth it.

In each stage the depth fixes the expansion ratio: the greatest with the greatest, and so on. After
the teacher, each phase opens one depth more (and one width, where these are elastic); that is all
there is to shrink.
"""

from ofa_deploy.space import SearchSpace
from ofa_deploy.train.config import CompOfaConfig
from ofa_deploy.train.methods.progressive import (
    frozen_first,
    most_choices,
    opening_phase,
    teacher_phase,
)
from ofa_deploy.train.plan import Opening, Plan, Rule
from ofa_deploy.train.rates import nth

__all__ = ["compofa_plan"]


def compofa_plan(config: CompOfaConfig, space: SearchSpace, steps_per_epoch: int) -> Plan:
    """The teacher, then one phase for each further depth."""
    phases = [teacher_phase(config.teacher_epochs * steps_per_epoch, config.lr, config.lr_min)]
    for n in range(1, most_choices(space, "depth", "width")):
        opening = Opening(depths=n + 1, expands=n + 1, widths=n + 1, coupled=True)
        phases.append(
            opening_phase(
                f"compound {n}",
                (Rule("random", target="labels+frozen", opening=opening),) * config.subnets,
                steps=nth(config.phase_epochs, n - 1) * steps_per_epoch,
                warm_up=(config.warmup_epochs if n > 1 else 0) * steps_per_epoch,
                lr=nth(config.phase_lr, n - 1) * config.lr,
                lr_min=config.lr_min,
                start=("sort channels", "restart optimizer"),
            )
        )
    return frozen_first(phases)
