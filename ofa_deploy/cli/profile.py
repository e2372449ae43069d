"""``ofa-deploy profile``: from a space and a device, or several, to latency tables."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._next import evaluate_first, search_command
from ofa_deploy.cli._options import (
    ClassesOption,
    QuietOption,
    ResolutionsOption,
    SpaceOption,
    SpaceRunOption,
)
from ofa_deploy.cli._output import next_steps, progress, quoted, resumable, say, wrote
from ofa_deploy.cli._outputs import check_outputs
from ofa_deploy.errors import InputError

__all__ = ["profile"]


@resumable
def profile(
    context: typer.Context,
    space: SpaceOption = None,
    run: SpaceRunOption = None,
    classes: ClassesOption = None,
    resolutions: ResolutionsOption = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="As ofa-deploy devices lists them, or ssh://[user@]host[:port]; may be repeated: "
            "all are measured at the same time. Default: local.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="onnxruntime, openvino, or what else the device offers.")
    ] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="fp32, int8, or what else it offers.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Images an inference.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads an inference.")] = 1,
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1, max=1e4, help="About how long to measure at most; small spaces end sooner."
        ),
    ] = 5.0,
    calibration: Annotated[
        int, typer.Option(min=4, max=1000, help="Whole networks that correct the sum of blocks.")
    ] = 24,
    holdout: Annotated[
        int,
        typer.Option(
            min=2, max=1000, help="Random networks that judge it; from 9 on for a 90 % interval."
        ),
    ] = 24,
    out: Annotated[Path | None, typer.Option(help="File to write, of one device.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="For drawing whole networks.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Measure every block of a space into a latency table.

    For example: ofa-deploy profile --space ofa-mbv3-w1.0 --resolutions 160,192,224

    Blocks and a few whole networks are timed in turns with a reference network, in several
    processes. The whole networks correct the sum of blocks and tell how far it can be trusted;
    that error is printed, and again whenever the table is used. Interrupt it whenever you like:
    the same command goes on where it stopped, and so it does when a device is lost for a while.

    A device behind ssh:// needs Python 3.8 or later, numpy and the engine; nothing is installed
    there. Keys, jump hosts and host-key checks are your own OpenSSH's. One of several
    devices that fails does not stop the others.
    """
    from ofa_deploy.cli._profile_job import ProfileJob, check_apart
    from ofa_deploy.cli._profile_several import profile_several
    from ofa_deploy.cli._workspace import chosen_space
    from ofa_deploy.hardware import load_device

    job = ProfileJob(
        chosen_space(space, run, classes, resolutions),
        {
            "runtime": runtime,
            "precision": precision,
            "batch": batch,
            "threads": threads,
            "minutes": minutes,
            "calibration": calibration,
            "holdout": holdout,
            "seed": seed,
        },
    )
    devices = [load_device(name) for name in device or ("local",)]
    for each in devices:
        each.check_offers(runtime, precision)
    check_outputs({"latency table": out})
    if len(devices) == 1:
        made = job.run(devices[0], progress(quiet), out)
        for line in made.told():
            say(line, quiet=quiet)
        wrote(made.path, quiet=quiet)
        next_steps(
            f"ofa-deploy tables show {quoted(made.path)}",
            *evaluate_first(run, made.table.conditions),
            search_command(run, made.path, made.middle_ms),
            quiet=quiet,
        )
        return
    if out is not None:
        raise InputError(
            "--out is the file of one device; leave it out: the table of each goes to "
            "latency_tables/DEVICE"
        )
    check_apart(devices)
    names = dict(zip((each.id for each in devices), device or (), strict=True))
    profile_several(context, job, devices, names, run, quiet)
