"""Models of latency and accuracy, fitted to a few measurements. Torch-free."""

from ofa_deploy.predict.accuracy import AccuracyModel, load_accuracy_model
from ofa_deploy.predict.accuracy_fit import fit_accuracy, refit_accuracy
from ofa_deploy.predict.choose import choose_subnets
from ofa_deploy.predict.few_shot import fit_latency
from ofa_deploy.predict.latency import HoldoutError, LatencyModel
from ofa_deploy.predict.ofa_mlp import MLP_RESOLUTIONS, ofa_mlp
from ofa_deploy.predict.table_model import energy_model, latency_model

__all__ = [
    "MLP_RESOLUTIONS",
    "AccuracyModel",
    "HoldoutError",
    "LatencyModel",
    "choose_subnets",
    "energy_model",
    "fit_accuracy",
    "fit_latency",
    "latency_model",
    "load_accuracy_model",
    "ofa_mlp",
    "refit_accuracy",
]
