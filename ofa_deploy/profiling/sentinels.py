"""Does a table still speak of this device? A few blocks, measured again in seconds, tell."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import hypot, log2
from typing import Literal

import numpy as np

from ofa_deploy.errors import MismatchError
from ofa_deploy.hardware import Device, LatencyTable, Measurement, load_device
from ofa_deploy.profiling.measure import REFERENCE, measure
from ofa_deploy.profiling.place import Place
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.space_table import (
    blocks_subject,
    conditions_here,
    network_subject,
    reference_arch,
)
from ofa_deploy.space import Block, SearchSpace
from ofa_deploy.terminal import SILENT, Progress

__all__ = [
    "Sentinel",
    "SentinelCheck",
    "changed_conditions",
    "check_sentinels",
    "choose_sentinels",
]

Verdict = Literal["holds", "rescaled", "apart", "unsure"]

_SECONDS = 4.0  # of timing; starting processes and building graphs comes on top
_UNSURE = 0.25  # noise, relative, beyond which a block is too small to be a sentinel
# Relative. The blocks of two whole tables differ by 2 % in the median once at one level
# (benchmarks/latency.py --repeat); this protocol is shorter.
_LEAST_NOISE = 0.03
# The level is the reference's 10th percentile, which varies by 1.4 % between processes where
# medians vary by 6 %; both it and the table's are one draw, and it is three deviations.
_LEAST_LEVEL_NOISE = 0.06
_TWICE = 2.0
_BUSY = 0.25  # share that other programs use, beyond which blocks suffer differently


@dataclass(frozen=True)
class Sentinel:
    """A block measured again.

    Attributes:
        block: its key.
        table_ms, now_ms: of the block and an empty graph's overhead together.
        noise: how far ``ratio`` may be from the common one by chance, relative.
        moved: ``ratio`` over the common ratio, less 1.
    """

    block: str
    table_ms: float
    now_ms: float
    noise: float
    moved: float

    @property
    def ratio(self) -> float:
        """Now over then."""
        return self.now_ms / self.table_ms

    @property
    def beyond_noise(self) -> bool:
        """Whether chance does not explain that it moved otherwise than the others."""
        return abs(self.moved) > self.noise


@dataclass(frozen=True)
class SentinelCheck:
    """What the sentinels say.

    Attributes:
        scale: now over then, common to all: the median of blocks and reference.
        scale_noise: how far it may be from 1 by chance.
        other_load: share of the machine that other programs used meanwhile, 0 to 1.
    """

    sentinels: tuple[Sentinel, ...]
    scale: float
    scale_noise: float
    other_load: float

    @property
    def verdict(self) -> Verdict:
        """Whether the table holds, holds once rescaled, or must be made anew.

        ``apart`` needs two sentinels beyond their noise, or one beyond twice that: of ten, chance
        takes one beyond it now and then. ``unsure`` is what would have been a change on a quiet
        machine, on one that is not: other programs slow blocks down by what they compete for.
        """
        if self._moved_apart:
            return "unsure" if self._busy else "apart"
        if abs(self.scale - 1) <= _LEAST_LEVEL_NOISE:
            return "holds"
        if self._busy:
            return "unsure"
        return "rescaled" if abs(self.scale - 1) > self.scale_noise else "unsure"

    @property
    def _busy(self) -> bool:
        return self.other_load > _BUSY

    @property
    def _moved_apart(self) -> bool:
        beyond = [each for each in self.sentinels if each.beyond_noise]
        return len(beyond) > 1 or any(abs(each.moved) > _TWICE * each.noise for each in beyond)

    def __str__(self) -> str:
        times = f"the device runs at {self.scale:.3g} times the table's latencies"
        quiet = "too noisy to tell, try again when the device is quiet"
        busy_quiet = f"but other programs are at work: {quiet}"
        match self.verdict:
            case "holds":
                text = f"the device runs as in the table ({self.scale - 1:+.1%})"
            case "unsure" if self._moved_apart:
                text = f"{self._apart}, {busy_quiet}"
            case "unsure" if self._busy:
                text = f"{times}, {busy_quiet}"
            case "unsure":
                text = f"{times}, give or take {self.scale_noise:.0%}: {quiet}"
            case "rescaled":
                text = f"{times}, every block alike: clocks, heat or power"
            case "apart":
                text = f"{self._apart}: another driver, runtime or kernels"
        busy = f"; other programs used {self.other_load:.0%} of the machine meanwhile"
        return text + (busy if self.other_load > 0.1 else "")

    @property
    def _apart(self) -> str:
        beyond = [each for each in self.sentinels if each.beyond_noise]
        farthest = max(beyond, key=lambda each: abs(each.moved))
        return (
            f"{len(beyond)} of {len(self.sentinels)} blocks moved otherwise than the rest, "
            f"{farthest.block} farthest ({farthest.ratio - 1:+.1%}, the rest {self.scale - 1:+.1%})"
        )

    def confirmed_by(self, again: "SentinelCheck") -> "SentinelCheck":
        """Of each sentinel the time of the two that moved less: chance seldom strikes twice."""
        pairs = zip(self.sentinels, again.sentinels, strict=True)
        return replace(
            again,
            sentinels=tuple(min(pair, key=lambda each: abs(each.moved)) for pair in pairs),
            other_load=max(self.other_load, again.other_load),
        )


def changed_conditions(
    table: LatencyTable, device: str, *, mend: str, target: Place | None = None
) -> list[str]:
    """What changed on the machine that a table speaks of: its runtime's version or power mode.

    Args:
        table: whose machine this must be.
        device: what this machine is called.
        mend: what to do if it is another.
        target: where it is; None is here.

    Returns:
        Each change as ``name (table, here)``.

    Raises:
        MismatchError: if this is not the table's machine, or the table was imported.
    """
    if table.reference is None:
        raise MismatchError(
            f"the latency table was imported ({table.source}): nothing measured here can be "
            f"compared with it; {mend}"
        )
    c = table.conditions
    here = conditions_here(
        load_device(device),
        target,
        runtime=c.runtime,
        precision=c.precision,
        batch=c.batch,
        threads=c.threads,
    )
    same = {"runtime_version": here.runtime_version, "power_mode": here.power_mode}
    if c.model_copy(update=same) != here:
        raise MismatchError(
            f"the latency table does not speak of this machine (table, here): "
            f"{', '.join(c.differences(here))}; {mend}"
        )
    return c.differences(here)


def choose_sentinels(table: LatencyTable, space: SearchSpace, count: int = 10) -> tuple[Block, ...]:
    """Blocks to measure again: the slowest that between them show every trait there is.

    Traits are the kind, kernel, stride, squeeze-excite, activation, expansion, and the octave of
    ms. Each choice adds the most traits not seen yet, and of those is the slowest. Blocks so small
    that noise would hide a change are left out where there are others.
    """
    blocks = [block for block in space.blocks() if block.key in table.blocks]
    sure = [b for b in blocks if _noise(table, b) < _UNSURE * table.blocks[b.key].ms]
    left = sure if len(sure) >= count else blocks
    chosen: list[Block] = []
    seen: set[Hashable] = set()

    def gain(block: Block) -> tuple[int, float, str]:
        return len(_traits(table, block) - seen), table.blocks[block.key].ms, block.key

    while left and len(chosen) < count:
        best = max(left, key=gain)
        chosen.append(best)
        seen |= _traits(table, best)
        left = [block for block in left if block is not best]
    return tuple(chosen)


def _noise(table: LatencyTable, block: Block) -> float:
    return table.noise_ms(table.blocks[block.key])


def _traits(table: LatencyTable, block: Block) -> set[Hashable]:
    traits: dict[str, Hashable] = {
        "kind": block.kind,
        "kernel": (block.kind, block.kernel),
        "stride": (block.kind, block.stride),
        "se": block.se > 0,
        "activation": block.activation,
        "expands": block.expands,
        "octave": round(log2(table.blocks[block.key].ms)),
    }
    return set(traits.items())


def check_sentinels(
    table: LatencyTable,
    space: SearchSpace,
    *,
    count: int = 10,
    protocol: Protocol | None = None,
    target: Place | None = None,
    device: Device | None = None,
    progress: Progress = SILENT,
) -> SentinelCheck:
    """Measure about ten of a table's blocks again, in seconds, here or on ``target``.

    ``device`` holds the cores, pauses and limits that the table was measured with.

    This machine, or the target, must be the one that the table speaks of; what may differ is what
    this is to find out. All is timed in turns with the table's reference network, so that a
    block's change shows apart from the machine's. Before blocks are said to have moved apart, all
    are measured once more.

    Raises:
        MismatchError: if the table is of another space, or was imported and has no reference.
        NoisyDeviceError: if the machine moves too much to tell anything.
    """
    table.check_for(space)
    if table.reference is None:
        raise MismatchError(
            f"the latency table was imported ({table.source}): it has no reference network that "
            "could be measured again; profile the device"
        )
    blocks = choose_sentinels(table, space, count)
    check = partial(
        _check,
        table,
        space,
        blocks,
        protocol=protocol or _short(table, blocks),
        target=target,
        device=device,
        progress=progress,
    )
    found = check()
    return found.confirmed_by(check()) if found.verdict == "apart" else found


def _check(
    table: LatencyTable,
    space: SearchSpace,
    blocks: Sequence[Block],
    *,
    protocol: Protocol,
    target: Place | None,
    device: Device | None,
    progress: Progress,
) -> SentinelCheck:
    assert table.reference is not None
    c = table.conditions
    taken = measure(
        {block.key: blocks_subject((block,), c.batch) for block in blocks},
        network_subject(space, reference_arch(space), batch=c.batch),
        runtime=c.runtime,
        precision=c.precision,
        threads=c.threads,
        protocol=protocol,
        target=target,
        device=device,
        progress=progress,
        label=f"measure {len(blocks)} sentinel blocks",
    )
    before = [table.blocks[block.key].ms + table.empty_ms for block in blocks]
    level = taken[REFERENCE].ms / table.reference.ms
    now = [taken[block.key].ms for block in blocks]
    scale = float(np.median([*np.divide(now, before), level]))
    spreads = hypot(table.reference.spread, taken[REFERENCE].spread)
    return SentinelCheck(
        tuple(_sentinel(table, block, taken[block.key], scale) for block in blocks),
        scale,
        max(spreads, _LEAST_LEVEL_NOISE),
        taken.other_load,
    )


def _sentinel(table: LatencyTable, block: Block, now: Measurement, scale: float) -> Sentinel:
    was = table.blocks[block.key].ms + table.empty_ms
    return Sentinel(
        block=block.key,
        table_ms=was,
        now_ms=now.ms,
        noise=hypot(max(_noise(table, block) / was, _LEAST_NOISE), max(now.spread, _LEAST_NOISE)),
        moved=now.ms / was / scale - 1,
    )


def _short(table: LatencyTable, blocks: Sequence[Block]) -> Protocol:
    """A protocol whose timing takes seconds, however slow the device is."""
    usual = Protocol(runs=5, processes=3)
    assert table.reference is not None
    runs = usual.runs + usual.discard
    times = [table.blocks[b.key].ms + table.empty_ms for b in blocks] + [table.reference.ms]
    round_s = runs * sum(times) / 1e3
    rounds = int(_SECONDS / (usual.processes * round_s))
    return Protocol(runs=5, processes=3, rounds=min(30, max(4, rounds)))
