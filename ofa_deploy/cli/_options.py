"""Options that several commands share, each with one name and one help."""

from pathlib import Path
from typing import Annotated

import typer

from ofa_deploy.cli._output import OutputFormat

__all__ = [
    "ClassesOption",
    "ConfigOption",
    "FormatOption",
    "QuietOption",
    "ResolutionsOption",
    "SetOption",
    "SkipBadOption",
    "SpaceOption",
    "SpaceRunOption",
    "TestImagesOption",
    "TrainImagesOption",
    "ValidationImagesOption",
    "WorkersOption",
]

FormatOption = Annotated[
    OutputFormat, typer.Option("--format", help="How to write the result to stdout.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress or messages, only the result and errors.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        help="Processes that prepare images ahead of training; default: none on a CPU, up to 8 for "
        "a GPU. The outcome is the same.",
    ),
]
TrainImagesOption = Annotated[
    int | None,
    typer.Option(
        help="At most so many; those held out of them for choosing are counted (with glyphs they "
        "come on top)."
    ),
]
ValidationImagesOption = Annotated[
    int | None, typer.Option(help="Held out from training, for choosing.")
]
TestImagesOption = Annotated[int | None, typer.Option(help="At most so many.")]
SkipBadOption = Annotated[
    bool, typer.Option(help="Leave out images that cannot be read, and say how many.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="A TOML file of settings, over the recipe's; --dry-run lists them."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting, over all others: NAME=VALUE; may be repeated. --dry-run lists them.",
    ),
]
SpaceOption = Annotated[str | None, typer.Option(help="Search space, or a file NAME.toml.")]
SpaceRunOption = Annotated[
    Path | None, typer.Option("--run", help="Or a training run, whose space it is.")
]
ClassesOption = Annotated[int | None, typer.Option(min=2, help="Classes, with --space.")]
ResolutionsOption = Annotated[
    str | None, typer.Option(help="Input sizes, such as 160,192,224, with --space.")
]
