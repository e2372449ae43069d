"""``ofa-deploy adapt``: a trained supernet to classes of one's own, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._output import (
    QuietOption,
    WorkersOption,
    guarded,
    next_steps,
    progress,
    say,
    wrote,
)
from ofa_deploy.cli._weights import learn_accuracy

__all__ = ["adapt"]


@guarded
def adapt(
    weights: Annotated[
        Path, typer.Option(help="Published weights (.pth), or a supernet.safetensors of yours.")
    ],
    space: Annotated[str, typer.Option(help="The space they are of: a name, or a file NAME.toml.")],
    data: Annotated[str, typer.Option(help="Images by class, as for ofa-deploy train.")],
    run: Annotated[Path, typer.Option(help="Folder for the run; an unfinished one goes on.")],
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes to train for; small ones are quick.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=2, help="Passes over the images.")] = 6,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 32,
    lr: Annotated[float, typer.Option(help="The greatest learning rate.")] = 0.02,
    augment: Annotated[str, typer.Option(help="As for ofa-deploy train.")] = "crop+flip",
    subnets: Annotated[
        int, typer.Option(min=9, help="How many to evaluate for the accuracy model.")
    ] = 30,
    train_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    validation_images: Annotated[int | None, typer.Option(help="Held out, for choosing.")] = None,
    test_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    skip_bad: Annotated[
        bool, typer.Option(help="Leave out images that cannot be read, and say how many.")
    ] = False,
    calibration: Annotated[int, typer.Option(help="Training images for BN statistics.")] = 1_000,
    threads: Annotated[int, typer.Option(help="Threads of this process.")] = 2,
    workers: WorkersOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Bring your own classes to weights that somebody else paid for.

    The classifier starts anew. A third of the epochs trains the largest network alone; then a short
    DεpS fine-tune brings every subnet along. About thirty subnets are evaluated and an accuracy
    model is fitted, so that the run can be searched.
    """
    from ofa_deploy.cli._workspace import run_data, with_resolutions
    from ofa_deploy.data import full_name
    from ofa_deploy.space import get_space
    from ofa_deploy.train import DepsConfig, train

    end = max(1, round(epochs / 3)) + 1
    config = DepsConfig.build(
        epochs=epochs,
        ramp_end=min(end, epochs - 1),
        ramp_epochs=min(1, end - 1),
        batch=batch,
        lr=lr,
        augment=augment,
        calibration=calibration,
        threads=threads,
        seed=seed,
        new_classifier=True,
    )
    chosen = with_resolutions(get_space(space), resolutions)
    options = {
        "seed": seed,
        "train": train_images,
        "validation": validation_images,
        "test": test_images,
        "skip_bad": int(skip_bad) or None,
    }
    bars = progress(quiet)
    name = full_name(data)
    splits = run_data(name, options, chosen, bars)
    chosen = chosen.with_classes(len(splits.classes))
    record = train(
        config,
        chosen,
        splits,
        run,
        data_options=options,
        init=weights,
        workers=workers,
        progress=bars,
    )
    small, large = record.validation_top1["smallest"], record.validation_top1["largest"]
    say(f"validation top-1: smallest {small:.1f} %, largest {large:.1f} %", quiet=quiet)
    say(str(learn_accuracy(run, seed, bars, subnets=subnets)), quiet=quiet)
    wrote(run / "supernet.safetensors", quiet=quiet)
    wrote(run / "accuracy.onnx", quiet=quiet)
    next_steps(f"ofa-deploy profile --run {run}", quiet=quiet)
