"""Learning rates by step, and settings by phase."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["cosine", "nth", "warmed_up"]

T = TypeVar("T")


def nth(values: Sequence[T], index: int) -> T:
    """The value at ``index``; the last stands for all further ones."""
    return values[min(index, len(values) - 1)]


def cosine(lr: float, step: int, steps: int) -> float:
    """Half a cosine from ``lr`` at step 0 to 0 at ``steps``."""
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


def warmed_up(lr: float, steps: int, then: Callable[[int], float]) -> Callable[[int], float]:
    """A rate that climbs linearly to ``lr`` in ``steps``, and goes on as ``then``."""
    return lambda step: lr * (step + 1) / steps if step < steps else then(step - steps)
