"""The best networks under constraints, and the closed loop that proves them. Torch-free."""

import sys
from types import ModuleType
from typing import Any

from ofa_deploy.pareto import ParetoFront
from ofa_deploy.search.certificate import Certificate, certify
from ofa_deploy.search.constraints import Constraint, GeneConstraint, parse_constraint
from ofa_deploy.search.domain import Domain
from ofa_deploy.search.evolution import search
from ofa_deploy.search.exact import Optimum, best_within
from ofa_deploy.search.front_file import FrontFile
from ofa_deploy.search.models import (
    Models,
    for_device,
    latency_metrics,
    metric_for_device,
    metric_on_tables,
    models_of,
    on_tables,
    shared_space,
)
from ofa_deploy.search.plan import Plan, Reach, check_untrained, plan
from ofa_deploy.search.problem import Metric, Problem, parse_objectives
from ofa_deploy.search.verify import (
    Examiner,
    Learner,
    Verified,
    best_of,
    check_provable,
    search_verified,
)

__all__ = [
    "Certificate",
    "Constraint",
    "Domain",
    "Examiner",
    "FrontFile",
    "GeneConstraint",
    "Learner",
    "Metric",
    "Models",
    "Optimum",
    "Plan",
    "Problem",
    "Reach",
    "Verified",
    "best_of",
    "best_within",
    "certify",
    "check_provable",
    "check_untrained",
    "for_device",
    "latency_metrics",
    "metric_for_device",
    "metric_on_tables",
    "models_of",
    "on_tables",
    "parse_constraint",
    "parse_objectives",
    "plan",
    "search",
    "search_verified",
    "shared_space",
]


class _Callable(ModuleType):
    """Importing this package binds it as ``ofa_deploy.search``, where the function belongs too."""

    def __call__(self, *args: Any, **kwargs: Any) -> ParetoFront:
        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
