"""``ofa-deploy train``: from images to a supernet."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._few import warn_of_few, warn_of_thin
from ofa_deploy.cli._options import (
    ConfigOption,
    QuietOption,
    SetOption,
    SkipBadOption,
    TestImagesOption,
    TrainImagesOption,
    ValidationImagesOption,
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
    say_top1,
    wrote,
)
from ofa_deploy.cli._train_asked import Asked, as_typed
from ofa_deploy.cli._train_forecast import tell_forecast
from ofa_deploy.cli._train_recipes import list_recipes, show_recipe
from ofa_deploy.errors import InputError, OtherRunError

if TYPE_CHECKING:
    from ofa_deploy.data import DataSplits
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.train import Ranks, Recipe, TrainConfig

__all__ = ["train"]


@resumable
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="METHOD-DATA, such as deps-cifar10; --recipes lists them."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="'glyphs', 'cifar10', 'cifar100', a folder with one sub-folder of images a class, "
            "or 'hf:PATH' (a Hugging Face data set); default: the recipe's."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help="Search space (ofa-deploy spaces lists them), or a file NAME.toml."),
    ] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes to train for, such as 160,192,224.")
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder for the run; an unfinished one goes on.")] = (
        Path("runs/train")
    ),
    resume: Annotated[
        bool,
        typer.Option(
            help="Go on with --run, and fail instead of starting anew. Without a recipe the "
            "space, the data and all settings are the run's own; --data then says where the "
            "images are now."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            help="Only print the schedule, the cost, the memory, all settings, and about how long "
            "it would take."
        ),
    ] = False,
    recipes: Annotated[
        bool, typer.Option(help="Only list the recipes; with a NAME, show that one.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to start from: a published .pth, or a supernet.safetensors."),
    ] = None,
    new_classifier: Annotated[
        bool, typer.Option(help="With --init: start the classifier anew, for other classes.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="T: passes over the training images; 0 keeps the weights of --init."),
    ] = None,
    ramp_end: Annotated[
        int | None, typer.Option(help="DεpS's W: the epoch where subnets reach full weight.")
    ] = None,
    ramp_epochs: Annotated[
        int | None,
        typer.Option(help="DεpS's s: the ramp's length; before W - s the largest trains alone."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step and process.")] = None,
    lr: Annotated[float | None, typer.Option(help="The greatest learning rate.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="none, or names joined by +: crop, flip, rrc, autoaugment, autoaugment-cifar, "
            "jitter, erase."
        ),
    ] = None,
    train_images: TrainImagesOption = None,
    validation_images: ValidationImagesOption = None,
    test_images: TestImagesOption = None,
    skip_bad: SkipBadOption = False,
    calibration: Annotated[
        int | None, typer.Option(help="Training images for BN statistics before an evaluation.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process.")] = None,
    workers: WorkersOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same weights; default: 0.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train a once-for-all supernet: with DεpS, or a method to compare it with.

    On the built-in glyphs, or on your images: a folder with one sub-folder a class
    (DATA/cat/1.jpg, DATA/dog/2.png, ...), or DATA/train and DATA/test of that form. A
    validation split is held out from the training images; the test images are only reported on.
    Interrupt it whenever you like: the same command goes on where it stopped and ends with the
    same weights. It ends with an evaluation of the standard subnets.

    Checkpoints of once-for-all load with --init; add --epochs 0 to use them as they are.
    Several processes: torchrun --nproc-per-node 4 -m ofa_deploy -- train ...
    """
    if recipes:
        show_recipe(recipe) if recipe else list_recipes()
        return
    if init is None and (new_classifier or epochs == 0):
        raise InputError("--new-classifier and --epochs 0 need --init FILE")
    if new_classifier and epochs == 0:
        raise InputError("--epochs 0 would leave a new classifier untrained")
    if resume and not (run / "run.json").exists():
        raise InputError(f"{run}: nothing to resume there; leave out --resume to start")
    flags = {
        "epochs": epochs or None,
        "ramp_end": ramp_end,
        "ramp_epochs": ramp_epochs,
        "batch": batch,
        "lr": lr,
        "augment": augment,
        "calibration": calibration,
        "threads": threads,
        "seed": seed,
        "new_classifier": new_classifier or None,
    }
    counts = (train_images, validation_images, test_images)
    asked = Asked(recipe, data, space, resolutions, config, set_ or [], flags, counts, skip_bad)
    adopting = init is not None and epochs == 0
    again = resume and recipe is None and not adopting
    _carry_out(asked, run, init, workers, again, adopting, dry_run, quiet)


@dataclass(frozen=True)
class _Job:
    """A run, put together from all that was asked."""

    config: "TrainConfig"
    space: "SearchSpace"
    data: str
    options: "dict[str, int | None]"


def _carry_out(
    asked: Asked,
    run: Path,
    init: Path | None,
    workers: int | None,
    again: bool,
    adopting: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    from ofa_deploy.cli._workspace import run_data
    from ofa_deploy.train import joined

    recipe = None if again else _recipe(asked.recipe, asked.data)
    with joined() as ranks:
        quiet = quiet or not ranks.first
        count = ranks.count
        job = _new(asked, recipe, count, quiet) if recipe else _own(asked, run, count)
        splits = run_data(job.data, job.options, job.space, progress(quiet))
        space = job.space.with_classes(len(splits.classes))
        warn_of_few(len(splits.validation), quiet=quiet)
        warn_of_thin(splits, quiet=quiet)
        if not dry_run and not adopting:
            try:
                _train(job, space, splits, run, init, ranks, workers, quiet=quiet)
            except OtherRunError as error:
                raise as_typed(error, asked, run) from None
        elif ranks.first and dry_run:
            tell_forecast(job.config, space, splits, ranks, quiet=quiet)
        elif ranks.first and init is not None:
            _adopt(job, space, splits, run, init, quiet=quiet)


def _new(asked: Asked, recipe: "Recipe", processes: int, quiet: bool) -> _Job:
    """A run after a recipe."""
    from ofa_deploy.cli._workspace import with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space

    config = _config(recipe, asked.settings(), processes, quiet=quiet)
    space = with_resolutions(get_space(asked.space or recipe.space), asked.resolutions)
    source = full_name(asked.data or recipe.data)
    return _Job(config, space, source, asked.options(config.seed))


def _own(asked: Asked, run: Path, processes: int) -> _Job:
    """The run in a folder, as it was begun; what is asked beside must be the same."""
    from ofa_deploy.cli._workspace import with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space
    from ofa_deploy.train import ImportConfig, RunFile, build_config

    record = RunFile.load(run)
    if isinstance(record.config, ImportConfig):
        raise InputError(f"{run}: was made from weights; there is no training to resume")
    settings = {**record.config.model_dump(), **asked.settings(), "processes": processes}
    config = build_config(str(settings.pop("method")), **settings)
    space = record.search_space if asked.space is None else get_space(asked.space)
    space = with_resolutions(space, asked.resolutions)
    source = record.data if asked.data is None else full_name(asked.data)
    said = {k: v for k, v in asked.options(asked.flags["seed"]).items() if v is not None}
    return _Job(config, space, source, {**record.data_options, **said})


def _recipe(name: str | None, data: str | None) -> "Recipe":
    from ofa_deploy.train import get_recipe

    recipe = get_recipe(name or ("deps-glyphs" if data in (None, "glyphs") else "deps-images"))
    if not (data or recipe.data):
        raise InputError(f"recipe {recipe.name} needs --data: a folder of images by class")
    return recipe


def _config(
    recipe: "Recipe", given: dict[str, Any], processes: int, *, quiet: bool
) -> "TrainConfig":
    """The recipe's settings under those that are given."""
    from ofa_deploy.train import METHODS, build_config, get_recipe

    given = dict(given)
    method = str(given.pop("method", recipe.config.method))
    if method != recipe.config.method and method in METHODS:
        recipe = get_recipe(f"{method}-{recipe.name.partition('-')[2]}")
    base = recipe.config.model_dump(exclude_unset=True, exclude={"method"})
    if isinstance(epochs := given.get("epochs"), int):
        base = {name: value for name, value in base.items() if not name.startswith("ramp_")}
        base |= recipe.ramp(epochs)
    settings = {**base, **given, "processes": processes}
    config = build_config(method, **settings)
    images = config.images_a_step
    if "lr" not in given and images != recipe.images_a_step:
        scaled = recipe.config.lr * images / recipe.images_a_step
        say(
            f"learning rate {scaled:g}: the recipe's {recipe.config.lr:g} is for "
            f"{recipe.images_a_step} images a step, here are {images}",
            quiet=quiet,
        )
        config = build_config(method, **{**settings, "lr": scaled})
    return config


def _adopt(
    job: _Job, space: "SearchSpace", data: "DataSplits", run: Path, init: Path, *, quiet: bool
) -> None:
    from ofa_deploy.train import adopt

    adopt(
        init,
        space,
        data,
        run,
        calibration=job.config.calibration,
        threads=job.config.threads,
        data_options=job.options,
    )
    wrote(run / "supernet.safetensors", quiet=quiet)
    next_steps(f"ofa-deploy evaluate {quoted(run)} --subnets 40", quiet=quiet)


def _train(
    job: _Job,
    space: "SearchSpace",
    data: "DataSplits",
    run: Path,
    init: Path | None,
    ranks: "Ranks",
    workers: int | None,
    *,
    quiet: bool,
) -> None:
    from ofa_deploy.train import train as train_supernet

    record = train_supernet(
        job.config,
        space,
        data,
        run,
        data_options=job.options,
        init=init,
        ranks=ranks,
        workers=workers,
        progress=progress(quiet),
    )
    if not ranks.first:
        return
    say_top1(record.validation_top1, quiet=quiet)
    curves = _curves(run, record.config.method)
    _standard(space, data, run, quiet=quiet)
    if curves:
        wrote(curves, quiet=quiet)
    wrote(run / "supernet.safetensors", quiet=quiet)
    next_steps(
        f"ofa-deploy evaluate {quoted(run)} --subnets 40",
        f"ofa-deploy profile --run {quoted(run)}",
        quiet=quiet,
    )


def _standard(space: "SearchSpace", data: "DataSplits", run: Path, *, quiet: bool) -> None:
    """Evaluate the standard subnets, in this process alone."""
    from ofa_deploy.files import exclusive
    from ofa_deploy.train import Evaluator, here, standard_archs

    named = standard_archs(space)
    with exclusive(run):
        evaluator = Evaluator.load(run, data, here())
        found = evaluator.validate(list(named.values()), progress=progress(quiet))
    if quiet:
        return
    emit(
        [
            {"subnet": name, "macs": space.cost(arch).macs, "top1": top1}
            for (name, arch), top1 in zip(named.items(), found, strict=True)
        ],
        OutputFormat.table,
        title="standard subnets, validation top-1, percent",
    )


def _curves(run: Path, method: str) -> Path | None:
    """Draw the curves of a finished run; None if its rows were removed."""
    import csv

    from ofa_deploy.report import write_curves

    path = run / "metrics.csv"
    if not path.exists():
        say(f"{path}: gone, so there are no curves")
        return None
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return write_curves(run / "curves.png", rows, title=f"{run.name}: {method}")
