"""A warning where validation images are too few to choose networks by."""

from ofa_deploy.cli._output import say

__all__ = ["warn_of_few"]


def warn_of_few(images: int, top1: float | None = None, *, quiet: bool) -> None:
    """Say what so many validation images leave open, if that is much.

    Args:
        top1: of those, in percent; None where none is known yet.
    """
    from ofa_deploy.data import few_images

    if few := few_images(images) if top1 is None else few_images(images, top1):
        say(f"warning: {few}", quiet=quiet)
