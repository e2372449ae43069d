"""Which subnets to measure next, for an accuracy model to learn most.

One after the other, the network is taken whose measurement makes the candidates' accuracies least
uncertain on the whole (Cohn, Ghahramani and Jordan 1996). A Gaussian process's uncertainty does not
depend on what will be measured, so a batch is chosen at once, each knowing those before it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofa_deploy.cost import as_population
from ofa_deploy.errors import InputError
from ofa_deploy.predict.accuracy import AccuracyModel
from ofa_deploy.predict.features import features_of
from ofa_deploy.predict.gaussian_process import Numbers, fit_process
from ofa_deploy.space import Arch, Population, SearchSpace

__all__ = ["choose_subnets"]

Floats = npt.NDArray[np.float64]

_LOOKED_AT = 1_500  # candidates: what is chosen hardly gains from more
_MOST = 1_000
_TRIES = 8


def choose_subnets(
    model: AccuracyModel | SearchSpace,
    count: int,
    *,
    measured: "Sequence[Arch] | Population" = (),
    candidates: "Sequence[Arch] | Population | None" = None,
    rng: np.random.Generator,
) -> list[Arch]:
    """The subnets to measure next.

    Args:
        model: what is known so far, or a space of which nothing is: then the smallest and the
            largest network come first, unless there are ``candidates``.
        measured: networks to leave out; those of the model are left out anyway.
        candidates: what to choose among, random networks of the space when not given. What is
            chosen makes these certain, so give those that matter.
        rng: for drawing networks, and 1,500 of the candidates if there are more.

    Returns:
        As many as asked, all different, the most informative first.

    Raises:
        InputError: if ``count`` is not between 1 and 1,000, or too few networks are left.
    """
    if not 1 <= count <= _MOST:
        raise InputError(f"expected 1 to {_MOST} subnets to choose, found {count}")
    space = model if isinstance(model, SearchSpace) else model.space
    whole, numbers, known = _knowledge(model)
    archs = space.decode(as_population(space, measured))
    known = np.concatenate([known, whole.encode(archs)])
    if candidates is None:
        first = [space.smallest, space.largest] if isinstance(model, SearchSpace) else []
        pool = _drawn(space, count + len(known), rng)
    else:
        first = []
        pool = as_population(space, candidates)
    chosen = _without(whole.encode(list(dict.fromkeys(first))), known)[:count]
    known = np.concatenate([known, chosen])
    pool = _without(whole.encode(space.decode(np.unique(pool, axis=0))), known)
    left = count - len(chosen)
    if len(pool) < left:
        raise InputError(
            f"expected {count} networks that are not measured yet, found {len(chosen) + len(pool)} "
            f"{'of ' + space.name if candidates is None else 'candidates'}; ask for fewer"
        )
    if len(pool) > _LOOKED_AT:
        pool = rng.choice(pool, _LOOKED_AT, replace=False)
    chosen = np.concatenate([chosen, pool[_informative(whole, numbers, known, pool, left)]])
    return whole.decode(chosen)


def _knowledge(model: AccuracyModel | SearchSpace) -> tuple[SearchSpace, Numbers, Population]:
    """The space that rows are written in, a covariance's numbers, and what was measured."""
    if isinstance(model, SearchSpace) or not len(model.measured[0]):
        space = model if isinstance(model, SearchSpace) else model.space
        return (
            space,
            Numbers.prior(features_of(space).groups),
            np.empty((0, len(space.genes)), np.int8),
        )
    space, (rows, top1) = model.fitted_space, model.measured
    features = features_of(space)
    return space, fit_process(features(rows), features.groups, top1).numbers, rows


def _drawn(space: SearchSpace, enough: int, rng: np.random.Generator) -> Population:
    """Different random networks, ``enough`` of them if the space is not too small."""
    draws = max(_LOOKED_AT, 2 * enough)
    for _ in range(_TRIES):
        rows = np.unique(space.sample(rng, draws), axis=0)
        if len(rows) >= min(enough, space.num_archs):
            break
        draws *= 2
    return rows


def _without(rows: Population, known: Population) -> Population:
    """The rows that are not among the known."""
    taken = {row.tobytes() for row in known}
    return rows[[row.tobytes() not in taken for row in rows]]


def _informative(
    space: SearchSpace, numbers: Numbers, known: Population, pool: Population, count: int
) -> list[int]:
    """Indices into the pool, the most informative first."""
    features = features_of(space)
    kernel, (*_, noise) = numbers.covariance(), numbers.others
    x = numbers.scaled(features(pool))
    unsure = kernel(x, x)
    if len(known):
        seen = numbers.scaled(features(known))
        shared = kernel(seen, x)
        unsure -= shared.T @ np.linalg.solve(kernel(seen), shared)
    chosen: list[int] = []
    open_ = np.ones(len(pool), bool)
    for _ in range(count):
        own = np.diag(unsure) + noise
        gain = np.where(open_, (unsure**2).sum(0) / own, -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        open_[best] = False
        unsure -= np.outer(unsure[best], unsure[best] / own[best])
    return chosen
