"""From a space and a device to a latency table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from ofa_deploy.errors import InputError
from ofa_deploy.graph import build_empty, build_onnx
from ofa_deploy.hardware import (
    BlockEntry,
    Conditions,
    Device,
    LatencyTable,
    Measurement,
    NetworkEntry,
)
from ofa_deploy.profiling.agent.job import on_gpu
from ofa_deploy.profiling.choice import choose_networks
from ofa_deploy.profiling.measure import ALONE, REFERENCE, Turns, measure
from ofa_deploy.profiling.place import Here, Place, processor_of
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.subject import Subject
from ofa_deploy.space import Arch, Block, SearchSpace
from ofa_deploy.terminal import SILENT, Progress

__all__ = [
    "blocks_subject",
    "conditions_here",
    "network_subject",
    "profile_space",
    "reference_arch",
]

_EMPTY = "empty"


def reference_arch(space: SearchSpace) -> Arch:
    """The middle choice of every gene: what all measurements of a space are timed in turns with."""
    row = np.array([[(len(gene.choices) - 1) // 2 for gene in space.genes]], np.int8)
    return space.decode(space.mask_inactive(row))[0]


def network_subject(space: SearchSpace, arch: Arch, *, batch: int = 1) -> Subject:
    """A whole network with random weights, as something to time."""
    return blocks_subject(space.lower(arch), batch)


def blocks_subject(blocks: Sequence[Block], batch: int = 1) -> Subject:
    """Blocks that follow one another, with random weights, as something to time."""
    first = blocks[0]
    return Subject(partial(build_onnx, blocks), (batch, first.in_channels, first.size, first.size))


def conditions_here(
    device: Device,
    target: Place | None = None,
    /,
    *,
    runtime: str,
    precision: str,
    batch: int,
    threads: int,
) -> Conditions:
    """The conditions of a measurement on this machine, or on ``target``.

    Raises:
        InputError: if the device does not offer the runtime or precision.
        DeviceError: if the target has no such runtime.
    """
    device.check_offers(runtime, precision)
    place = target or Here()
    return Conditions(
        device=device.id,
        processor=processor_of(place, gpu=on_gpu(runtime)),
        runtime=runtime,
        runtime_version=place.version(runtime),
        precision=precision,
        batch=batch,
        threads=threads,
        power_mode=place.told.power_mode,
    )


def profile_space(
    space: SearchSpace,
    device: Device,
    *,
    runtime: str = "onnxruntime",
    precision: str = "fp32",
    batch: int = 1,
    threads: int = 1,
    protocol: Protocol | None = None,
    minutes: float = 5.0,
    calibration: int = 24,
    holdout: int = 24,
    seed: int = 0,
    journal: Path | None = None,
    target: Place | None = None,
    progress: Progress = SILENT,
    turns: Turns = ALONE,
    kept: Callable[[Path], None] | None = None,
) -> LatencyTable:
    """Measure every block of ``space``, and some whole networks, in turns with one reference.

    Args:
        protocol: how often to time what; the usual, cut short after ``minutes``, if not given.
        minutes: about how long to measure, once all graphs are built.
        calibration: whole networks, chosen to be informative, that correct the sum of blocks.
        holdout: others, drawn at random and evenly over resolutions, that only judge the result.
        journal: a folder that keeps finished work, so that an interrupted run goes on.
        target: where ``device`` is reached; None is this machine.
        turns: for tables that are measured beside each other.
        kept: told the journal's file, which is of no use once the table is on disk.

    Raises:
        InputError: if the device does not offer what is asked.
        NoisyDeviceError: if the machine would not stand still.
        DeviceError: if a process failed, the target is not reached any more, or the device is not
            as its file demands.
    """
    if calibration < 4 or holdout < 2:
        raise InputError("expected at least 4 calibration networks, and 2 holdout ones")
    conditions = conditions_here(
        device, target, runtime=runtime, precision=precision, batch=batch, threads=threads
    )
    networks = choose_networks(space, calibration, holdout, seed)
    blocks = {block.key: block for block in space.blocks()}
    subjects = {
        _EMPTY: Subject(build_empty, (batch, 1)),
        **{key: blocks_subject((block,), batch) for key, block in blocks.items()},
        **{
            f"network {i}": network_subject(space, arch, batch=batch)
            for i, (arch, _) in enumerate(networks)
        },
    }
    taken = measure(
        subjects,
        network_subject(space, reference_arch(space), batch=batch),
        runtime=runtime,
        precision=precision,
        threads=threads,
        protocol=protocol,
        minutes=None if protocol else minutes,
        journal=journal,
        target=target,
        device=device,
        progress=progress,
        label=f"profile {len(blocks)} blocks, {len(networks)} networks",
        turns=turns,
    )
    if kept is not None and taken.journal is not None:
        kept(taken.journal)
    return LatencyTable(
        space=space.name,
        classes=space.classes,
        fingerprint=space.fingerprint,
        resolutions=space.resolutions,
        conditions=conditions,
        protocol={**asdict(protocol or Protocol()), **({} if protocol else {"minutes": minutes})},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        other_load=taken.other_load,
        telemetry=taken.telemetry,
        windows=taken.windows,
        rejected=taken.rejected,
        throttled=taken.throttled,
        empty_ms=taken[_EMPTY].ms,
        reference=taken[REFERENCE],
        blocks={key: _entry(b, taken[key], taken[_EMPTY].ms, batch) for key, b in blocks.items()},
        networks=tuple(
            NetworkEntry(arch=arch.to_dict(), role=role, latency=taken[f"network {i}"])
            for i, (arch, role) in enumerate(networks)
        ),
    )


def _entry(block: Block, measured: Measurement, empty_ms: float, batch: int) -> BlockEntry:
    return BlockEntry.of(
        block,
        ms=max(measured.ms - empty_ms, 1e-6),
        spread=measured.spread,
        count=measured.repeats,
        batch=batch,
        energy_mj=measured.energy_mj,
    )
