"""Linear algebra that gives the same answer on every number of threads."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["one_blas_thread"]

P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose matrix products are summed in one order, whatever the number of threads.

    For matrices of some hundred rows one thread is no slower.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        import scipy.linalg  # noqa: F401 - its BLAS is another than numpy's, and must be there

        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited
