"""``ofa-deploy run``: what a bundle sees in images."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa_deploy.cli._options import FormatOption, QuietOption
from ofa_deploy.cli._output import (
    OutputFormat,
    emit,
    guarded,
    next_steps,
    quoted,
    say,
)

if TYPE_CHECKING:
    from ofa_deploy.export import Bundle
    from ofa_deploy.export.verify import OpenFile

__all__ = ["run"]


@guarded
def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, as export writes it.")],
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, or folders of them; one or more.", metavar="IMAGE"),
    ],
    target: Annotated[
        str | None,
        typer.Option(help="The target to run; default: the bundle's best, or the first that runs."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to name, the most likely first.")] = 5,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of each inference.")] = 1,
    output: FormatOption = OutputFormat.table,
    quiet: QuietOption = False,
) -> None:
    """Classify images with a bundle.

    Names each image's most likely classes, their probabilities, and the milliseconds from the
    decoded image to them: once, after a first inference that is not counted. ofa-deploy bench
    measures well. The bundle's hashes are checked first. An image that cannot be read is named and
    counted, the others are classified all the same, and the exit code is 1.
    """
    from ofa_deploy.errors import InputError
    from ofa_deploy.export import Bundle
    from ofa_deploy.export.classify import read_square

    opened = Bundle.read(bundle)
    images = [file for path in images for file in _files(path)]
    name = opened.default if target is None else target
    file = opened.open(name, threads=threads)
    _warm_up(file)
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for path in images:
        if path.is_dir():
            bad.append(f"{path}: a folder without images; expected image files")
            continue
        try:
            pixels = read_square(path)
        except InputError as error:
            bad.append(str(error))
            continue
        rows += _classify(opened, file, pixels, str(path), top)
    if rows:
        emit(rows, output)
        say(
            f"target {name}, {file.record.precision}; ms: of one inference, not of many as bench's",
            quiet=quiet,
        )
    if bad:
        for message in bad[1:]:
            say(message)
        raise InputError(f"{len(bad)} of {len(images)} images cannot be read: {bad[0]}")
    next_steps(f"ofa-deploy bench {quoted(bundle)}", quiet=quiet)


def _files(path: Path) -> list[Path]:
    """A file itself; of a folder all images below it, in the order of their paths."""
    from ofa_deploy.data import folder_images

    return (path.is_dir() and folder_images(path)) or [path]


def _warm_up(file: "OpenFile") -> None:
    """The first inference, which sets up the engine's memory."""
    import numpy as np

    size = file.wanted.size
    file.logits(file.feed([np.zeros((size, size, 3), np.uint8)]))


def _classify(
    bundle: "Bundle", file: "OpenFile", pixels: Any, image: str, top: int
) -> list[dict[str, Any]]:
    from ofa_deploy.errors import MismatchError
    from ofa_deploy.export.classify import probabilities

    started = time.perf_counter()
    (found,) = probabilities(file.logits(file.feed([pixels])), bundle.manifest.output)
    order = (-found).argsort(kind="stable")[:top]
    ms = 1000 * (time.perf_counter() - started)
    labels = bundle.manifest.labels
    if len(found) != len(labels):
        raise MismatchError(
            f"{bundle.folder}: the file tells {len(found)} classes apart, its manifest names "
            f"{len(labels)}; export it again"
        )
    return [
        {
            "image": image,
            "rank": rank,
            "label": labels[index],
            "probability": round(float(found[index]), 6),
            "ms": round(ms, 3),
        }
        for rank, index in enumerate(order, 1)
    ]
