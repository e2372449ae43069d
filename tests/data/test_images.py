"""``ImageSet``: checked when made, split in proportion; and the normalisation of its images."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.data import MEAN, STD, ImageSet, in_proportion, normalise
from ofa_deploy.errors import InputError


def numbered(labels: list[int], classes: int = 4) -> ImageSet:
    """Images that hold their own index in the first two bytes."""
    images = np.zeros((len(labels), 3, 4, 4), np.uint8)
    index = np.arange(len(labels))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = index // 256, index % 256
    names = tuple(f"class-{i}" for i in range(classes))
    return ImageSet(images, np.array(labels, np.int64), names)


def indices(images: ImageSet) -> list[int]:
    corner = images.images[:, 0, 0].astype(int)
    return [int(i) for i in corner[:, 0] * 256 + corner[:, 1]]


def test_length_and_size() -> None:
    made = numbered([0, 1, 3])
    assert len(made) == 3
    assert made.size == 4
    assert len(numbered([])) == 0


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"images": np.zeros((2, 3, 4, 4), np.float32)}, "found float32"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, r"found uint8 \(2, 4, 4, 3\)"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "expected uint8 images of shape"),
        ({"labels": np.zeros(3, np.int64)}, r"expected 2 int64 labels, found int64 \(3,\)"),
        ({"labels": np.zeros((2, 1), np.int64)}, r"expected 2 int64 labels, .* \(2, 1\)"),
        ({"images": np.zeros((2, 3, 4, 6), np.uint8)}, r"found uint8 \(2, 3, 4, 6\)"),
        ({"labels": np.array([0.5, 1.0])}, "expected 2 int64 labels, found float64"),
        ({"labels": np.array([0, 2])}, r"labels must lie in 0\.\.1"),
        ({"labels": np.array([-1, 0])}, r"labels must lie in 0\.\.1"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {
        "images": np.zeros((2, 3, 4, 4), np.uint8),
        "labels": np.array([0, 1]),
        "classes": ("a", "b"),
    }
    assert ImageSet(**good)
    with pytest.raises(InputError, match=match):
        ImageSet(**{**good, **fields})


def test_a_part_has_each_class_in_proportion_and_is_always_the_same() -> None:
    """Sets lie sorted by class, so the first images would be those of the first classes."""
    made = numbered([0] * 40 + [1] * 20 + [2] * 20 + [3] * 20)
    some = in_proportion(made, 10)
    assert np.bincount(some.labels).tolist() == [4, 2, 2, 2]
    assert indices(in_proportion(made, 10)) == indices(some)
    assert in_proportion(made, 100) is made is in_proportion(made, 1_000)
    assert len(in_proportion(made, 1)) == 1


def test_take_keeps_the_order_asked_for() -> None:
    made = numbered([0, 1, 2, 3, 0])
    taken = made.take([4, 0, 2])
    assert indices(taken) == [4, 0, 2]
    assert taken.labels.tolist() == [0, 0, 2]
    assert taken.classes == made.classes
    assert indices(made.take(slice(1, 3))) == [1, 2]
    assert indices(made.take(np.array([3]))) == [3]


labels = st.lists(st.integers(0, 3), min_size=2, max_size=400)


@given(labels=labels, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_split_is_a_partition_in_proportion(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    held_out = data.draw(st.integers(1, len(labels) - 1))
    made = numbered(labels)
    rest, held = made.split(held_out, seed=seed)
    assert len(held) == held_out
    assert sorted(indices(rest) + indices(held)) == list(range(len(labels)))
    for part in (rest, held):
        assert part.labels.tolist() == [labels[i] for i in indices(part)]
    expected = np.bincount(labels, minlength=4) * held_out / len(labels)
    assert (np.abs(np.bincount(held.labels, minlength=4) - expected) <= 1).all()


def test_split_depends_on_the_seed_and_the_labels_only() -> None:
    made = numbered([0, 1, 2, 3] * 50)
    darker = ImageSet(made.images // 2, made.labels, made.classes)
    chosen = [indices(made.split(20, seed=seed)[1]) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({tuple(each) for each in chosen}) == 3
    _, held = darker.split(20, seed=0)
    assert np.array_equal(held.images, made.take(chosen[0]).images // 2)


def test_every_image_can_be_held_out() -> None:
    made = numbered([0] * 10 + [1] * 5)
    seen = {index for seed in range(200) for index in indices(made.split(3, seed=seed)[1])}
    assert seen == set(range(15))


@pytest.mark.parametrize("held_out", [-1, 0, 3, 4])
def test_split_that_leaves_nothing_is_refused(held_out: int) -> None:
    with pytest.raises(InputError, match=f"cannot hold out {held_out} of 3.*from 1 to 2"):
        numbered([0, 1, 2]).split(held_out, seed=0)


def test_normalise_is_the_textbook_formula(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (5, 3, 6, 6), dtype=np.uint8)
    expected = np.stack([(images[:, c] / 255 - MEAN[c]) / STD[c] for c in range(3)], axis=1)
    result = normalise(images)
    assert result.dtype == np.float32 and result.shape == images.shape
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_normalise_uses_the_published_statistics() -> None:
    ends = normalise(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, 1))[:, :, 0, 0]
    np.testing.assert_allclose(ends[0], [-2.117904, -2.035714, -1.804444], atol=1e-5)
    np.testing.assert_allclose(ends[1], [2.248908, 2.428571, 2.64], atol=1e-5)


def test_batch_and_identity_hold_every_pixel_and_label() -> None:
    made = numbered([0, 1, 3])
    np.testing.assert_array_equal(made.batch([2, 0]), made.images[[2, 0]])
    parts = [bytes(piece) for piece in made.identity()]
    assert parts == [made.images.tobytes(), made.labels.tobytes()]
    turned = ImageSet(made.images.transpose(0, 1, 3, 2), made.labels, made.classes)
    assert bytes(next(iter(turned.identity()))) == turned.images.tobytes() != parts[0]
