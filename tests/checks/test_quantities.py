"""Quantities in files are bounded, so that no sum or product of them overflows."""

import math

import pytest
from pydantic import TypeAdapter, ValidationError

from ofa_deploy.checks import Count, Energy, Factor, Milliseconds, PositiveCount, Spread, decimal

BOUNDS = {
    "count": (Count, 0, 2**63 - 1),
    "positive count": (PositiveCount, 1, 2**63 - 1),
    "ms": (Milliseconds, 1e-9, 1e9),
    "energy": (Energy, 0.0, 1e12),
    "factor": (Factor, 1e-9, 1e9),
    "spread": (Spread, 0.0, 1e6),
}


@pytest.mark.parametrize(("kind", "least", "most"), BOUNDS.values(), ids=list(BOUNDS))
def test_bounds_hold_and_what_is_no_number_is_refused(
    kind: object, least: float, most: float
) -> None:
    adapter = TypeAdapter(kind)
    assert adapter.validate_python(least) == least
    assert adapter.validate_python(most) == most
    for value in (least - 1, most * 2, math.nan, math.inf, -math.inf, "many", None):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


@pytest.mark.parametrize("text", ["1", "-1.5", "+.5", "2.", "1e3", "1E-12", "007"])
def test_plain_decimals(text: str) -> None:
    assert decimal(text) == float(text)


@pytest.mark.parametrize("text", ["", " 1", "1_0", "nan", "inf", "0x1", "1e", ".", "٣", "1,5"])
def test_all_else_is_not_a_number(text: str) -> None:
    assert math.isnan(decimal(text))


def test_too_large_for_a_float_is_infinite() -> None:
    assert math.isinf(decimal("1e999"))
