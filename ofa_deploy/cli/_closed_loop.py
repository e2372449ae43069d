"""Search, prove on this device, and keep the subnet that stands: shared by two commands."""

from collections.abc import Sequence
from pathlib import Path

from ofa_deploy._progress import Progress
from ofa_deploy.errors import MismatchError
from ofa_deploy.export import DeviceExaminer
from ofa_deploy.hardware import LatencyTable, load_device
from ofa_deploy.predict import AccuracyModel, LatencyModel
from ofa_deploy.profiling import Protocol, conditions_here
from ofa_deploy.search import Constraint, Verified, search_verified
from ofa_deploy.supernet import save_subnet
from ofa_deploy.train import Evaluator

__all__ = ["check_here", "prove"]

PROTOCOL = Protocol()


def check_here(table: LatencyTable, *, mend: str) -> None:
    """See that this machine is the one that the table speaks of.

    Args:
        mend: what to do if it is not.

    Raises:
        MismatchError: naming what differs.
    """
    if table.reference is None:
        raise MismatchError(
            f"the latency table was imported ({table.source}): nothing measured here can be "
            f"compared with it; {mend}"
        )
    c = table.conditions
    here = conditions_here(
        load_device(c.device),
        runtime=c.runtime,
        precision=c.precision,
        batch=c.batch,
        threads=c.threads,
    )
    if different := c.differences(here):
        raise MismatchError(
            f"the latency table does not speak of this machine (table, here): "
            f"{', '.join(different)}; {mend}"
        )


def prove(
    evaluator: Evaluator,
    table: LatencyTable,
    accuracy: AccuracyModel,
    latency: LatencyModel,
    constraints: Sequence[Constraint],
    seed: int,
    name: str,
    progress: Progress,
) -> tuple[Verified, Path]:
    """The most accurate subnet measured to meet the constraints, and its file."""
    assert table.reference is not None, "check_here refuses imported tables"
    examiner = DeviceExaminer(
        evaluator,
        table.conditions,
        table.reference.ms,
        PROTOCOL,
        evaluator.run / "measurements",
        progress,
    )
    found = search_verified(
        evaluator.record.search_space,
        examiner,
        accuracy=accuracy,
        latency=latency,
        constraints=constraints,
        seed=seed,
    )
    path = save_subnet(
        evaluator.run / "subnets" / name,
        evaluator.cut(found.best.arch),
        evaluator.subnet_record(found.best.to_dict()),
    )
    return found, path
