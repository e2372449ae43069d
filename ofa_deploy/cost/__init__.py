"""Additive cost models: MACs, parameters, peak memory, and the base of latency models."""

from ofa_deploy.cost.additive import (
    AdditiveModel,
    as_population,
    macs_model,
    model_size_model,
    params_model,
    peak_memory_model,
)

__all__ = [
    "AdditiveModel",
    "as_population",
    "macs_model",
    "model_size_model",
    "params_model",
    "peak_memory_model",
]
