"""Augmentation: what each name does to an image, apart for each image, decided by the seed."""

import itertools
import time

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.data import AUGMENTATIONS
from ofa_deploy.errors import InputError, UnknownNameError
from ofa_deploy.train.augment import Augmentation

UInt8 = npt.NDArray[np.uint8]
VARYING = [name for name in AUGMENTATIONS if name != "none"]


@pytest.fixture
def images(rng: np.random.Generator) -> UInt8:
    return rng.integers(0, 256, (200, 3, 16, 16), dtype=np.uint8)


@pytest.fixture
def smooth(rng: np.random.Generator) -> UInt8:
    """Images of a few broad colours, which survive resizing."""
    coarse = rng.integers(0, 256, (64, 3, 4, 4), dtype=np.uint8)
    return coarse.repeat(8, 2).repeat(8, 3)


def levels(made: torch.Tensor) -> UInt8:
    """Back to bytes; fails where a value is none of the 256 levels."""
    scaled = made.numpy() * 255
    np.testing.assert_allclose(scaled, scaled.round(), atol=1e-3)
    return np.asarray(scaled.round().astype(np.uint8))


def window_of(made: UInt8, image: UInt8, pad: int) -> tuple[int, int, bool] | None:
    """The window of the reflected image that ``made`` is, None if it is none."""
    height, width = image.shape[1:]
    rows, columns = reflected(height, pad), reflected(width, pad)
    for top, left in itertools.product(range(2 * pad + 1), repeat=2):
        window = image[:, rows[top : top + height]][:, :, columns[left : left + width]]
        for mirrored in (False, True):
            if np.array_equal(made, window[:, :, ::-1] if mirrored else window):
                return top, left, mirrored
    return None


def reflected(size: int, pad: int) -> list[int]:
    """Indices of a line of pixels with its borders reflected, the edge itself not repeated."""
    return [*range(pad, 0, -1), *range(size), *range(size - 2, size - 2 - pad, -1)]


# -- names ----------------------------------------------------------------------------------


def test_names_are_read_in_order() -> None:
    assert Augmentation.parse("crop+flip").names == ("crop", "flip")
    assert Augmentation.parse("flip+crop").names == ("flip", "crop")
    assert Augmentation.parse("none").names == ()
    for text in ("none", "crop+flip", "rrc+flip+autoaugment+jitter+erase"):
        assert str(Augmentation.parse(text)) == text


@pytest.mark.parametrize("text", ["blur", "crop+blur", "crop+", "", "crop flip", "Crop", "+"])
def test_unknown_names_are_refused(text: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown augmentation '"):
        Augmentation.parse(text)


@pytest.mark.parametrize(
    ("text", "match"), [("flip+flip", "each name once"), ("none+crop", "none cannot be joined")]
)
def test_names_that_do_not_go_together_are_refused(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Augmentation.parse(text)


# -- what all of them keep ------------------------------------------------------------------


@pytest.mark.parametrize("text", [*AUGMENTATIONS, "rrc+flip+autoaugment+jitter+erase"])
def test_same_size_and_range_and_no_trace(images: UInt8, text: str) -> None:
    before, state = images.copy(), torch.get_rng_state()
    made = Augmentation.parse(text).apply(images, seed=1)
    assert made.shape == images.shape and made.dtype == torch.float32
    assert not made.requires_grad and made.min() >= 0 and made.max() <= 1
    np.testing.assert_array_equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", VARYING)
def test_seed_decides_everything(smooth: UInt8, name: str) -> None:
    augmentation = Augmentation.parse(name)
    first = augmentation.apply(smooth, seed=7)
    torch.rand(3)
    other = augmentation.apply(smooth, seed=8)
    again = Augmentation.parse(name).apply(torch.from_numpy(smooth), seed=7)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", VARYING)
def test_each_image_is_varied_on_its_own(smooth: UInt8, name: str) -> None:
    alike = np.ascontiguousarray(smooth[:1].repeat(64, 0))
    made = Augmentation.parse(name).apply(alike, seed=3)
    different = len({image.numpy().tobytes() for image in made})
    assert different >= (2 if name == "flip" else 8)


@given(
    names=st.lists(st.sampled_from(VARYING), unique=True, max_size=4),
    shape=st.tuples(st.integers(0, 5), st.integers(9, 20), st.integers(9, 20)),
    seed=st.integers(0, 2**48),
)
def test_any_combination_of_any_shape(
    names: list[str], shape: tuple[int, int, int], seed: int
) -> None:
    n, height, width = shape
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    made = Augmentation(tuple(names)).apply(images, seed)
    assert made.shape == images.shape and made.dtype == torch.float32
    assert made.isfinite().all() and ((made >= 0) & (made <= 1)).all()


# -- what each of them does -----------------------------------------------------------------


def test_nothing_is_only_scaled(images: UInt8) -> None:
    made = Augmentation.parse("none").apply(images, seed=0)
    np.testing.assert_array_equal(made.numpy(), images.astype(np.float32) / 255)


@pytest.mark.parametrize("text", ["crop", "crop+flip", "flip+crop"])
def test_crop_is_a_window_of_the_reflected_image(images: UInt8, text: str) -> None:
    made = levels(Augmentation.parse(text).apply(images, seed=0))
    found = [window_of(one, image, 2) for one, image in zip(made, images, strict=True)]
    windows = [window for window in found if window is not None]
    assert len(windows) == len(images)
    assert {top for top, _, _ in windows} == {left for _, left, _ in windows} == set(range(5))
    assert len({(top, left) for top, left, _ in windows}) > 20
    flips = sum(mirrored for _, _, mirrored in windows)
    assert flips == 0 if text == "crop" else 70 < flips < 130


@pytest.mark.parametrize(("size", "pad"), [(4, 1), (12, 1), (32, 4)])
def test_crop_shifts_by_an_eighth(size: int, pad: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (1, 3, size, size), dtype=np.uint8)
    made = levels(Augmentation.parse("crop").apply(image.repeat(200, 0), seed=0))
    tops = {window[0] for one in made if (window := window_of(one, image[0], pad)) is not None}
    assert tops == set(range(2 * pad + 1))


def test_flip_mirrors_half(images: UInt8) -> None:
    made = levels(Augmentation.parse("flip").apply(images, seed=0))
    kept = (made == images).all(axis=(1, 2, 3))
    mirrored = (made == images[..., ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all() and 70 < mirrored.sum() < 130


def test_resized_crop_shows_part_of_the_image() -> None:
    """On a ramp the values left and right tell which part is seen: 8 to 100 % of the area."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    image = np.zeros((1, 3, 32, 32), np.uint8)
    image[:, 0], image[:, 1] = ramp, ramp[:, None]
    made = Augmentation.parse("rrc").apply(image.repeat(300, 0), seed=0).numpy()
    width = made[:, 0, 16, -1] - made[:, 0, 16, 0]
    height = made[:, 1, -1, 16] - made[:, 1, 0, 16]
    area = width * height
    assert 0.03 < area.min() < 0.12 and 0.8 < area.max() <= 1.01
    assert (np.abs(np.log(width / height)) < np.log(4 / 3) + 0.3).all()


def test_jitter_keeps_the_places() -> None:
    """Two grey halves stay two flat halves, of another brightness."""
    image = np.zeros((1, 3, 16, 16), np.uint8)
    image[..., 8:] = 120
    made = Augmentation.parse("jitter").apply(image.repeat(100, 0), seed=0)
    left, right = made[..., :8], made[..., 8:]
    assert (left.amax((2, 3)) - left.amin((2, 3)) < 1e-5).all()
    assert (right.amax((2, 3)) - right.amin((2, 3)) < 1e-5).all()
    assert right.mean((1, 2, 3)).std() > 0.05


def test_erase_greys_a_rectangle_in_a_fifth(images: UInt8) -> None:
    made = Augmentation.parse("erase").apply(images, seed=0).numpy()
    changed = (made != images.astype(np.float32) / 255).any(axis=1)
    hit = changed.any(axis=(1, 2))
    assert 20 < hit.sum() < 65
    for one, where in zip(made[hit], changed[hit], strict=True):
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        box = one[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.testing.assert_allclose(box, 0.449, atol=1e-3)
        assert 0.01 < box[0].size / 256 < 0.45


def test_policies_differ_and_draw_apart(smooth: UInt8) -> None:
    made = {
        name: Augmentation.parse(name).apply(smooth, seed=2)
        for name in ("autoaugment", "autoaugment-cifar")
    }
    original = torch.from_numpy(smooth) / 255
    for one in made.values():
        untouched = (one - original).abs().amax((1, 2, 3)) < 1e-6
        assert 0 < untouched.sum() < 32  # each operation has a probability of its own
    assert not torch.equal(*made.values())


def test_order_matters(images: UInt8) -> None:
    texts = ("erase+autoaugment", "autoaugment+erase")
    one, other = (Augmentation.parse(text).apply(images, seed=0) for text in texts)
    assert not torch.equal(one, other)


def test_usual_pair_is_quick(rng: np.random.Generator) -> None:
    """A batch of 64 at 32x32, processor time: a small part of a training step."""
    images = rng.integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    augmentation = Augmentation.parse("crop+flip")
    taken = []
    for seed in range(10):
        start = time.thread_time()
        augmentation.apply(images, seed)
        taken.append(time.thread_time() - start)
    assert min(taken) < 8e-3
