"""Figures of merit against their definitions written out, and against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from ofa_deploy.errors import InputError
from ofa_deploy.specialize import diversity, quality


def drawn(seed: int, images: int = 40, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.6), images), rng.integers(0, classes, images)


def test_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.05, 0.9, 0.05]])
    labels = np.array([0, 1, 1])
    found = quality(probabilities, labels)
    assert found.top1 == pytest.approx(200 / 3)
    assert found.nll == pytest.approx(-(np.log(0.7) + np.log(0.3) + np.log(0.9)) / 3)
    brier = (0.09 + 0.04 + 0.01) + (0.09 + 0.49 + 0.16) + (0.0025 + 0.01 + 0.0025)
    assert found.brier == pytest.approx(brier / 3)
    # Confidences 0.7, 0.4 and 0.9 lie in bins of their own: right, wrong, right.
    assert found.ece == pytest.approx((0.3 + 0.4 + 0.1) / 3)


def test_ece_is_taken_over_bins() -> None:
    """Ten images at 0.8, eight of them right, are calibrated together though none is alone."""
    probabilities = np.tile([0.8, 0.2], (10, 1))
    labels = np.array([0] * 8 + [1] * 2)
    assert quality(probabilities, labels).ece == pytest.approx(0, abs=1e-12)
    assert quality(probabilities, np.zeros(10, np.int64)).ece == pytest.approx(0.2)


@given(st.integers(0, 10_000))
def test_agrees_with_scikit_learn(seed: int) -> None:
    probabilities, labels = drawn(seed)
    found = quality(probabilities, labels)
    assert found.nll == pytest.approx(log_loss(labels, probabilities, labels=range(5)), rel=1e-6)
    assert 0 <= found.ece <= 1 and 0 <= found.brier <= 2


def test_certainty_is_judged_without_infinities() -> None:
    right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    label = np.array([0])
    best, worst = quality(right, label), quality(wrong, label)
    assert (best.top1, best.nll, best.ece, best.brier) == (100, 0, 0, 0)
    assert (worst.top1, worst.ece, worst.brier) == (0, 1, 2)
    assert worst.nll == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize("images", [0, 3])
def test_labels_and_probabilities_must_belong_together(images: int) -> None:
    with pytest.raises(InputError, match="expected probabilities for"):
        quality(np.full((images + (images > 0), 2), 0.5), np.zeros(images, np.int64))


def test_diversity_by_hand() -> None:
    first, second = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.3, 0.7]])
    found = diversity(np.stack([first, second]))
    assert found.disagreement == 0.5
    ways = [(first, second), (second, first)]
    expected = np.mean([(p * np.log(p / q)).sum(1).mean() for p, q in ways])
    assert found.kl == pytest.approx(expected)


@given(st.integers(0, 1000))
def test_equal_members_do_not_differ(seed: int) -> None:
    probabilities, _ = drawn(seed)
    same = diversity(np.stack([probabilities] * 3))
    assert same.disagreement == 0 and same.kl == pytest.approx(0, abs=1e-12)
    alone = diversity(probabilities[None])
    assert (alone.disagreement, alone.kl) == (0, 0)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_the_mean_is_no_worse_than_members_are_on_average(seed: int, count: int) -> None:
    """NLL and Brier are convex in the probabilities (Jensen)."""
    rng = np.random.default_rng(seed)
    members = np.stack([rng.dirichlet(np.full(4, 0.7), 30) for _ in range(count)])
    labels = rng.integers(0, 4, 30)
    together = quality(members.mean(0), labels)
    alone = [quality(each, labels) for each in members]
    assert together.nll <= np.mean([each.nll for each in alone]) + 1e-9
    assert together.brier <= np.mean([each.brier for each in alone]) + 1e-9
