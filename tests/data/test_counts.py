"""What a number of images says."""

import pytest

from ofa_deploy.data import few_images, share_interval


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
        assert f"about {enough} are enough for ±2 points" in said
