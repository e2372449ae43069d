"""``ofa-deploy adapt``: a trained supernet to classes of one's own, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._options import (
    QuietOption,
    SkipBadOption,
    TestImagesOption,
    TrainImagesOption,
    ValidationImagesOption,
    WorkersOption,
)
from ofa_deploy.cli._output import (
    next_steps,
    progress,
    quoted,
    resumable,
    say_accuracy,
    say_top1,
    wrote,
)
from ofa_deploy.cli._weights import learn_accuracy

__all__ = ["adapt"]


@resumable
def adapt(
    weights: Annotated[
        Path, typer.Option(help="Published weights (.pth), or a supernet.safetensors of yours.")
    ],
    space: Annotated[
        str,
        typer.Option(
            help="The space they are of: a name (ofa-deploy spaces lists them), or a NAME.toml."
        ),
    ],
    data: Annotated[str, typer.Option(help="Images by class, as for ofa-deploy train.")],
    run: Annotated[Path, typer.Option(help="Folder for the run; an unfinished one goes on.")],
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes to train for; small ones are quick.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=3, help="Passes over the images.")] = 6,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 32,
    lr: Annotated[float, typer.Option(help="The greatest learning rate.")] = 0.02,
    augment: Annotated[str, typer.Option(help="As for ofa-deploy train.")] = "crop+flip",
    subnets: Annotated[
        int, typer.Option(min=9, help="How many to evaluate for the accuracy model.")
    ] = 30,
    train_images: TrainImagesOption = None,
    validation_images: ValidationImagesOption = None,
    test_images: TestImagesOption = None,
    skip_bad: SkipBadOption = False,
    calibration: Annotated[int, typer.Option(help="Training images for BN statistics.")] = 1_000,
    threads: Annotated[int, typer.Option(help="Threads of each process.")] = 2,
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Bring your own classes to weights that somebody else paid for.

    The classifier starts anew. A third of the epochs trains the largest network alone; then a short
    DεpS fine-tune brings every subnet along. About thirty subnets are evaluated and an accuracy
    model is fitted, so that the run can be searched; evaluations.csv lists the subnets.
    """
    from ofa_deploy.cli._workspace import data_options, run_data, with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space
    from ofa_deploy.train import DepsConfig, joined, train

    config = DepsConfig.build(
        epochs=epochs,
        ramp_end=round(epochs / 3) + 1,
        ramp_epochs=1,
        batch=batch,
        lr=lr,
        augment=augment,
        calibration=calibration,
        threads=threads,
        seed=seed,
        new_classifier=True,
    )
    chosen = with_resolutions(get_space(space), resolutions)
    options = data_options(seed, train_images, validation_images, test_images, skip_bad)
    name = full_name(data)
    with joined() as ranks:
        bars = progress(quiet or not ranks.first)
        splits = run_data(name, options, chosen, bars)
        record = train(
            config.model_copy(update={"processes": ranks.count}),
            chosen.with_classes(len(splits.classes)),
            splits,
            run,
            data_options=options,
            init=weights,
            ranks=ranks,
            workers=workers,
            progress=bars,
        )
        if not ranks.first:
            return
    say_top1(record.validation_top1, quiet=quiet)
    say_accuracy(learn_accuracy(run, seed, bars, subnets=subnets), quiet=quiet)
    for written in ("supernet.safetensors", "evaluations.csv", "accuracy.onnx"):
        wrote(run / written, quiet=quiet)
    next_steps(f"ofa-deploy profile --run {quoted(run)}", quiet=quiet)
