"""From a latency table to models: its blocks, corrected by the whole networks it holds."""

from collections.abc import Callable, Sequence

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import InputError
from ofa_deploy.hardware import LatencyTable, Measurement
from ofa_deploy.predict.few_shot import fit_latency
from ofa_deploy.predict.latency import LatencyModel
from ofa_deploy.space import Arch, SearchSpace

__all__ = ["energy_model", "latency_model"]


def latency_model(
    space: SearchSpace,
    table: LatencyTable,
    percentile: str = "",
    *,
    also: tuple[Sequence[Arch], Sequence[float]] = ((), ()),
) -> LatencyModel:
    """The calibrated model of a table: its blocks, corrected by its calibration networks.

    Of an imported table, which has none, it is the plain sum, and its error unknown.

    Args:
        space: the table's, or that with fewer resolutions.
        percentile: ``p10``, ``p50``, ``p90`` or ``p99`` of single runs, instead of the latency.
        also: further networks of the space, measured under the table's conditions, to learn from.

    Raises:
        MismatchError: if the table was made for another space.
        InputError: if a percentile is asked of a table without whole networks.
    """
    own = _space_of(space, table)
    blocks = AdditiveModel.from_blocks(own, table.value)
    if table.networks:
        name = percentile or "ms"
        model = _calibrated(own, table, blocks, lambda measured: getattr(measured, name), also)
    elif percentile:
        raise InputError(
            f"the latency table for {table.space} on {table.conditions.device} has no whole "
            f"networks, so nothing is known of {percentile}: profile the device"
        )
    else:
        model = LatencyModel(own, blocks.tables, offset=blocks.offset)
    return model if own is space else model.onto(space)


def energy_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """Energy of an inference in mJ, from the same table in the same way.

    Raises:
        MismatchError: if the table was made for another space.
        InputError: if the device did not count energy while the table was measured, or not that
            of every block.
    """
    own = _space_of(space, table)
    if sum(bool(e.latency.energy_mj) for e in table.networks if e.role == "calibration") < 3:
        raise InputError(
            f"the table for {table.space} on {table.conditions.device} holds no energy: the device "
            "counted none, or its counters could not be read"
        )
    if unknown := [key for key, entry in table.blocks.items() if entry.energy_mj is None]:
        raise InputError(
            f"the table for {table.space} on {table.conditions.device} lacks the energy of "
            f"{len(unknown)} of {len(table.blocks)} blocks, such as {unknown[0]}: profile for more "
            "minutes"
        )
    blocks = AdditiveModel.from_blocks(own, lambda block: table.blocks[block.key].energy_mj or 0.0)
    model = _calibrated(own, table, blocks, lambda measured: measured.energy_mj)
    return model if own is space else model.onto(space)


def _space_of(space: SearchSpace, table: LatencyTable) -> SearchSpace:
    own = space.with_resolutions(*table.resolutions) if table.resolutions else space
    table.check_for(own)
    return space if own.fingerprint == space.fingerprint else own


def _calibrated(
    space: SearchSpace,
    table: LatencyTable,
    blocks: AdditiveModel,
    value: Callable[[Measurement], float | None],
    also: tuple[Sequence[Arch], Sequence[float]] = ((), ()),
) -> LatencyModel:
    """Blocks corrected by the calibration networks of which there is a value, and judged."""

    def known(role: str) -> tuple[list[Arch], list[float]]:
        pairs = [
            (Arch.from_dict(entry.arch), measured)
            for entry in table.networks
            if entry.role == role and (measured := value(entry.latency))
        ]
        return [arch for arch, _ in pairs], [measured for _, measured in pairs]

    archs, measured = known("calibration")
    model = fit_latency(space, [*archs, *also[0]], [*measured, *also[1]], priors=[blocks])
    archs, measured = known("holdout")
    if archs:
        model.judge(archs, measured)
    return model
