"""What is wrong with a latency table, or looks wrong."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import hypot
from operator import attrgetter
from typing import Literal

import numpy as np
import numpy.typing as npt

from ofa_deploy.errors import MismatchError, UnknownNameError
from ofa_deploy.hardware.table import LatencyTable
from ofa_deploy.hardware.table_import import resolutions_present
from ofa_deploy.space import Block, SearchSpace, get_space

__all__ = ["Finding", "check_table", "table_space"]

Floats = npt.NDArray[np.float64]

_SPREAD = 0.25  # beyond which profiling refuses a whole machine
_FEWEST = 12  # blocks of a kind from which a rule for the rest can be drawn
_FACTOR = 2.0  # what the rule may be off by: it knows nothing of caches and channel blocks
_DEVIATIONS = 5.0


@dataclass(frozen=True)
class Finding:
    """Something about a table, or one of its blocks.

    Attributes:
        kind: ``missing``, ``inconsistent`` (errors); ``unused``, ``unjudged``, ``noisy``,
            ``not monotone``, ``outlier`` (warnings).
        block: its key, or empty.
        what: in words.
        ms: what the table says; None where it says nothing.
    """

    kind: Literal[
        "missing", "inconsistent", "unused", "unjudged", "noisy", "not monotone", "outlier"
    ]
    block: str
    what: str
    ms: float | None = None

    @property
    def error(self) -> bool:
        """Whether the table must not be used as it is."""
        return self.kind in ("missing", "inconsistent")


def table_space(table: LatencyTable, space: SearchSpace | None = None) -> SearchSpace:
    """The space that a table was made for, with its classes and resolutions.

    Args:
        table: any.
        space: that space with any resolutions; the catalogue's of that name if not given.

    Raises:
        MismatchError: if it is another space, or cannot be found from the table alone.
    """
    hint = "name it with --space NAME, --classes and --resolutions, or with --run FOLDER"
    if space is None:
        try:
            space = get_space(table.space).with_classes(table.classes)
        except UnknownNameError:
            raise MismatchError(f"space {table.space} is not in the catalogue; {hint}") from None
    found = table.resolutions or resolutions_present(space, lambda b: b.key in table.blocks)
    for each in (space, space.with_resolutions(*(found or space.resolutions))):
        if each.fingerprint == table.fingerprint:
            return each
    raise MismatchError(
        f"the table was made for space {table.space} ({table.fingerprint}), which {space.name} "
        f"with {space.classes} classes is not, or it lacks a whole resolution; {hint}"
    )


def check_table(table: LatencyTable, space: SearchSpace) -> list[Finding]:
    """Everything about a table that a person should know before they believe it; errors first.

    Errors: blocks of the space that are missing, and entries whose MACs are not the block's.
    Warnings: spreads over 25 %; a larger block that takes less than a smaller one of the same kind,
    beyond the noise; and a block far from what the others of its kind suggest.

    Raises:
        MismatchError: if the table was made for another space.
    """
    table.check_for(space)
    blocks = {block.key: block for block in space.blocks()}
    known = [block for key, block in blocks.items() if key in table.blocks]
    findings = [
        Finding("missing", key, "a block of the space that the table lacks")
        for key in blocks
        if key not in table.blocks
    ]
    findings += _inconsistent(table, known)
    if more := len(table.blocks.keys() - blocks.keys()):
        findings.append(Finding("unused", "", f"{more} blocks that the space does not have"))
    if table.unjudged:
        findings.append(Finding("unjudged", "", table.unjudged))
    findings += [
        Finding("noisy", block.key, f"its timings spread over {entry.spread:.0%}", entry.ms)
        for block in known
        if (entry := table.blocks[block.key]).spread > _SPREAD
    ]
    return [*findings, *_outliers(table, known), *_not_monotone(table, known)]


def _inconsistent(table: LatencyTable, blocks: list[Block]) -> Iterator[Finding]:
    batch = table.conditions.batch
    for block in blocks:
        entry = table.blocks[block.key]
        if (entry.macs, entry.params) != (batch * block.macs, block.params):
            what = (
                f"computes {batch * block.macs:,} MACs with {block.params:,} parameters, the table "
                f"says {entry.macs:,} and {entry.params:,}"
            )
            yield Finding("inconsistent", block.key, what, entry.ms)


# -- larger blocks take longer --------------------------------------------------------------


_GROWS: dict[str, Callable[[Block], Block]] = {
    "size": lambda b: replace(b, size=1),
    "out_channels": lambda b: replace(b, out_channels=1),
    "in_channels": lambda b: replace(b, in_channels=1),
    # the units of a squeeze-excite follow the width
    "mid_channels": lambda b: replace(b, mid_channels=1, se=min(b.se, 1)),
    "kernel": lambda b: replace(b, kernel=1),
}


def _not_monotone(table: LatencyTable, blocks: list[Block]) -> Iterator[Finding]:
    """Each block that takes less than the next smaller one, alike in all but one respect.

    One finding a block.
    """
    told: set[str] = set()
    for name, rest in _GROWS.items():
        # an mbconv without its expansion is another kind of block
        groups: dict[Hashable, list[Block]] = {}
        for block in blocks:
            alike = rest(block), block.kind == "mbconv" and block.expands
            groups.setdefault(alike, []).append(block)
        for group in groups.values():
            group.sort(key=attrgetter(name))
            for smaller, block in pairwise(group):
                less, entry = table.blocks[smaller.key], table.blocks[block.key]
                noise = hypot(table.noise_ms(less), table.noise_ms(entry))
                if less.ms - entry.ms > noise and block.key not in told:
                    told.add(block.key)
                    what = (
                        f"takes {1 - entry.ms / less.ms:.0%} less than {smaller.key}, of smaller "
                        f"{name.replace('_', ' ')} and alike otherwise"
                    )
                    yield Finding("not monotone", block.key, what, entry.ms)


# -- one rule for all -----------------------------------------------------------------------


def _outliers(table: LatencyTable, blocks: list[Block]) -> Iterator[Finding]:
    """Blocks far from the rule of their kind.

    The rule: log ms is linear in log MACs, bytes and parameters, and depends on what kernels run;
    it is fitted with Tukey-weighted least squares, which a few wild entries cannot bend. Far is
    five robust standard deviations, at least a factor 2, and beyond the entry's noise.
    """
    kinds: dict[Hashable, list[Block]] = {}
    for block in blocks:
        # a stem and a 1x1 are too different for one rule
        sort = block.kernel if block.kind == "conv" else 0
        if block.params:
            kinds.setdefault((block.kind, sort), []).append(block)
    for of_kind in kinds.values():
        if len(of_kind) < _FEWEST:
            continue
        entries = [table.blocks[block.key] for block in of_kind]
        ms = np.array([entry.ms for entry in entries])
        expected, deviation = _robust_fit(_features(of_kind), np.log(ms))
        limit = max(_DEVIATIONS * deviation, np.log(_FACTOR))
        for block, entry, rule in zip(of_kind, entries, np.exp(expected), strict=True):
            off = abs(np.log(entry.ms / rule))
            if off > limit and abs(entry.ms - rule) > table.noise_ms(entry):
                what = f"{entry.ms / rule:.2f} times what the other {block.kind} blocks suggest"
                yield Finding("outlier", block.key, f"{what} ({rule:.4g} ms)", entry.ms)


def _features(blocks: list[Block]) -> Floats:
    columns: list[list[float]] = [
        [np.log(block.macs) for block in blocks],
        [np.log(block.bytes_moved) for block in blocks],
        [np.log(block.params) for block in blocks],
    ]
    traits: tuple[Callable[[Block], object], ...] = (
        lambda b: b.kernel,
        lambda b: b.stride,
        lambda b: b.activation,
        lambda b: b.se > 0,
        lambda b: b.expands,
    )
    for trait in traits:
        others = sorted({trait(block) for block in blocks}, key=str)[1:]
        columns += [[float(trait(block) == other) for block in blocks] for other in others]
    return np.column_stack([np.ones(len(blocks)), *columns])


def _robust_fit(features: Floats, target: Floats) -> tuple[Floats, float]:
    """(fitted values, robust standard deviation of what is left)."""
    weights = np.ones(len(target))
    fitted, deviation = np.zeros(len(target)), 0.0
    for _ in range(20):
        root = np.sqrt(weights)
        solution, *_ = np.linalg.lstsq(features * root[:, None], target * root, rcond=None)
        fitted = features @ solution
        left = target - fitted
        deviation = 1.4826 * float(np.median(np.abs(left)))
        scaled = left / max(4.685 * deviation, np.log(_FACTOR))  # Tukey's constant
        weights = np.clip(1 - scaled**2, 0, None) ** 2
    return fitted, deviation
