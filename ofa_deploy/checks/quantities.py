"""Quantities as files give them: what no device, network or run can be beyond is refused.

Arithmetic on them then neither overflows nor ends in infinity.
"""

import math
import re
from typing import Annotated

from pydantic import Field

__all__ = [
    "LEAST_MS",
    "MOST_MS",
    "Count",
    "Energy",
    "Factor",
    "Milliseconds",
    "PositiveCount",
    "Spread",
    "decimal",
]

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_MOST = 2**63 - 1  # what numpy and ONNX count with

Count = Annotated[int, Field(ge=0, le=_MOST)]
PositiveCount = Annotated[int, Field(ge=1, le=_MOST)]
LEAST_MS, MOST_MS = 1e-9, 1e9  # from a picosecond to eleven days
Milliseconds = Annotated[float, Field(ge=LEAST_MS, le=MOST_MS)]
# In millijoules.
Energy = Annotated[float, Field(ge=0, le=1e12)]
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
# Of a measurement, relative to it.
Spread = Annotated[float, Field(ge=0, le=1e6)]


def decimal(text: str) -> float:
    """A number in plain digits; NaN for all else, infinity if it is too large for a float."""
    return float(text) if _DECIMAL.fullmatch(text) else math.nan
