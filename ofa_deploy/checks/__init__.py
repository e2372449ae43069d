"""What values from files and settings may be, and how it is said what is wrong with them."""

from ofa_deploy.checks.quantities import Count, Energy, Factor, Milliseconds, PositiveCount, Spread
from ofa_deploy.checks.validation import problem

__all__ = [
    "Count",
    "Energy",
    "Factor",
    "Milliseconds",
    "PositiveCount",
    "Spread",
    "problem",
]
