"""Weights from elsewhere as a finished run: everything after training works on them."""

from collections.abc import Mapping
from pathlib import Path

from ofa_deploy.data import DataSplits
from ofa_deploy.files import exclusive, sha256_file, write_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet, load_checkpoint, save_tensors
from ofa_deploy.train.checkpoint import WEIGHTS, RunFile, check_init, claim_run
from ofa_deploy.train.config import ImportConfig
from ofa_deploy.train.trainer import check_classes

__all__ = ["adopt"]


def adopt(
    weights: Path,
    space: SearchSpace,
    data: DataSplits,
    run: Path,
    *,
    calibration: int = 2_000,
    threads: int = 2,
    data_options: Mapping[str, int | None] | None = None,
) -> RunFile:
    """Make ``run`` a finished run of a published checkpoint, or of a supernet's weights.

    Args:
        data: what its subnets are calibrated and judged on; labels as in the weights' training.
        calibration: training images whose statistics BN takes before a subnet is evaluated.

    Raises:
        MismatchError: if the weights do not fit the space, the data has another number of classes,
            or ``run`` holds another run.
    """
    check_classes(space, data)
    config = ImportConfig(
        init_sha256=sha256_file(weights), calibration=calibration, threads=threads
    )
    record = RunFile.begin(config, space, data, data_options)
    check_init(run, space, weights)
    with exclusive(run):
        claim_run(run, record)
        finished = RunFile.load(run)
        if finished.finished and not finished.gone(run):
            return finished
        net = Supernet(space)
        load_checkpoint(net, weights)
        sha256 = save_tensors(run / WEIGHTS, net.state_dict(), {"space": space.name})
        write_model(run / "run.json", record.model_copy(update={"weights_sha256": sha256}))
        return RunFile.load(run)
