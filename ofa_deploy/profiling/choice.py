"""Which whole networks to measure beside the blocks."""

from itertools import zip_longest
from typing import Literal

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import InputError
from ofa_deploy.space import Arch, Population, SearchSpace

__all__ = ["Role", "choose_networks", "features"]

Role = Literal["calibration", "holdout"]
_POOL = 2_000
_RIDGE = 0.01

Floats = npt.NDArray[np.float64]


def choose_networks(
    space: SearchSpace, calibration: int, holdout: int, seed: int
) -> list[tuple[Arch, Role]]:
    """Distinct networks and their roles, the same for the same seed.

    Holdout networks, and two thirds of those for calibration, are drawn at random and evenly over
    resolutions: what holds for most networks is learned from such. The others are the smallest, the
    largest, and from a random pool whichever a linear model of the ``features`` knows least about
    (greedy D-optimal design, Fedorov 1972): searches pick from the edges of a space too.

    Raises:
        InputError: if the space has too few networks.
    """
    rng = np.random.default_rng([seed, 0xCA11])
    informative = max(2, calibration // 3)
    usual = calibration - informative
    drawn = _evenly(space, holdout + usual, rng)
    judges, learned = drawn[:holdout], drawn[holdout:]
    pool = [space.smallest, space.largest, *space.decode(space.sample(rng, _POOL))]
    taken = set(drawn)
    pool = [arch for arch in dict.fromkeys(pool) if arch not in taken]
    if len(learned) < usual or len(pool) < informative:
        raise InputError(
            f"space {space.name} has too few networks for {calibration} calibration and "
            f"{holdout} holdout ones"
        )
    chosen = _informative(features(space, space.encode(pool)), informative)
    return [
        *((pool[row], "calibration") for row in chosen),
        *((arch, "calibration") for arch in learned),
        *((arch, "holdout") for arch in judges),
    ]


def _evenly(space: SearchSpace, count: int, rng: np.random.Generator) -> list[Arch]:
    """Distinct random networks, as many of each resolution as can be."""
    drawn = dict.fromkeys(space.decode(space.sample(rng, 40 * count)))
    groups: dict[int, list[Arch]] = {size: [] for size in space.resolutions}
    for arch in drawn:
        if arch not in (space.smallest, space.largest):
            groups[arch.resolution].append(arch)
    turns = zip_longest(*groups.values())
    return [arch for turn in turns for arch in turn if arch is not None][:count]


def features(space: SearchSpace, population: Population) -> Floats:
    """What a network is, in few numbers; shape (n, columns).

    How many blocks have each kernel, each expansion ratio; one column a choice of every gene that
    is not a block's (resolution, depths, widths); and a constant.
    """
    columns: dict[tuple[str, int], npt.NDArray[np.float64]] = {}
    for column, gene in enumerate(space.genes):
        kind = gene.name if gene.block < 0 else gene.name.partition("[")[0]
        for choice in range(len(gene.choices)):
            has = (population[:, column] == choice).astype(np.float64)
            columns[kind, choice] = columns.get((kind, choice), 0.0) + has
    raw = np.column_stack([*columns.values(), np.ones(len(population))])
    scaled: Floats = raw / np.maximum(np.abs(raw).max(axis=0), 1.0)
    return scaled


def _informative(rows: Floats, count: int) -> list[int]:
    """Rows that determine a linear model best; the first two are always among them."""
    covariance = np.eye(rows.shape[1]) / _RIDGE
    chosen: list[int] = []
    for turn in range(count):
        variance = np.einsum("ij,jk,ik->i", rows, covariance, rows)
        variance[chosen] = -np.inf
        row = turn if turn < 2 else int(variance.argmax())
        chosen.append(row)
        known = covariance @ rows[row]  # Sherman and Morrison 1950
        covariance -= np.outer(known, known) / (1 + rows[row] @ known)
    return chosen
