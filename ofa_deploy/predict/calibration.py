"""From a latency table to a model: its blocks, corrected by the whole networks it holds."""

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import InputError
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict.few_shot import fit_latency
from ofa_deploy.predict.latency import LatencyModel
from ofa_deploy.space import Arch, SearchSpace

__all__ = ["energy_model", "latency_model"]


def latency_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """The calibrated model of a table: its blocks, corrected by its calibration networks.

    Of an imported table, which has none, it is the plain sum, and its error unknown.

    Raises:
        MismatchError: if the table was made for another space.
    """
    table.check_for(space)
    blocks = AdditiveModel.from_blocks(space, table.value)
    if not table.networks:
        return LatencyModel(space, blocks.tables, offset=blocks.offset)
    model = fit_latency(space, *table.archs("calibration"), priors=[blocks])
    archs, ms = table.archs("holdout")
    if archs:
        model.judge(archs, ms)
    return model


def energy_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """Energy of an inference in mJ, from the same table in the same way.

    Raises:
        MismatchError: if the table was made for another space.
        InputError: if the device did not count energy while the table was measured.
    """
    table.check_for(space)
    networks = {
        role: [
            (Arch.from_dict(entry.arch), entry.latency.energy_mj)
            for entry in table.networks
            if entry.role == role and entry.latency.energy_mj
        ]
        for role in ("calibration", "holdout")
    }
    if len(networks["calibration"]) < 3:
        raise InputError(
            f"the table for {table.space} on {table.conditions.device} holds no energy: the device "
            "counted none, or its counters could not be read"
        )
    blocks = AdditiveModel.from_blocks(
        space, lambda block: table.blocks[block.key].energy_mj or 0.0
    )
    archs, energies = zip(*networks["calibration"], strict=True)
    model = fit_latency(space, archs, energies, priors=[blocks])
    if networks["holdout"]:
        archs, energies = zip(*networks["holdout"], strict=True)
        model.judge(archs, energies)
    return model
