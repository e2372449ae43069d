"""Quantities as files give them: what no device, network or run can be beyond is refused.

Arithmetic on them then neither overflows nor ends in infinity.
"""

from typing import Annotated

from pydantic import Field

__all__ = ["Count", "Energy", "Factor", "Milliseconds", "PositiveCount", "Spread"]

_MOST = 2**63 - 1  # what numpy and ONNX count with

Count = Annotated[int, Field(ge=0, le=_MOST)]
PositiveCount = Annotated[int, Field(ge=1, le=_MOST)]
# From a picosecond to eleven days.
Milliseconds = Annotated[float, Field(ge=1e-9, le=1e9)]
# In millijoules.
Energy = Annotated[float, Field(ge=0, le=1e12)]
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
# Of a measurement, relative to it.
Spread = Annotated[float, Field(ge=0, le=1e6)]
