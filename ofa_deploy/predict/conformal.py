"""Intervals with a stated coverage from errors on networks that a fit had not seen."""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["COVERAGE", "conformal_margin"]

COVERAGE = 0.9


def conformal_margin(errors: npt.NDArray[np.float64]) -> float:
    """The split-conformal quantile of absolute errors (Vovk et al. 2005), for ``COVERAGE``.

    Fewer than nine errors cannot vouch for so much: the widest among n covers n of n + 1.

    Args:
        errors: of networks drawn like those that the margin is for; none negative.
    """
    rank = min(len(errors), math.ceil((len(errors) + 1) * COVERAGE))
    return float(np.sort(errors)[rank - 1])
