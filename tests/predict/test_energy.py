"""Energy models: as latency models, from what the device counted."""

import numpy as np
import pytest

from ofa_deploy.errors import InputError
from ofa_deploy.hardware import BlockEntry, LatencyTable, NetworkEntry
from ofa_deploy.predict import energy_model, latency_model
from ofa_deploy.space import SearchSpace
from tests.tables import measurement, table_of


def counting(space: SearchSpace, *, counted: bool) -> LatencyTable:
    """Energy is 2 mJ a kilobyte moved and 1 mJ a network; latency has nothing to do with it."""
    networks = []
    population = space.sample(np.random.default_rng(5), 24)
    for i, arch in enumerate(space.decode(population)):
        blocks = space.lower(arch)
        ms = sum(b.macs for b in blocks) / 1e6
        energy = 1 + 0.002 * sum(b.bytes_moved for b in blocks)
        measured = measurement(ms, energy_mj=energy if counted else None)
        role = "calibration" if i < 12 else "holdout"
        networks.append(NetworkEntry(arch=arch.to_dict(), role=role, latency=measured))
    blocks = {
        b.key: BlockEntry.of(
            b,
            ms=b.macs / 1e6,
            spread=0.01,
            count=10,
            energy_mj=0.001 * b.bytes_moved if counted else None,
        )
        for b in space.blocks()
    }
    return table_of(space, lambda block: 1.0, blocks=blocks, networks=tuple(networks))


def test_energy_is_learned_apart_from_latency(tiny_space: SearchSpace) -> None:
    table = counting(tiny_space, counted=True)
    model = energy_model(tiny_space, table)
    archs = [tiny_space.smallest, tiny_space.largest]
    expected = [1 + 0.002 * sum(b.bytes_moved for b in tiny_space.lower(a)) for a in archs]
    assert model.predict(archs) == pytest.approx(expected, rel=0.02)
    assert model.holdout is not None and model.holdout.mape < 1
    assert latency_model(tiny_space, table).predict(archs) != pytest.approx(expected, rel=0.1)


def test_device_that_counts_none(tiny_space: SearchSpace) -> None:
    with pytest.raises(InputError, match="holds no energy") as caught:
        energy_model(tiny_space, counting(tiny_space, counted=False))
    assert "\n" not in str(caught.value)
