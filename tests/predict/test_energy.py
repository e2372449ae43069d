"""Energy models: as latency models, from what the device counted."""

import numpy as np
import pytest

from ofa_deploy.errors import InputError
from ofa_deploy.hardware import BlockEntry, Conditions, LatencyTable, Measurement, NetworkEntry
from ofa_deploy.predict import energy_model, latency_model
from ofa_deploy.space import Block, SearchSpace


def entry(block: Block, energy: float | None) -> BlockEntry:
    return BlockEntry(
        ms=block.macs / 1e6,
        spread=0.01,
        count=10,
        macs=block.macs,
        params=block.params,
        bytes_moved=block.bytes_moved,
        energy_mj=energy,
    )


def table_of(space: SearchSpace, *, counted: bool) -> LatencyTable:
    """Energy is 2 mJ a kilobyte moved and 1 mJ a network; latency has nothing to do with it."""
    networks = []
    population = space.sample(np.random.default_rng(5), 24)
    for i, arch in enumerate(space.decode(population)):
        blocks = space.lower(arch)
        ms = sum(b.macs for b in blocks) / 1e6
        energy = 1 + 0.002 * sum(b.bytes_moved for b in blocks)
        measured = Measurement(
            ms=ms,
            p10=ms,
            p50=ms,
            p90=ms,
            p99=ms,
            spread=0,
            repeats=1,
            energy_mj=energy if counted else None,
        )
        role = "calibration" if i < 12 else "holdout"
        networks.append(NetworkEntry(arch=arch.to_dict(), role=role, latency=measured))
    return LatencyTable(
        space=space.name,
        classes=space.classes,
        fingerprint=space.fingerprint,
        conditions=Conditions(device="d", processor="p", runtime="r", runtime_version="1"),
        protocol={},
        date="2026-01-01",
        reference=networks[0].latency,
        blocks={
            b.key: entry(b, 0.001 * b.bytes_moved if counted else None) for b in space.blocks()
        },
        networks=tuple(networks),
    )


def test_energy_is_learned_apart_from_latency(tiny_space: SearchSpace) -> None:
    table = table_of(tiny_space, counted=True)
    model = energy_model(tiny_space, table)
    archs = [tiny_space.smallest, tiny_space.largest]
    expected = [1 + 0.002 * sum(b.bytes_moved for b in tiny_space.lower(a)) for a in archs]
    assert model.predict(archs) == pytest.approx(expected, rel=0.02)
    assert model.holdout is not None and model.holdout.mape < 1
    assert latency_model(tiny_space, table).predict(archs) != pytest.approx(expected, rel=0.1)


def test_device_that_counts_none(tiny_space: SearchSpace) -> None:
    with pytest.raises(InputError, match="holds no energy") as caught:
        energy_model(tiny_space, table_of(tiny_space, counted=False))
    assert "\n" not in str(caught.value)
