"""Latency tables with whole networks, whose figures are made up."""

import numpy as np

from ofa_deploy.hardware import Conditions, LatencyTable, NetworkEntry
from ofa_deploy.space import SearchSpace
from tests.tables import SOMEWHERE, measurement, table_of

__all__ = ["measured_table", "on"]


def on(device: str, precision: str = "fp32") -> Conditions:
    return SOMEWHERE.model_copy(update={"device": device, "precision": precision})


def measured_table(
    space: SearchSpace, device: str = "bench", slow: float = 1.0, precision: str = "fp32"
) -> LatencyTable:
    """Blocks, and whole networks of which the slowest runs take twice the usual."""
    conditions = on(device, precision)
    plain = table_of(space, lambda block: slow * block.macs / 1e6, conditions=conditions)
    macs = {
        arch: space.cost(arch).macs
        for arch in space.decode(space.sample(np.random.default_rng(3), 30))
    }
    networks = tuple(
        NetworkEntry(
            arch=arch.to_dict(),
            role="calibration" if i < 15 else "holdout",
            latency=measurement(
                slow * cost / 1e6, p90=1.5 * slow * cost / 1e6, p99=2 * slow * cost / 1e6
            ),
        )
        for i, (arch, cost) in enumerate(macs.items())
    )
    return plain.model_copy(update={"networks": networks})
