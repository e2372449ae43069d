"""What changed between two latency tables, beyond the noise."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from ofa_deploy.errors import MismatchError
from ofa_deploy.hardware.table import LatencyTable

__all__ = ["Moved", "TableDiff", "diff_tables"]


@dataclass(frozen=True)
class Moved:
    """A block or network that is in both tables.

    Attributes:
        name: the block's key, or the network's genes.
        before, after: ms in either table.
        noise: how far ``after`` may be from ``ratio * before`` by chance, in ms.
        moved: by how much it is, in ms, once the ratio that all have in common is taken out.
    """

    name: str
    before: float
    after: float
    noise: float
    moved: float

    @property
    def beyond_noise(self) -> bool:
        """Whether chance does not explain it."""
        return abs(self.moved) > self.noise


@dataclass(frozen=True)
class TableDiff:
    """What changed from one table to another.

    Attributes:
        conditions: those that differ, each as ``name (before, after)``.
        ratio: after/before that all blocks have in common: half of the time was spent in blocks
            that changed by more.
        ratio_noise: how far it may be from 1 by chance.
        only_before, only_after: blocks that the other table lacks.
        blocks, networks: those in both, moved most first.
    """

    conditions: tuple[str, ...]
    ratio: float
    ratio_noise: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    blocks: tuple[Moved, ...]
    networks: tuple[Moved, ...]

    @property
    def level_moved(self) -> bool:
        """Whether everything changed by one factor, beyond the noise."""
        return abs(self.ratio - 1) > self.ratio_noise

    @property
    def moved(self) -> tuple[Moved, ...]:
        """The blocks that changed otherwise than all, beyond the noise; by ms moved."""
        return tuple(each for each in self.blocks if each.beyond_noise)


# The level of a whole table is the 10th percentile of a reference's timings, which repeats within
# 1.4 % where medians repeat within 6 %; three times that, and the same again for the other table.
_LEVEL_NOISE = 0.05


def diff_tables(a: LatencyTable, b: LatencyTable) -> TableDiff:
    """What changed from ``a`` to ``b``.

    A block's noise joins both entries': ``hypot(ratio * noise in a, noise in b)``, each at least
    2 % (see ``LatencyTable.noise_ms``). Spreads are ranges over a few processes, about twice the
    error of one, so that chance exceeds it about once in some hundred blocks.

    Raises:
        MismatchError: if they have no block in common.
    """
    common = [key for key in a.blocks if key in b.blocks]
    if not common:
        raise MismatchError(
            f"the tables have no block in common: {a.space} ({len(a.blocks)} blocks), "
            f"{b.space} ({len(b.blocks)} blocks)"
        )
    before = [a.blocks[key].ms for key in common]
    after = [b.blocks[key].ms for key in common]
    ratio = weighted_median(np.divide(after, before).tolist(), before)
    blocks = [
        Moved(key, was, now, hypot(ratio * a.noise_ms(a.blocks[key]), b.noise_ms(b.blocks[key])),
              now - ratio * was)
        for key, was, now in zip(common, before, after, strict=True)
    ]  # fmt: skip
    return TableDiff(
        conditions=tuple(a.conditions.differences(b.conditions)),
        ratio=ratio,
        ratio_noise=hypot(_level_noise(a), _level_noise(b)),
        only_before=tuple(key for key in a.blocks if key not in b.blocks),
        only_after=tuple(key for key in b.blocks if key not in a.blocks),
        blocks=_ranked(blocks),
        networks=_ranked(_networks(a, b, ratio)),
    )


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The value at which half of the weight lies below and half above."""
    order = np.argsort(values, kind="stable")
    weight = np.cumsum(np.asarray(weights)[order])
    return float(np.asarray(values)[order][np.searchsorted(weight, weight[-1] / 2)])


def _level_noise(table: LatencyTable) -> float:
    spread = table.reference.spread if table.reference else 0.0
    return max(spread, _LEVEL_NOISE) / sqrt(2)


def _ranked(moves: Sequence[Moved]) -> tuple[Moved, ...]:
    return tuple(sorted(moves, key=lambda each: (-abs(each.moved), each.name)))


def _networks(a: LatencyTable, b: LatencyTable, ratio: float) -> list[Moved]:
    """Whole networks that were measured for both tables."""
    known = {json.dumps(e.arch, sort_keys=True): e.latency for e in a.networks}
    found = []
    for entry in b.networks:
        name = json.dumps(entry.arch, sort_keys=True)
        if name in known:
            was, now = known[name], entry.latency
            noise = hypot(ratio * was.spread * was.ms, now.spread * now.ms)
            least = _LEVEL_NOISE * now.ms
            found.append(Moved(name, was.ms, now.ms, max(noise, least), now.ms - ratio * was.ms))
    return found
