"""Corrupted images: what is done, how much, and that it is the same every time."""

import colorsys
import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ofa_deploy.data import glyphs
from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.specialize import CORRUPTIONS, SEVERITIES, corrupt

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> Pixels:
    return glyphs("test", 12, seed=3, size=32).images


def distance(first: Pixels, second: Pixels) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [32, 96])
def test_each_severity_is_worse_than_the_one_before(name: str, size: int) -> None:
    images = glyphs("test", 4, seed=3, size=size).images
    before = images.copy()
    made = [corrupt(images, name, severity) for severity in SEVERITIES]
    assert np.array_equal(images, before)
    for each in made:
        assert each.dtype == np.uint8 and each.shape == images.shape
    distances = [distance(images, each) for each in made]
    assert distances == sorted(distances)
    assert distances[0] > 0.2


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_do_not_depend_on_their_company(name: str, images: Pixels) -> None:
    if name == "noise":  # drawn for the batch
        first, again = corrupt(images, name, 3), corrupt(images, name, 3)
        assert np.array_equal(first, again)
        assert not np.array_equal(first, corrupt(images, name, 3, seed=1))
    else:
        alone = np.concatenate([corrupt(image[None], name, 3) for image in images])
        assert np.array_equal(corrupt(images, name, 3), alone)


def test_noise_has_its_standard_deviation() -> None:
    grey = np.full((8, 3, 32, 32), 128, np.uint8)
    for severity, deviation in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        found = corrupt(grey, "noise", severity).astype(float) / 255
        assert found.std() == pytest.approx(deviation, rel=0.03)
    large = np.full((2, 3, 80, 80), 128, np.uint8)
    assert (corrupt(large, "noise", 1).astype(float) / 255).std() == pytest.approx(0.08, rel=0.03)


def test_contrast_shrinks_towards_each_channels_mean(images: Pixels) -> None:
    found = corrupt(images, "contrast", 5).astype(float)
    middle = images.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(found, middle + 0.15 * (images - middle), atol=0.5001)


def test_brightness_is_hsvs_value() -> None:
    colours = [(200, 40, 10), (0, 0, 0), (90, 90, 90), (10, 240, 250)]
    image = np.array(colours, np.uint8).T.reshape(1, 3, 2, 2)
    found = corrupt(image, "brightness", 5).reshape(3, 4).T
    for before, after in zip(colours, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))
        np.testing.assert_allclose(after, [255 * c for c in expected], atol=0.51)


def test_blur_keeps_the_mean_and_spreads_a_point() -> None:
    image = np.zeros((1, 3, 33, 33), np.uint8)
    image[:, :, 16, 16] = 255
    found = corrupt(image, "blur", 5).astype(float) / 255  # radius 1 pixel
    assert found[0, 0, 16, 16] == pytest.approx(1 / (2 * np.pi), rel=0.03)
    ratio = found[0, 0, 16, 17] / found[0, 0, 16, 16]
    assert ratio == pytest.approx(np.exp(-0.5), rel=0.05)


def test_jpeg_is_pillows(images: Pixels) -> None:
    buffer = io.BytesIO()
    Image.fromarray(images[0].transpose(1, 2, 0)).save(buffer, "JPEG", quality=40)
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    assert np.array_equal(corrupt(images[:1], "jpeg", 5)[0], expected)


def test_no_images_are_no_images() -> None:
    for name in CORRUPTIONS:
        assert corrupt(np.zeros((0, 3, 32, 32), np.uint8), name, 1).shape == (0, 3, 32, 32)


def test_tiny_images_are_blurred_too() -> None:
    image = np.arange(75, dtype=np.uint8).reshape(1, 3, 5, 5)
    assert corrupt(image, "blur", 5).shape == image.shape


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_there_are_five_severities(severity: int, images: Pixels) -> None:
    with pytest.raises(InputError, match=f"expected a severity from 1 to 5, found {severity}"):
        corrupt(images, "noise", severity)


def test_unknown_corruption_is_named(images: Pixels) -> None:
    with pytest.raises(UnknownNameError, match="unknown corruption 'blurr'; did you mean blur"):
        corrupt(images, "blurr", 1)
