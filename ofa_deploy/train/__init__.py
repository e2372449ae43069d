"""Training a supernet, with DεpS or a method to compare it with, resumable at any step."""

from ofa_deploy.train.adopt import adopt
from ofa_deploy.train.batches import Batches, draw_seed
from ofa_deploy.train.checkpoint import RunFile, RunRecord, deciding_versions, load_supernet
from ofa_deploy.train.config import (
    METHODS,
    BigNasConfig,
    Common,
    CompOfaConfig,
    DepsConfig,
    ImportConfig,
    ProgressiveConfig,
    TrainConfig,
    build_config,
)
from ofa_deploy.train.distill import DIVERGENCES
from ofa_deploy.train.evaluation import Evaluator
from ofa_deploy.train.forecast import Forecast, forecast
from ofa_deploy.train.loop import carry_out, check_ranks, train
from ofa_deploy.train.methods import plan_for
from ofa_deploy.train.pace import Pace, evaluation_macs, pace_of, time_steps
from ofa_deploy.train.plan import Opening, Pass, Phase, Phases, Plan, Rule
from ofa_deploy.train.ranks import ALONE, Ranks, here, joined
from ofa_deploy.train.rates import cosine, nth
from ofa_deploy.train.recipes import Recipe, get_recipe, recipe_names
from ofa_deploy.train.runner import Row, Runner
from ofa_deploy.train.standard import standard_archs
from ofa_deploy.train.step import StepSettings, build_optimizer, descend, train_step
from ofa_deploy.train.trainer import Trainer, check_fit

__all__ = [
    "ALONE",
    "DIVERGENCES",
    "METHODS",
    "Batches",
    "BigNasConfig",
    "Common",
    "CompOfaConfig",
    "DepsConfig",
    "Evaluator",
    "Forecast",
    "ImportConfig",
    "Opening",
    "Pace",
    "Pass",
    "Phase",
    "Phases",
    "Plan",
    "ProgressiveConfig",
    "Ranks",
    "Recipe",
    "Row",
    "Rule",
    "RunFile",
    "RunRecord",
    "Runner",
    "StepSettings",
    "TrainConfig",
    "Trainer",
    "adopt",
    "build_config",
    "build_optimizer",
    "carry_out",
    "check_fit",
    "check_ranks",
    "cosine",
    "deciding_versions",
    "descend",
    "draw_seed",
    "evaluation_macs",
    "forecast",
    "get_recipe",
    "here",
    "joined",
    "load_supernet",
    "nth",
    "pace_of",
    "plan_for",
    "recipe_names",
    "standard_archs",
    "time_steps",
    "train",
    "train_step",
]
