"""``ofa-deploy train``: from images to a supernet."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._output import QuietOption, guarded, next_steps, progress, say, wrote

__all__ = ["train"]


@guarded
def train(
    data: Annotated[
        str, typer.Option(help="'glyphs', or a folder with one sub-folder of images a class.")
    ] = "glyphs",
    space: Annotated[
        str, typer.Option(help="Search space (ofa-deploy spaces lists them), or a file NAME.toml.")
    ] = "mbv3-nano-32",
    resolutions: Annotated[
        str | None, typer.Option(help="Input sizes to train for, such as 160,192,224.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to start from: a published .pth, or a supernet.safetensors."),
    ] = None,
    new_classifier: Annotated[
        bool, typer.Option(help="With --init: start the classifier anew, for other classes.")
    ] = False,
    run: Annotated[Path, typer.Option(help="Folder for the run; an unfinished one goes on.")] = (
        Path("runs/train")
    ),
    epochs: Annotated[
        int,
        typer.Option(help="T: passes over the training images; 0 keeps the weights of --init."),
    ] = 8,
    ramp_end: Annotated[
        int | None, typer.Option(help="W: the epoch where subnets reach full weight.")
    ] = None,
    ramp_epochs: Annotated[
        int | None,
        typer.Option(help="s: the ramp's length; before W - s the largest trains alone."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Initial learning rate of the cosine.")] = 0.1,
    augment: Annotated[
        str | None,
        typer.Option(help="none, crop or crop+flip; default: none for glyphs, else crop+flip."),
    ] = None,
    train_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    validation_images: Annotated[
        int | None, typer.Option(help="Held out from training, for choosing.")
    ] = None,
    test_images: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    calibration: Annotated[
        int, typer.Option(help="Training images for BN statistics before an evaluation.")
    ] = 2_000,
    threads: Annotated[int, typer.Option(help="Threads of this process.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Train a once-for-all supernet with DεpS.

    On the built-in glyphs, or on your images: a folder with one sub-folder a class
    (DATA/cat/1.jpg, DATA/dog/2.png, ...), or DATA/train and DATA/test of that form. A
    validation split is held out from the training images; the test images are only reported on.
    Interrupt it whenever you like: the same command goes on where it stopped and ends with the
    same weights.

    Checkpoints of once-for-all load with --init; add --epochs 0 to use them as they are.
    """
    from ofa_deploy.cli._workspace import run_data, with_resolutions
    from ofa_deploy.data import AUGMENTATIONS
    from ofa_deploy.errors import InputError, UnknownNameError
    from ofa_deploy.space import get_space
    from ofa_deploy.train import TrainConfig, adopt
    from ofa_deploy.train import train as train_supernet

    if init is None and (new_classifier or epochs == 0):
        raise InputError("--new-classifier and --epochs 0 need --init FILE")
    if new_classifier and epochs == 0:
        raise InputError("--epochs 0 would leave a new classifier untrained")
    how = augment or ("none" if data == "glyphs" else "crop+flip")
    if how not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", how, AUGMENTATIONS)
    chosen = with_resolutions(get_space(space), resolutions)
    bars = progress(quiet)
    name = data if data == "glyphs" else str(Path(data).resolve())
    options = {
        "seed": seed,
        "train": train_images,
        "validation": validation_images,
        "test": test_images,
    }
    splits = run_data(name, options, chosen, bars)
    chosen = chosen.with_classes(len(splits.classes))
    if init is not None and epochs == 0:
        adopt(
            init,
            chosen,
            splits,
            run,
            calibration=calibration,
            threads=threads,
            data_options=options,
        )
        wrote(run / "supernet.safetensors", quiet=quiet)
        next_steps(f"ofa-deploy evaluate {run} --subnets 40", quiet=quiet)
        return
    config = TrainConfig.build(
        epochs=epochs,
        new_classifier=new_classifier,
        ramp_end=ramp_end,
        ramp_epochs=ramp_epochs,
        batch=batch,
        lr=lr,
        augment=how,
        calibration=calibration,
        threads=threads,
        seed=seed,
    )
    record = train_supernet(
        config, chosen, splits, run, data_options=options, init=init, progress=bars
    )
    small, large = record.validation_top1["smallest"], record.validation_top1["largest"]
    say(f"validation top-1: smallest {small:.1f} %, largest {large:.1f} %", quiet=quiet)
    wrote(run / "supernet.safetensors", quiet=quiet)
    next_steps(
        f"ofa-deploy evaluate {run} --subnets 40",
        f"ofa-deploy profile --run {run}",
        quiet=quiet,
    )
