"""More from a subnet at the same latency: fine-tuning, imitation of a wide parent, sparse tickets.

All on the training loop of ``ofa_deploy.train``; what comes out is a subnet or several.
"""

from ofa_deploy.specialize.bridges import Student, bridge_mode, merge
from ofa_deploy.specialize.config import (
    METHODS,
    DistillConfig,
    DstConfig,
    EdstConfig,
    FinetuneConfig,
    SpecializeConfig,
    WideNarrowConfig,
    build_specialize_config,
)
from ofa_deploy.specialize.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ofa_deploy.specialize.cost import StepCost, forecast_macs, layer_macs
from ofa_deploy.specialize.judge import judge, member_probabilities
from ofa_deploy.specialize.latency import measured_latency
from ofa_deploy.specialize.masks import Masks, erk_densities, live_counts, maskable
from ofa_deploy.specialize.plan import Imitate, Learn, SpecialPhase, SpecialPlan, specialize_plan
from ofa_deploy.specialize.quality import diversity, quality
from ofa_deploy.specialize.recipes import recipe_data, specialize_recipe, specialize_recipes
from ofa_deploy.specialize.run import (
    SpecializeFile,
    find_parent,
    load_parent,
    parent_shape,
    specialize,
    time_specialize,
)
from ofa_deploy.specialize.runner import Specialist
from ofa_deploy.specialize.units import Parent, check_parent, units_of

__all__ = [
    "CORRUPTIONS",
    "METHODS",
    "SEVERITIES",
    "DistillConfig",
    "DstConfig",
    "EdstConfig",
    "FinetuneConfig",
    "Imitate",
    "Learn",
    "Masks",
    "Parent",
    "SpecialPhase",
    "SpecialPlan",
    "Specialist",
    "SpecializeConfig",
    "SpecializeFile",
    "StepCost",
    "Student",
    "WideNarrowConfig",
    "bridge_mode",
    "build_specialize_config",
    "check_parent",
    "corrupt",
    "diversity",
    "erk_densities",
    "find_parent",
    "forecast_macs",
    "judge",
    "layer_macs",
    "live_counts",
    "load_parent",
    "maskable",
    "measured_latency",
    "member_probabilities",
    "merge",
    "parent_shape",
    "quality",
    "recipe_data",
    "specialize",
    "specialize_plan",
    "specialize_recipe",
    "specialize_recipes",
    "time_specialize",
    "units_of",
]
