"""Constraints, evolutionary search, and the closed loop that proves its answer. Torch-free."""

import sys
from types import ModuleType
from typing import Any

from ofa_deploy.pareto import ParetoFront
from ofa_deploy.search.constraints import Constraint, parse_constraint
from ofa_deploy.search.evolution import search
from ofa_deploy.search.front_file import FrontFile
from ofa_deploy.search.problem import Metric, Problem
from ofa_deploy.search.verify import Examiner, Verified, search_verified

__all__ = [
    "Constraint",
    "Examiner",
    "FrontFile",
    "Metric",
    "Problem",
    "Verified",
    "parse_constraint",
    "search",
    "search_verified",
]


class _Callable(ModuleType):
    """Importing this package binds it as ``ofa_deploy.search``, where the function belongs too."""

    def __call__(self, *args: Any, **kwargs: Any) -> ParetoFront:
        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
