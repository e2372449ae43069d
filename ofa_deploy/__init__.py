"""Once-for-all networks for your device: train, profile, search, export, prove.

The names below are the public face. They are imported on first use, so that searching and
``--help`` never load torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime would keep a record of each use and send it to its makers; read when it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.hardware import LatencyTable, import_tables
    from ofa_deploy.pareto import Candidate, ParetoFront
    from ofa_deploy.predict import fit_accuracy, fit_latency, latency_model, load_accuracy_model
    from ofa_deploy.search import search
    from ofa_deploy.space import Arch, SearchSpace, get_space
    from ofa_deploy.supernet import (
        Supernet,
        import_accuracy_model,
        load_published_weights,
        recalibrate,
    )

__all__ = [
    "Arch",
    "Candidate",
    "LatencyTable",
    "OfaDeployError",
    "ParetoFront",
    "SearchSpace",
    "Supernet",
    "fit_accuracy",
    "fit_latency",
    "get_space",
    "import_accuracy_model",
    "import_tables",
    "latency_model",
    "load_accuracy_model",
    "load_published_weights",
    "recalibrate",
    "search",
]

_HOMES = {
    "ofa_deploy.errors": ("OfaDeployError",),
    "ofa_deploy.hardware": ("LatencyTable", "import_tables"),
    "ofa_deploy.pareto": ("Candidate", "ParetoFront"),
    "ofa_deploy.predict": (
        "fit_accuracy",
        "fit_latency",
        "latency_model",
        "load_accuracy_model",
    ),
    "ofa_deploy.search": ("search",),
    "ofa_deploy.space": ("Arch", "SearchSpace", "get_space"),
    "ofa_deploy.supernet": (
        "Supernet",
        "import_accuracy_model",
        "load_published_weights",
        "recalibrate",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ofa_deploy' has no attribute {name!r}")
    home = import_module(_HOME_OF[name])
    # The package ``search`` is callable; a function in its place would hide its modules.
    value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
