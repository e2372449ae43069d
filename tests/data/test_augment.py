"""Augmentation: a window of the padded image, perhaps mirrored, and nothing else."""

import numpy as np
import numpy.typing as npt
import pytest

from ofa_deploy.data import AUGMENTATIONS, augment
from ofa_deploy.errors import UnknownNameError

Images = npt.NDArray[np.uint8]


@pytest.fixture
def images(rng: np.random.Generator) -> Images:
    return rng.integers(0, 256, (200, 3, 16, 16), dtype=np.uint8)


def shift_of(made: Images, image: Images, pad: int) -> tuple[int, int, bool] | None:
    """The window of the reflected image that ``made`` is, None if it is none."""
    height, width = image.shape[1:]
    rows = reflected(height, pad)
    columns = reflected(width, pad)
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = image[:, rows[top : top + height]][:, :, columns[left : left + width]]
            for mirrored in (False, True):
                if np.array_equal(made, window[:, :, ::-1] if mirrored else window):
                    return top, left, mirrored
    return None


def reflected(size: int, pad: int) -> list[int]:
    """Indices of a line of pixels with its borders reflected, the edge itself not repeated."""
    return [*range(pad, 0, -1), *range(size), *range(size - 2, size - 2 - pad, -1)]


def test_nothing_is_nothing(images: Images, rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    assert augment(images, "none", rng) is images
    assert rng.bit_generator.state == state


@pytest.mark.parametrize("how", ["crop", "crop+flip"])
def test_each_image_is_a_window_of_its_own(
    images: Images, how: str, rng: np.random.Generator
) -> None:
    before = images.copy()
    made = augment(images, how, rng)
    assert made.shape == images.shape and made.dtype == np.uint8 and made.flags.c_contiguous
    np.testing.assert_array_equal(images, before)
    shifts = [shift_of(one, image, pad=2) for one, image in zip(made, images, strict=True)]
    found = [shift for shift in shifts if shift is not None]
    assert len(found) == len(images)
    assert {top for top, _, _ in found} == {left for _, left, _ in found} == set(range(5))
    assert len({(top, left) for top, left, _ in found}) > 20  # drawn apart
    flips = sum(mirrored for _, _, mirrored in found)
    assert flips == 0 if how == "crop" else 70 < flips < 130


def test_shift_is_an_eighth_of_the_size(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    made = augment(image.repeat(300, 0), "crop", rng)
    tops = {shift[0] for one in made if (shift := shift_of(one, image[0], pad=4)) is not None}
    assert tops == set(range(9))


def test_generator_decides_everything(images: Images) -> None:
    def draw(seed: int) -> Images:
        return augment(images, "crop+flip", np.random.default_rng(seed))

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (1, 3, 2, 2), (2, 3, 9, 13)])
def test_odd_shapes(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    made = augment(images, "crop+flip", rng)
    assert made.shape == shape
    for one, image in zip(made, images, strict=True):
        assert shift_of(one, image, pad=1) is not None


def test_unknown_name_lists_the_known(images: Images, rng: np.random.Generator) -> None:
    assert set(AUGMENTATIONS) == {"none", "crop", "crop+flip"}
    with pytest.raises(
        UnknownNameError, match=r"unknown augmentation 'flip'; did you mean crop\+flip"
    ):
        augment(images, "flip", rng)
