"""Search, prove on this device, and keep the subnet that stands: shared by two commands."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ofa_deploy.cli.tables_check import profile_anew
from ofa_deploy.errors import MismatchError, NoisyDeviceError
from ofa_deploy.export import export_target
from ofa_deploy.export.examiner import DeviceExaminer, measurable
from ofa_deploy.hardware import LatencyTable, known_device
from ofa_deploy.pareto import Candidate
from ofa_deploy.predict import AccuracyModel, LatencyModel, latency_model, refit_accuracy
from ofa_deploy.profiling import Protocol, changed_conditions, check_sentinels
from ofa_deploy.search import (
    Constraint,
    GeneConstraint,
    Learner,
    Models,
    Verified,
    search_verified,
)
from ofa_deploy.search.constraints import split_metric
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import save_subnet
from ofa_deploy.terminal import Progress
from ofa_deploy.train import Evaluator

__all__ = ["as_of_now", "check_here", "keep", "prove"]

PROTOCOL = Protocol()


def check_here(table: LatencyTable, *, mend: str) -> None:
    """See that this machine is the one that the table speaks of.

    Args:
        mend: what to do if it is not.

    Raises:
        MismatchError: naming what differs.
    """
    if changed := changed_conditions(table, table.conditions.device, mend=mend):
        raise MismatchError(
            f"the latency table was measured under other conditions (table, here): "
            f"{', '.join(changed)}; {mend}"
        )


def as_of_now(table: LatencyTable, space: SearchSpace, progress: Progress) -> LatencyTable:
    """The table, rescaled if the device now runs at another speed; says what it found.

    Measures some blocks again, in seconds. Where they moved apart, or nothing can be told, the
    table stays as it is, with a warning.
    """
    try:
        device = known_device(table.conditions.device)
        found = check_sentinels(table, space, device=device, progress=progress)
    except NoisyDeviceError as error:
        progress.say(f"warning: cannot tell whether the latency table still holds: {error}")
        return table
    match found.verdict:
        case "holds":
            progress.say(f"latency table: {found}")
        case "unsure":
            progress.say(f"warning: latency table: {found}")
        case "apart":
            progress.say(
                f"warning: latency table: {found}; predictions may be off, profile anew: "
                f"{profile_anew(table, space)}"
            )
        case "rescaled":
            progress.say(f"warning: latency table: {found}; searching with all of it rescaled")
            return table.scaled(found.scale)
    return table


def prove(
    evaluator: Evaluator,
    table: LatencyTable,
    models: Models,
    constraints: Sequence[Constraint | GeneConstraint],
    seed: int,
    progress: Progress,
    *,
    learn: bool = True,
) -> Verified:
    """The most accurate subnet measured to meet the constraints.

    Args:
        learn: take what was measured back into the models and search again until the answer stands.
    """
    assert table.reference is not None, "check_here refuses imported tables"
    examiner = DeviceExaminer(
        evaluator,
        table.conditions,
        table.reference.ms,
        PROTOCOL,
        evaluator.run / "measurements",
        progress,
        models.whole(table),
        measurable(table),
    )
    found = search_verified(
        models.space,
        examiner,
        accuracy=models.accuracy,
        latency=models.latency,
        metrics=models.metrics,
        constraints=constraints,
        learn=_learner(models, table) if learn else None,
        seed=seed,
    )
    target = export_target(table.conditions.runtime, table.conditions.precision)
    return replace(found, best=replace(found.best, target=target))


def keep(evaluator: Evaluator, best: Candidate, name: str) -> Path:
    """Write a subnet that stands; its file."""
    return save_subnet(
        evaluator.run / "subnets" / name,
        evaluator.cut(best.arch),
        evaluator.subnet_record(best.to_dict()),
    )


def _learner(models: Models, table: LatencyTable) -> Learner:
    """All models but that of energy, fitted anew with what was measured of candidates."""

    def learn(
        examined: Sequence[Candidate],
    ) -> tuple[AccuracyModel, LatencyModel, dict[str, LatencyModel]]:
        archs = [c.arch for c in examined]

        def timed(metric: str) -> LatencyModel:
            also = (archs, [c.measured[metric] for c in examined])
            return latency_model(models.space, table, split_metric(metric)[2], also=also)

        accuracy = refit_accuracy(models.accuracy, archs, [c.measured["top1"] for c in examined])
        others = {
            name: timed(name) if split_metric(name)[0] == "latency" else model
            for name, model in models.metrics.items()
        }
        return accuracy, timed("latency"), others

    return learn
