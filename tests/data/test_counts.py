"""What a number of images says."""

import numpy as np
import pytest

from ofa_deploy.data import few_images, share_interval, thin_classes


@pytest.mark.parametrize(("percent", "images"), [(0, 1), (100, 48), (93.75, 48), (50, 1500)])
def test_interval_of_a_share(percent: float, images: int) -> None:
    from scipy.stats import binomtest

    right = round(percent / 100 * images)
    expected = binomtest(right, images).proportion_ci(0.9, method="wilson")
    assert share_interval(percent, images) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=0.01
    )


@pytest.mark.parametrize(
    ("images", "top1", "enough"),
    [
        (48, 93.75, "400"),
        (199, 100.0, "200"),  # one image is more than half a point
        (200, 100.0, ""),
        (200, 90.0, "610"),
        (650, 90.0, ""),
        (650, 50.0, "1,700"),
        (1500, 76.0, ""),
    ],
)
def test_few_images_are_told(images: int, top1: float, enough: str) -> None:
    said = few_images(images, top1)
    assert bool(said) == bool(enough)
    if said:
        assert said.startswith(f"{images} validation images are few to choose by: one is ")
        assert f"about {enough} are enough for ±2 points at {top1:.0f} %" in said


def test_classes_without_images_are_told() -> None:
    names = [f"class-{i}" for i in range(6)]
    even = np.repeat(np.arange(6), 4)
    assert thin_classes(names, {"train on": even, "report on": even}) == ""
    said = thin_classes(names, {"train on": even, "report on": even[even != 2][:-3]})
    assert said.startswith("2 of 6 classes have next to no images in some part")
    assert "(class-2: 4 to train on, 0 to report on; class-5: 4 to train on, 1 to rep" in said
    few = thin_classes(names, {"choose by": even[:1]})
    assert "class-0: 1 to choose by; class-1: 0 to choose by; class-2: 0 to choose by and 3" in few
