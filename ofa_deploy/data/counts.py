"""How much a number of images says: the interval of a share of them, and whether they are few."""

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt

__all__ = ["few_images", "share_interval", "thin_classes"]

_SURE = 1.645  # standard deviations of a 90 % interval, as those of predictions are
_POINTS = 2.0  # half an interval that is narrow enough to choose by
_ONE_IMAGE = 0.5  # points that one image may be
_THIN = 2  # images of a class, below which nothing can be said of it
_SHOWN = 3  # classes in a message


def share_interval(percent: float, images: int) -> tuple[float, float]:
    """The 90 % interval of a share of so many images, in percent (Wilson 1927)."""
    share, z = percent / 100, _SURE
    middle = share + z**2 / (2 * images)
    half = z * sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    low, high = (100 * end / (1 + z**2 / images) for end in (middle - half, middle + half))
    return max(low, 0.0), min(high, 100.0)


def few_images(images: int, top1: float = 90.0) -> str:
    """Why so many validation images are too few to choose by; empty if they are enough.

    Args:
        top1: in percent, as they tell it; what is usual where none is known yet.
    """
    low, high = share_interval(top1, images)
    if 100 / images <= _ONE_IMAGE and high - low <= 2 * _POINTS:
        return ""
    share = top1 / 100
    enough = max(100 / _ONE_IMAGE, share * (1 - share) * (100 * _SURE / _POINTS) ** 2)
    return (
        f"{images:,} validation images are few to choose by: one is {100 / images:.2g} points, and "
        f"{top1:.1f} % of them may stand for {low:.1f} to {high:.1f} % of all (90 % interval); "
        f"about {10 * ceil(enough / 10):,} are enough for ±{_POINTS:g} points at {top1:.0f} %: "
        "train in another folder with --validation-images, or with more images"
    )


def thin_classes(classes: Sequence[str], labels: Mapping[str, npt.NDArray[np.int64]]) -> str:
    """Which classes have next to no images in a part; empty if none.

    Args:
        labels: indices into ``classes``, shape (images,), by what the part is for.
    """
    counts = {part: np.bincount(each, minlength=len(classes)) for part, each in labels.items()}
    thin = [i for i in range(len(classes)) if any(n[i] < _THIN for n in counts.values())]
    if not thin:
        return ""
    told = "; ".join(
        f"{classes[i]}: {', '.join(f'{n[i]} to {part}' for part, n in counts.items())}"
        for i in thin[:_SHOWN]
    )
    more = f" and {len(thin) - _SHOWN} more" if len(thin) > _SHOWN else ""
    return (
        f"{len(thin)} of {len(classes)} classes have next to no images in some part, so that "
        f"nothing is known of how well they are told apart ({told}{more}): add images, or leave "
        "them out"
    )
