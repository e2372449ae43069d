"""Models of latency and accuracy, fitted to a few measurements. Torch-free."""

from ofa_deploy.predict.accuracy import AccuracyModel, fit_accuracy, load_accuracy_model
from ofa_deploy.predict.calibration import energy_model, latency_model
from ofa_deploy.predict.few_shot import fit_latency
from ofa_deploy.predict.latency import HoldoutError, LatencyModel

__all__ = [
    "AccuracyModel",
    "HoldoutError",
    "LatencyModel",
    "energy_model",
    "fit_accuracy",
    "fit_latency",
    "latency_model",
    "load_accuracy_model",
]
