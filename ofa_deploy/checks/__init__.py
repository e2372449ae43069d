"""What values from files and settings may be, and how it is said what is wrong with them."""

from ofa_deploy.checks.quantities import (
    LEAST_MS,
    MOST_MS,
    Count,
    Energy,
    Factor,
    Milliseconds,
    PositiveCount,
    Spread,
    decimal,
)
from ofa_deploy.checks.validation import problem

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
    "problem",
]
