"""Spaces that differ in resolutions only: what they share, and how their rows correspond."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MismatchError
from ofa_deploy.space.search_space import SearchSpace

__all__ = ["choices_within", "common_space"]


def choices_within(space: SearchSpace, known: SearchSpace) -> tuple[npt.NDArray[np.int8], ...]:
    """For each gene of ``space``, where each of its choices stands among those of ``known``.

    Raises:
        MismatchError: if the spaces differ in more than resolutions, or ``known`` lacks one.
    """
    _check_alike(space, known)
    if missing := [r for r in space.resolutions if r not in known.resolutions]:
        raise MismatchError(
            f"space {space.name} has {', '.join(map(str, missing))} pixels, which is not known: "
            f"there are {', '.join(map(str, known.resolutions))}"
        )
    return tuple(
        np.array([before.choices.index(choice) for choice in gene.choices], np.int8)
        for gene, before in zip(space.genes, known.genes, strict=True)
    )


def common_space(spaces: Sequence[SearchSpace]) -> SearchSpace:
    """The space of the resolutions that all of them have.

    Raises:
        MismatchError: if they differ in more than resolutions, or share none.
    """
    first, *others = spaces
    for other in others:
        _check_alike(first, other)
    shared = reduce(set.intersection, (set(space.resolutions) for space in spaces))
    if not shared:
        listed = "; ".join(", ".join(map(str, space.resolutions)) for space in spaces)
        raise MismatchError(f"no resolution is known to all of: {listed}")
    return first.with_resolutions(*shared)


def _check_alike(space: SearchSpace, other: SearchSpace) -> None:
    if space.with_resolutions(*other.resolutions).fingerprint != other.fingerprint:
        raise MismatchError(
            f"spaces {space.name} ({space.classes} classes) and {other.name} ({other.classes} "
            "classes) differ in more than their resolutions"
        )
