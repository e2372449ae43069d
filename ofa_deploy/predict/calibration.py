"""From a latency table to a model: its blocks, corrected by the whole networks it holds."""

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.hardware import LatencyTable
from ofa_deploy.predict.few_shot import fit_latency
from ofa_deploy.predict.latency import LatencyModel
from ofa_deploy.space import SearchSpace

__all__ = ["latency_model"]


def latency_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """The calibrated model of a table: its blocks, corrected by its calibration networks.

    Raises:
        MismatchError: if the table was made for another space.
    """
    table.check_for(space)
    blocks = AdditiveModel.from_blocks(space, table.value)
    model = fit_latency(space, *table.archs("calibration"), priors=[blocks])
    archs, ms = table.archs("holdout")
    if archs:
        model.judge(archs, ms)
    return model
