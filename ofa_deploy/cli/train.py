"""``ofa-deploy train``: from images to a supernet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._output import (
    OutputFormat,
    QuietOption,
    WorkersOption,
    emit,
    guarded,
    next_steps,
    progress,
    say,
    wrote,
)
from ofa_deploy.errors import InputError

if TYPE_CHECKING:
    from ofa_deploy.data import DataSplits
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.train import Ranks, Recipe, TrainConfig

__all__ = ["train"]


@guarded
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="METHOD-DATA, such as deps-cifar10; --recipes lists them."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="'glyphs', a folder with one sub-folder of images a class, or 'hf:PATH' (a "
            "Hugging Face data set); default: the recipe's."
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
    resume: Annotated[bool, typer.Option(help="Go on; an error if there is nothing to.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Only print the schedule, the passes, the cost and the memory.")
    ] = False,
    recipes: Annotated[bool, typer.Option(help="Only list the recipes.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, over the recipe's.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, over all others: NAME=VALUE; may be repeated."),
    ] = None,
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
        str | None, typer.Option(help="Such as none, crop+flip, or rrc+flip+autoaugment.")
    ] = None,
    train_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    validation_images: Annotated[
        int | None, typer.Option(help="Held out from training, for choosing.")
    ] = None,
    test_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave out images that cannot be read, and say how many.")
    ] = False,
    calibration: Annotated[
        int | None, typer.Option(help="Training images for BN statistics before an evaluation.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each process.")] = None,
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
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
    from ofa_deploy.train import joined

    if recipes:
        _list_recipes()
        return
    chosen = _recipe(recipe, data)
    source = data or chosen.data
    if not source:
        raise InputError(f"recipe {chosen.name} needs --data: a folder of images by class")
    if init is None and (new_classifier or epochs == 0):
        raise InputError("--new-classifier and --epochs 0 need --init FILE")
    if new_classifier and epochs == 0:
        raise InputError("--epochs 0 would leave a new classifier untrained")
    if resume and not (run / "run.json").exists():
        raise InputError(f"{run}: nothing to resume there; leave out --resume to start")
    options = {
        "seed": seed,
        "train": train_images,
        "validation": validation_images,
        "test": test_images,
        "skip_bad": int(skip_bad) or None,
    }
    flags = {
        "epochs": epochs or None,
        "ramp_end": ramp_end,
        "ramp_epochs": ramp_epochs,
        "batch": batch,
        "lr": lr,
        "augment": augment,
        "calibration": calibration,
        "threads": threads,
        "seed": seed or None,
        "new_classifier": new_classifier or None,
    }
    with joined() as ranks:
        bars = progress(quiet or not ranks.first)
        settings = _config(
            chosen, config, set_ or [], flags, ranks.count, quiet=quiet or not ranks.first
        )
        space_, splits = _data(space or chosen.space, resolutions, source, options, bars)
        if dry_run:
            _forecast(settings, space_, splits)
        elif init is not None and epochs == 0:
            _adopt(init, space_, splits, run, settings, options, quiet=quiet)
        else:
            _train(settings, space_, splits, run, options, init, ranks, workers, quiet=quiet)


def _list_recipes() -> None:
    from ofa_deploy.train import get_recipe, recipe_names

    rows = []
    for name in recipe_names():
        recipe = get_recipe(name)
        rows.append(
            {
                "recipe": name,
                "space": recipe.space,
                "data": recipe.data or "--data DIR",
                "images_a_step": recipe.images_a_step,
                "lr": recipe.config.lr,
                "augment": recipe.config.augment,
            }
        )
    emit(rows, OutputFormat.table, title="recipes")


def _recipe(name: str | None, data: str | None) -> "Recipe":
    from ofa_deploy.train import get_recipe

    return get_recipe(name or ("deps-glyphs" if data in (None, "glyphs") else "deps-images"))


def _config(
    recipe: "Recipe",
    file: Path | None,
    pairs: list[str],
    flags: dict[str, Any],
    processes: int,
    *,
    quiet: bool,
) -> "TrainConfig":
    """The recipe's settings under those of the file, the flags and ``--set``."""
    from ofa_deploy._files import read_toml
    from ofa_deploy.train import build_config

    base = recipe.config.model_dump(exclude_unset=True)
    given = {**(read_toml(file) if file else {})}
    given |= {name: value for name, value in flags.items() if value is not None}
    given |= dict(_pair(text) for text in pairs)
    if "epochs" in given:  # W and s keep their shares of other epochs
        base = {key: value for key, value in base.items() if not key.startswith("ramp_")}
    settings = {**base, **given, "processes": processes}
    method = str(settings.pop("method", recipe.config.method))
    config = build_config(method, **settings)
    images = config.batch * processes
    if "lr" not in given and images != recipe.images_a_step:
        scaled = recipe.config.lr * images / recipe.images_a_step
        say(
            f"learning rate {scaled:g}: the recipe's {recipe.config.lr:g} is for "
            f"{recipe.images_a_step} images a step, here are {images}",
            quiet=quiet,
        )
        config = build_config(method, **{**settings, "lr": scaled})
    return config


def _pair(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, with the value as TOML would read it, or as text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set: expected NAME=VALUE, found {text!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def _data(
    space: str,
    resolutions: str | None,
    source: str,
    options: dict[str, int | None],
    bars: Any,
) -> "tuple[SearchSpace, DataSplits]":
    from ofa_deploy.cli._workspace import run_data, with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space

    chosen = with_resolutions(get_space(space), resolutions)
    name = full_name(source)
    splits = run_data(name, options, chosen, bars)
    return chosen.with_classes(len(splits.classes)), splits


def _forecast(config: "TrainConfig", space: "SearchSpace", data: "DataSplits") -> None:
    from ofa_deploy.train import forecast, plan_for

    steps = len(data.train) // (config.batch * config.processes)
    found = forecast(config, space, plan_for(config, space, max(1, steps)))
    emit(
        [
            {
                "phase": phase.name,
                "epochs": phase.steps / max(1, steps),
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


def _adopt(
    init: Path,
    space: "SearchSpace",
    data: "DataSplits",
    run: Path,
    config: "TrainConfig",
    options: dict[str, int | None],
    *,
    quiet: bool,
) -> None:
    from ofa_deploy.train import adopt

    adopt(
        init,
        space,
        data,
        run,
        calibration=config.calibration,
        threads=config.threads,
        data_options=options,
    )
    wrote(run / "supernet.safetensors", quiet=quiet)
    next_steps(f"ofa-deploy evaluate {run} --subnets 40", quiet=quiet)


def _train(
    config: "TrainConfig",
    space: "SearchSpace",
    data: "DataSplits",
    run: Path,
    options: dict[str, int | None],
    init: Path | None,
    ranks: "Ranks",
    workers: int | None,
    *,
    quiet: bool,
) -> None:
    from ofa_deploy._files import exclusive
    from ofa_deploy.train import Evaluator, standard_archs
    from ofa_deploy.train import train as train_supernet

    bars = progress(quiet or not ranks.first)
    record = train_supernet(
        config,
        space,
        data,
        run,
        data_options=options,
        init=init,
        ranks=ranks,
        workers=workers,
        progress=bars,
    )
    if not ranks.first:
        return
    small, large = record.validation_top1["smallest"], record.validation_top1["largest"]
    say(f"validation top-1: smallest {small:.1f} %, largest {large:.1f} %", quiet=quiet)
    named = standard_archs(space)
    with exclusive(run):
        found = Evaluator.load(run, data).validate(list(named.values()), progress=bars)
    if not quiet:
        emit(
            [
                {"subnet": name, "macs": space.cost(arch).macs, "top1": top1}
                for (name, arch), top1 in zip(named.items(), found, strict=True)
            ],
            OutputFormat.table,
            title="standard subnets, validation top-1, percent",
        )
    wrote(_curves(run, record.config.method), quiet=quiet)
    wrote(run / "supernet.safetensors", quiet=quiet)
    next_steps(
        f"ofa-deploy evaluate {run} --subnets 40",
        f"ofa-deploy profile --run {run}",
        quiet=quiet,
    )


def _curves(run: Path, method: str) -> Path:
    import csv

    from ofa_deploy.report import write_curves

    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return write_curves(run / "curves.png", rows, title=f"{run.name}: {method}")
