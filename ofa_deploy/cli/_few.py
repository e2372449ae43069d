"""Warnings where images are too few to choose networks by, or of a class to know it."""

from typing import TYPE_CHECKING

from ofa_deploy.cli._output import say

if TYPE_CHECKING:
    from ofa_deploy.data import DataSplits

__all__ = ["warn_of_few", "warn_of_thin"]


def warn_of_few(images: int, top1: float | None = None, *, quiet: bool) -> None:
    """Say what so many validation images leave open, if that is much.

    Args:
        top1: of those, in percent; None where none is known yet.
    """
    from ofa_deploy.data import few_images

    if few := few_images(images) if top1 is None else few_images(images, top1):
        say(f"warning: {few}", quiet=quiet)


def warn_of_thin(splits: "DataSplits", *, quiet: bool) -> None:
    """Say which classes have next to no images in a part."""
    from ofa_deploy.data import thin_classes

    parts = {"train on": splits.train, "choose by": splits.validation, "report on": splits.test}
    if thin := thin_classes(splits.classes, {part: each.labels for part, each in parts.items()}):
        say(f"warning: {thin}", quiet=quiet)
