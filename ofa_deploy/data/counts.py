"""How much a number of images says: the interval of a share of them, and whether they are few."""

from math import ceil, sqrt

__all__ = ["few_images", "share_interval"]

_SURE = 1.645  # standard deviations of a 90 % interval, as those of predictions are
_POINTS = 2.0  # half an interval that is narrow enough to choose by
_ONE_IMAGE = 0.5  # points that one image may be


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
        f"about {10 * ceil(enough / 10):,} are enough for ±{_POINTS:g} points: train in another "
        "folder with --validation-images, or with more images"
    )
