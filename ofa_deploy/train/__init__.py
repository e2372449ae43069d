"""Training a supernet with DεpS, resumable at any step."""

from ofa_deploy.train.adopt import adopt
from ofa_deploy.train.checkpoint import RunFile, load_supernet
from ofa_deploy.train.config import ImportConfig, TrainConfig
from ofa_deploy.train.evaluation import Evaluator
from ofa_deploy.train.loop import Trainer, train
from ofa_deploy.train.passes import Pass, deps_passes
from ofa_deploy.train.schedule import DepsSchedule
from ofa_deploy.train.step import build_optimizer, train_step

__all__ = [
    "DepsSchedule",
    "Evaluator",
    "ImportConfig",
    "Pass",
    "RunFile",
    "TrainConfig",
    "Trainer",
    "adopt",
    "build_optimizer",
    "deps_passes",
    "load_supernet",
    "train",
    "train_step",
]
