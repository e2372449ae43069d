"""``ofa-deploy specialize``: more from a subnet at the same latency."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._options import (
    ConfigOption,
    FormatOption,
    QuietOption,
    SetOption,
    WorkersOption,
)
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    next_steps,
    progress,
    quoted,
    resumable,
    say,
    wrote,
)
from ofa_deploy.cli._settings import given_settings, list_settings
from ofa_deploy.cli._train_forecast import tell_time

if TYPE_CHECKING:
    from ofa_deploy.data import DataSplits
    from ofa_deploy.specialize import SpecializeConfig, SpecializeFile
    from ofa_deploy.supernet import SubnetFile
    from ofa_deploy.terminal import Progress
    from ofa_deploy.train import Ranks

__all__ = ["specialize"]

_SUFFIX = ".subnet.json"


@resumable
def specialize(
    subnet: Annotated[Path, typer.Argument(help="NAME.subnet.json, as search writes it.")],
    method: Annotated[
        str,
        typer.Option(
            help="finetune, distill (on the parent's soft labels too), wide-narrow (imitate the "
            "parent stage by stage), dst or edst (an ensemble of sparse networks)."
        ),
    ],
    parent: Annotated[
        Path | None,
        typer.Option(
            help="What to learn from: a training run (its largest subnet), or another "
            "NAME.subnet.json; default: the run that the subnet was cut from."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the run; an unfinished one goes on. Default: runs/NAME-METHOD."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="glyphs, cifar, images or imagenet; default: what suits the data."),
    ] = None,
    scale: Annotated[
        float, typer.Option(min=1e-6, max=1e6, help="All lengths, as multiples of the recipe's.")
    ] = 1.0,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(help="Only print the phases, the cost, all settings, and about how long."),
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Where the subnet's images are now, if they have moved.")
    ] = None,
    corrupted_images: Annotated[
        int,
        typer.Option(min=0, help="Test images to corrupt in 25 ways when judging; 0: none."),
    ] = 1_000,
    latency: Annotated[
        bool, typer.Option(help="Measure the latency of what comes out on this machine.")
    ] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process.")] = None,
    workers: WorkersOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same weights; default: 0.")
    ] = None,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Train a subnet further, alone, taught by a wide parent, or as an ensemble of sparse ones.

    Accuracy may rise; the architecture, and with it the latency of one network, stays. The result
    is an ordinary subnet in RUN/subnets, or several and a NAME.ensemble.json that names them, whose
    answer is the mean of their probabilities. Before and after are judged on the test images:
    accuracy, likelihood, calibration, accuracy on corrupted images, how much members differ, what
    training cost and what inference costs. Zeros in sparse networks save multiplications on
    paper and bytes in storage, but no time on this machine.

    Interrupt it whenever you like: the same command goes on where it stopped and ends with the same
    weights. Several processes: torchrun --nproc-per-node 4 -m ofa_deploy -- specialize ...
    """
    from ofa_deploy.errors import InputError

    if not subnet.name.endswith(_SUFFIX):
        raise InputError(f"{subnet}: expected a file NAME{_SUFFIX}")
    given = given_settings(config, {"threads": threads, "seed": seed}, set_)
    for option in given.keys() & {"method", "recipe", "scale"}:
        raise InputError(f"{option}: expected it as --{option}, found it among the settings")
    name = subnet.name.removesuffix(_SUFFIX)
    asked = _Asked(subnet, method, parent, run or Path("runs") / f"{name}-{method}", given)
    judging = _Judging(corrupted_images, latency, output)
    _carry_out(asked, judging, recipe, scale, data, workers, dry_run, quiet)


@dataclass(frozen=True)
class _Asked:
    """What the command line says about a run.

    Attributes:
        settings: over the recipe's.
    """

    subnet: Path
    method: str
    parent: Path | None
    run: Path
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Judging:
    """What is to be known of what comes out."""

    corrupted_images: int
    latency: bool
    output: OutputFormat


def _carry_out(
    asked: _Asked,
    judging: _Judging,
    recipe: str | None,
    scale: float,
    data: str | None,
    workers: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    from ofa_deploy.cli._workspace import subnets_data
    from ofa_deploy.specialize import recipe_data, specialize_recipe
    from ofa_deploy.specialize import specialize as run_specialize
    from ofa_deploy.supernet import load_subnet
    from ofa_deploy.train import joined

    _, record = load_subnet(asked.subnet)
    with joined() as ranks:
        bars = progress(quiet or not ranks.first)
        images = subnets_data([asked.subnet], data, bars)
        settings = {**asked.settings, "processes": ranks.count}
        if recipe is None:
            settings = _of_the_run(asked.subnet) | settings
        made = specialize_recipe(
            asked.method, recipe or recipe_data(images.name), scale=scale, **settings
        )
        if dry_run:
            if ranks.first:
                _forecast(asked, made, record, images, ranks, quiet=quiet)
            return
        found = run_specialize(
            asked.subnet,
            made,
            images,
            asked.run,
            parent=asked.parent,
            ranks=ranks,
            workers=workers,
            progress=bars,
        )
        if ranks.first:
            _report(asked, judging, found, images, ranks, bars, quiet)


def _of_the_run(subnet: Path) -> dict[str, Any]:
    """What the run that a subnet lies in says of its images, whatever the method."""
    from ofa_deploy.errors import FileFormatError
    from ofa_deploy.specialize import SpecializeFile
    from ofa_deploy.train import RunFile

    run = subnet.resolve().parent.parent
    if not (run / "run.json").exists():
        return {}
    try:
        known = RunFile.load(run).config.model_dump()
    except FileFormatError:  # what was specialised can be specialised further
        known = SpecializeFile.load(run).config.model_dump()
    return {name: known[name] for name in ("augment", "calibration") if name in known}


def _forecast(
    asked: _Asked,
    config: "SpecializeConfig",
    record: "SubnetFile",
    data: "DataSplits",
    ranks: "Ranks",
    *,
    quiet: bool,
) -> None:
    from ofa_deploy.specialize import find_parent, forecast_macs, parent_shape, time_specialize
    from ofa_deploy.train import Batches, check_fit

    space, arch = record.search_space, record.network.arch
    check_fit(config, space, data)
    parent = None
    if config.needs_parent:
        where = asked.parent or find_parent(asked.subnet, record)
        parent = parent_shape(where, arch.resolution)
    steps = Batches(config, data.train, arch.resolution).steps_per_epoch
    phases = forecast_macs(config, space, arch, steps, parent)
    emit(
        [
            {
                "phase": each.phase.name,
                "epochs": each.phase.steps / steps,
                "steps": each.phase.steps,
                "first": ", ".join(each.phase.start),
                "lr": "{:.3g}, {:.3g}".format(*(map(each.phase.lr, (0, each.phase.steps - 1)))),
                "macs": f"{each.macs.dense:.3g}",
                "sparse_macs": f"{each.macs.sparse:.3g}",
            }
            for each in phases
        ],
        OutputFormat.table,
        title=f"{config.method} of {asked.subnet.name}, {len(data.train):,} images",
    )
    dense = sum(each.macs.dense for each in phases)
    sparse = sum(each.macs.sparse for each in phases)
    print(
        f"in all {dense:.3g} multiply-accumulates, forward and backward; {sparse:.3g} where zeros "
        "cost nothing"
    )
    list_settings(config)
    if ranks.count == 1 and not quiet:  # several would have to step together
        source, given = asked.subnet, asked.parent
        tell_time(lambda: time_specialize(source, config, data, phases, parent=given, ranks=ranks))


def _report(
    asked: _Asked,
    judging: _Judging,
    found: "SpecializeFile",
    data: "DataSplits",
    ranks: "Ranks",
    bars: "Progress",
    quiet: bool,
) -> None:
    from ofa_deploy.specialize import judge
    from ofa_deploy.supernet import load_members

    assert found.result is not None
    result = asked.run / found.result
    rows: list[dict[str, Any]] = []
    for what, path in (("before", asked.subnet), ("after", result)):
        ensemble = load_members(path)
        for member in ensemble.subnets:
            member.to(ranks.device)
        judged = judge(
            ensemble,
            data.test,
            corrupted_images=judging.corrupted_images,
            progress=bars,
            label=f"judge, {what}",
        )
        trained = found if what == "after" else None
        row = {"network": what, **judged.row()}
        row |= {
            "training_macs": trained.cost_macs if trained else 0,
            "training_sparse_macs": trained.cost_sparse_macs if trained else 0,
        }
        rows.append(row)
    written = _keep(asked.run, rows)  # what took long, before anything else can fail
    if judging.latency:
        rows = _timed(rows, result, asked.run / "measurements", bars, quiet=quiet)
        _keep(asked.run, rows)
    _show(rows, judging.output, result.name)
    wrote(written, quiet=quiet)
    wrote(result, quiet=quiet)
    if not result.name.endswith(_SUFFIX):
        say("members answer together: the mean of their probabilities", quiet=quiet)
    bundle = asked.run / "bundle"
    next_steps(f"ofa-deploy export {quoted(result)} --out {quoted(bundle)}", quiet=quiet)


def _keep(run: Path, rows: list[dict[str, Any]]) -> Path:
    from ofa_deploy.files import write_json

    return write_json(run / "judged.json", {"rows": rows})


def _timed(
    rows: list[dict[str, Any]], result: Path, journal: Path, bars: "Progress", *, quiet: bool
) -> list[dict[str, Any]]:
    """Before and after with their latency; without it where the machine does not stand still."""
    from ofa_deploy.errors import NoisyDeviceError
    from ofa_deploy.specialize import measured_latency
    from ofa_deploy.supernet import load_members

    try:
        measured = measured_latency(load_members(result), journal=journal, progress=bars)
    except NoisyDeviceError as error:
        say(f"warning: latency is left out: {error}", quiet=quiet)
        return rows
    before = dict.fromkeys(measured, measured["latency_member"])
    return [rows[0] | before, rows[1] | measured]


def _show(rows: list[dict[str, Any]], output: OutputFormat, name: str) -> None:
    """Rows as they are, or, in a table, a line a figure."""
    if output is not OutputFormat.table:
        emit(rows, output)
        return
    before, after = rows
    lines = [{"figure": k, "before": before[k], "after": after[k]} for k in after if k != "network"]
    emit(lines, output, title=f"{name}, test images")
