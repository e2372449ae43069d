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
from ofa_deploy.specialize.cost import Macs, PhaseMacs, StepCost, forecast_macs, layer_macs
from ofa_deploy.specialize.ensemble import (
    Ensemble,
    EnsembleFile,
    load_ensemble,
    load_members,
    save_ensemble,
    stored_bytes,
)
from ofa_deploy.specialize.graph import PROBABILITIES, ensemble_onnx
from ofa_deploy.specialize.judge import Judged, judge, member_probabilities
from ofa_deploy.specialize.latency import measured_latency
from ofa_deploy.specialize.masks import Masks, erk_densities, live_counts, maskable
from ofa_deploy.specialize.plan import Imitate, Learn, SpecialPhase, SpecialPlan, specialize_plan
from ofa_deploy.specialize.quality import Diversity, Quality, diversity, quality
from ofa_deploy.specialize.recipes import recipe_data, specialize_recipe, specialize_recipes
from ofa_deploy.specialize.run import (
    SpecializeFile,
    find_parent,
    load_parent,
    parent_shape,
    specialize,
)
from ofa_deploy.specialize.runner import Specialist, Ticket
from ofa_deploy.specialize.units import Parent, Unit, check_parent, units_of

__all__ = [
    "CORRUPTIONS",
    "METHODS",
    "PROBABILITIES",
    "SEVERITIES",
    "DistillConfig",
    "Diversity",
    "DstConfig",
    "EdstConfig",
    "Ensemble",
    "EnsembleFile",
    "FinetuneConfig",
    "Imitate",
    "Judged",
    "Learn",
    "Macs",
    "Masks",
    "Parent",
    "PhaseMacs",
    "Quality",
    "SpecialPhase",
    "SpecialPlan",
    "Specialist",
    "SpecializeConfig",
    "SpecializeFile",
    "StepCost",
    "Student",
    "Ticket",
    "Unit",
    "WideNarrowConfig",
    "bridge_mode",
    "build_specialize_config",
    "check_parent",
    "corrupt",
    "diversity",
    "ensemble_onnx",
    "erk_densities",
    "find_parent",
    "forecast_macs",
    "judge",
    "layer_macs",
    "live_counts",
    "load_ensemble",
    "load_members",
    "load_parent",
    "maskable",
    "measured_latency",
    "member_probabilities",
    "merge",
    "parent_shape",
    "quality",
    "recipe_data",
    "save_ensemble",
    "specialize",
    "specialize_plan",
    "specialize_recipe",
    "specialize_recipes",
    "stored_bytes",
    "units_of",
]
