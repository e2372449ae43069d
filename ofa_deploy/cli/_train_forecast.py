"""What a run would do and cost, as ``ofa-deploy train --dry-run`` tells it."""

from typing import TYPE_CHECKING

from ofa_deploy.cli._output import OutputFormat, emit, say
from ofa_deploy.cli._settings import list_settings
from ofa_deploy.errors import TrainingDivergedError
from ofa_deploy.terminal import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from ofa_deploy.data import DataSplits
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.train import Forecast, Pace, Ranks, TrainConfig

__all__ = ["tell_forecast", "tell_time"]


def tell_forecast(
    config: "TrainConfig",
    space: "SearchSpace",
    data: "DataSplits",
    ranks: "Ranks",
    *,
    quiet: bool,
) -> None:
    """The phases, the cost, the memory and all settings; and about how long it takes here."""
    from ofa_deploy.train import Batches, check_fit, forecast, plan_for

    check_fit(config, space, data)
    steps = Batches(config, data.train, space.resolutions[-1]).steps_per_epoch
    found = forecast(config, space, plan_for(config, space, steps))
    emit(
        [
            {
                "phase": phase.name,
                "epochs": phase.steps / steps,
                "steps": phase.steps,
                "first": ", ".join(phase.start),
                "passes": phase.passes,
                "weight": "{:.3g} to {:.3g}".format(*phase.weight),
                "lr": "{:.3g}, {:.3g}, {:.3g}".format(*phase.lr),
                "macs": f"{phase.macs:.3g}",
            }
            for phase in found.phases
        ],
        OutputFormat.table,
        title=f"{config.method} on {space.name}, {len(data.train):,} images",
    )
    print(
        f"in all {found.macs:.3g} multiply-accumulates, forward and backward (random subnets as "
        f"their mean); memory of a process: weights, gradients and momentum "
        f"{found.weight_bytes / 2**20:.0f} MiB, activations about "
        f"{found.activation_bytes / 2**20:,.0f} MiB for each pass at work"
    )
    list_settings(config)
    if ranks.count == 1 and not quiet:  # several would have to step together
        tell_time(lambda: _timed(config, space, data, found, ranks))


def _timed(
    config: "TrainConfig",
    space: "SearchSpace",
    data: "DataSplits",
    found: "Forecast",
    ranks: "Ranks",
) -> "tuple[Pace, tuple[float, float]]":
    from ofa_deploy.train import evaluation_macs, time_steps

    pace = time_steps(config, space, data, found, ranks)
    evaluations = evaluation_macs(config, space, data, found)
    return pace, pace.seconds([phase.macs for phase in found.phases], evaluations)


def tell_time(take: "Callable[[], tuple[Pace, tuple[float, float]]]") -> None:
    """Say how long a run takes here.

    Args:
        take: takes a few steps; gives their pace and the range of seconds that follows.
    """
    say("timing a few steps, to tell how long it takes ...")
    try:
        pace, seconds = take()
    except TrainingDivergedError as error:
        say(f"no estimate, since these settings diverge at once: {error}")
        return
    low, high = map(duration, seconds)
    say(
        f"estimate: {low} to {high} on this machine as busy as it is now, from {pace.steps} steps "
        f"of {pace.batch} images"
    )
