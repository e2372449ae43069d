"""``ofa-deploy search``: the best subnet within a budget."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa_deploy.cli._next import form_options
from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import OutputFormat, progress, quoted, resumable, say
from ofa_deploy.cli._search_job import SearchJob
from ofa_deploy.cli._search_tables import TablesOfDevices, check_classes, known_space
from ofa_deploy.cli._search_terms import check_distinct
from ofa_deploy.cli._weights import (
    DataOption,
    ResolutionsOption,
    SpaceOption,
    WeightsOption,
    adopt_weights,
    learn_accuracy,
)
from ofa_deploy.errors import InputError, OfaDeployError

if TYPE_CHECKING:
    from ofa_deploy.hardware import LatencyTable
    from ofa_deploy.predict import AccuracyModel

__all__ = ["search"]


@resumable
def search(
    table: Annotated[
        list[Path] | None,
        typer.Option(
            help="Latency table; several of one device, such as fp32 and int8, or of several "
            "devices."
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Or a device, as profile named it, whose table is in latency_tables or in "
            "the run; may be repeated."
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Of the tables that --device looks for.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the tables that --device looks for.")
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as 'latency <= 0.3 ms', 'latency[jetson].p99 <= 9 ms', 'macs <= 2M', "
            "'resolution in 160,192', 'kernel = 3'; may be given repeatedly."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="A finished training run, evaluated; or a folder to make of --weights."),
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(help="Or an accuracy model alone (predictors import), with --no-verify."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a front, with --no-verify: such as 'latency min', beside 'top1 max'; may be "
            "given repeatedly."
        ),
    ] = None,
    per_device: Annotated[
        bool,
        typer.Option(
            "--per-device", help="With --no-verify: one network a device, not one for all of them."
        ),
    ] = False,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Cut, recalibrate, evaluate and measure the best candidates. Default: unless "
            "there are tables of several devices, since only this machine is measured.",
            show_default=False,
        ),
    ] = None,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify", help="Also try hard to do better by the same models, and say so."
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Stem of the files to write.")] = "best",
    out: Annotated[
        Path | None, typer.Option(help="Folder for them, with --accuracy; default: this one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 0,
    weights: WeightsOption = None,
    space: SpaceOption = None,
    data: DataOption = None,
    resolutions: ResolutionsOption = None,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Find and prove the best subnet within a budget.

    Writes RUN/fronts/NAME.front.json: every network worth choosing, predicted. With --verify the
    best candidates are measured on this device, what was measured goes back into the models, and
    the search is repeated until nothing promises more; the most accurate one that was measured to
    fit is written as RUN/subnets/NAME.subnet.json, with its weights. Exit 3 if nothing fits, with
    the least and greatest value that can be reached and the network that comes nearest.

    With tables of several devices the answer is predicted: one network that keeps every device's
    limits ('latency[a] <= 5 ms'), or one a device with --per-device. A latency of no named device
    must be kept on all of them. Tables of one device in several
    precisions or runtimes make those a choice: each is searched, and the most accurate network that
    was measured to fit wins; the accuracy of INT8 subnets must have been measured (evaluate
    --precision int8). Weights that once-for-all published
    are searched with --weights FILE --space NAME --data DIR: RUN becomes a run of them, and subnets
    are evaluated first if they never were.
    """
    if not table and not device:
        hint = _at_hand(run, accuracy)
        raise typer.BadParameter(f"expected --table FILE or --device NAME, to know a latency{hint}")
    if (run is None) == (accuracy is None):
        raise InputError("expected either --run FOLDER or --accuracy FILE")
    if accuracy is not None and verify is not False:
        raise InputError("an accuracy model alone proves nothing: add --no-verify, or give --run")
    _refuse_idle(
        accuracy is not None and any((weights, space, data, resolutions)),
        "--weights, --space, --data and --resolutions go with --run; leave them out",
    )
    _refuse_idle(
        run is not None and out is not None,
        "--out goes with --accuracy: with --run all is written there; leave it out",
    )
    _refuse_idle(
        not device and (runtime, precision) != (None, None),
        "--runtime and --precision choose among the tables that --device finds; leave them out",
    )
    if run is not None and weights is None and not any(run.glob("accuracy*.onnx")):
        raise InputError(_no_accuracy(run))
    job = SearchJob(tuple(constraint or ()), tuple(objective or ()), name, seed, output, quiet)
    job.certified = certify
    paths = list(table or ())
    if device:
        at_hand = TablesOfDevices(known_space(run, accuracy), run, runtime, precision)
        paths += at_hand.find(device)
    tables = job.read(paths)
    if weights is None:
        check_classes(known_space(run, accuracy), dict(zip(paths, tables, strict=True)))
    proves = _proves(verify, tables, quiet)
    _refuse_unproven(proves, per_device, objective)
    check_distinct(tables, per_device)
    if run is None:
        assert accuracy is not None
        model = _given_accuracy(accuracy, tables)
        job.predict([(model, each) for each in tables], accuracy.stem, out or Path(), per_device)
        return
    adopt_weights(weights, space, data, resolutions, run, progress(quiet))
    learn = (
        None if weights is None else lambda: learn_accuracy(run, seed, progress(quiet), data=data)
    )
    known = [(_accuracy_of(run, each, learn), each) for each in tables]
    if proves:
        job.prove(known, run, data)
    else:
        job.predict(known, run.name, run / "fronts", per_device, lock=run)


def _proves(asked: bool | None, tables: "Sequence[LatencyTable]", quiet: bool) -> bool:
    """Whether candidates are measured; said where it follows from the tables.

    Raises:
        InputError: if it is asked for, and the tables are of several devices.
    """
    devices = dict.fromkeys(table.conditions.device for table in tables)
    if len(devices) < 2 or asked is False:
        return asked is not False
    if asked:
        raise InputError(
            "candidates are measured on this machine only: give its table alone, or --no-verify"
        )
    say(
        f"predicted for {', '.join(devices)}: candidates are measured on this machine only, so "
        "nothing is proven",
        quiet=quiet,
    )
    return False


def _refuse_unproven(proves: bool, per_device: bool, objective: "Sequence[str] | None") -> None:
    """What only shapes predictions has no effect on what is proven."""
    _refuse_idle(
        proves and per_device,
        "candidates are measured on this machine only: --per-device goes with --no-verify",
    )
    _refuse_idle(
        proves and bool(objective),
        "proven are the most accurate networks that fit: --objective shapes the front that "
        "--no-verify predicts; add that, or leave it out",
    )


def _refuse_idle(idle: bool, message: str) -> None:
    """An option that would have no effect is a misunderstanding."""
    if idle:
        raise InputError(message)


def _given_accuracy(path: Path, tables: "Sequence[LatencyTable]") -> "AccuracyModel":
    """A model alone says nothing of the precision of what it learned from: float32's, then."""
    from ofa_deploy.export import kept_as
    from ofa_deploy.predict import load_accuracy_model

    for table in tables:
        conditions = table.conditions
        if kept_as(conditions.runtime, conditions.precision):
            raise InputError(_unknown_accuracy(conditions.precision, "a --run that knows it"))
    return load_accuracy_model(path)


def _accuracy_of(
    run: Path, table: "LatencyTable", learn: "Callable[[], AccuracyModel] | None"
) -> "AccuracyModel":
    """The run's in the table's precision.

    Args:
        learn: evaluates subnets of weights that were adopted and never evaluated.
    """
    from ofa_deploy.export import accuracy_file, kept_as
    from ofa_deploy.predict import load_accuracy_model
    from ofa_deploy.search import shared_space
    from ofa_deploy.train import RunFile

    runtime, precision = table.conditions.runtime, table.conditions.precision
    path = accuracy_file(run, runtime, precision)
    if path.exists():
        return load_accuracy_model(path)
    if kept_as(runtime, precision):
        how = f"ofa-deploy evaluate {quoted(run)}{form_options(runtime, precision)}"
        raise InputError(_unknown_accuracy(precision, f"measure it: {how}"))
    space = RunFile.load(run).search_space  # the first to know that there is no such run
    if learn is None:
        raise InputError(_no_accuracy(run))
    shared_space(space, [table])  # before hours of evaluation
    return learn()


def _at_hand(run: Path | None, accuracy: Path | None) -> str:
    """That ``--device local`` would find a table, if it would."""
    try:
        TablesOfDevices(known_space(run, accuracy), run, None, None).find(["local"])
    except OfaDeployError:
        return ""
    return "; a table of this machine is at hand: --device local"


def _no_accuracy(run: Path) -> str:
    """What to do where nothing was evaluated.

    Raises:
        InputError: if there is no such run.
    """
    from ofa_deploy.train import RunFile

    RunFile.load(run)
    how = f"ofa-deploy evaluate {quoted(run)}"
    return f"{run}: no accuracy model (accuracy.onnx); make it with: {how}"


def _unknown_accuracy(precision: str, mend: str) -> str:
    return (
        f"the latency table is of {precision}, but the accuracy of {precision} subnets was never "
        f"measured: fp32's accuracy at {precision}'s latency would be a false promise; {mend}"
    )
