"""Training a supernet with DεpS, resumable at any step."""

from ofa_deploy.train.adopt import adopt
from ofa_deploy.train.checkpoint import RunFile, load_supernet
from ofa_deploy.train.config import (
    METHODS,
    BigNasConfig,
    CompOfaConfig,
    DepsConfig,
    ImportConfig,
    ProgressiveConfig,
    TrainConfig,
    build_config,
)
from ofa_deploy.train.evaluation import Evaluator
from ofa_deploy.train.forecast import Forecast, forecast
from ofa_deploy.train.loop import train
from ofa_deploy.train.methods import plan_for
from ofa_deploy.train.plan import Opening, Pass, Phase, Plan, Rule
from ofa_deploy.train.ranks import ALONE, Ranks, joined
from ofa_deploy.train.recipes import Recipe, get_recipe, recipe_names
from ofa_deploy.train.standard import standard_archs
from ofa_deploy.train.step import build_optimizer, train_step
from ofa_deploy.train.trainer import Trainer

__all__ = [
    "ALONE",
    "METHODS",
    "BigNasConfig",
    "CompOfaConfig",
    "DepsConfig",
    "Evaluator",
    "Forecast",
    "ImportConfig",
    "Opening",
    "Pass",
    "Phase",
    "Plan",
    "ProgressiveConfig",
    "Ranks",
    "Recipe",
    "Rule",
    "RunFile",
    "TrainConfig",
    "Trainer",
    "adopt",
    "build_config",
    "build_optimizer",
    "forecast",
    "get_recipe",
    "joined",
    "load_supernet",
    "plan_for",
    "recipe_names",
    "standard_archs",
    "train",
    "train_step",
]
