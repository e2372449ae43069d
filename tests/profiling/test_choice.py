"""Which networks are measured: informative ones to learn from, random ones to judge by."""

from collections import Counter

import numpy as np
import pytest

from ofa_deploy.errors import InputError
from ofa_deploy.profiling.choice import choose_networks, features
from ofa_deploy.space import Arch, SearchSpace, get_space


def of_role(space: SearchSpace, role: str, seed: int = 0) -> list[Arch]:
    return [arch for arch, each in choose_networks(space, 20, 12, seed) if each == role]


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return get_space("ofa-mbv3-w1.0").with_resolutions(160, 192, 224)


def test_networks_are_distinct_and_their_roles_apart(space: SearchSpace) -> None:
    chosen = choose_networks(space, 20, 12, 0)
    assert len({arch for arch, _ in chosen}) == 32
    assert [role for _, role in chosen] == ["calibration"] * 20 + ["holdout"] * 12


def test_smallest_and_largest_are_learned_from(space: SearchSpace) -> None:
    assert of_role(space, "calibration")[:2] == [space.smallest, space.largest]


def test_judges_are_spread_over_resolutions(space: SearchSpace) -> None:
    sizes = Counter(arch.resolution for arch in of_role(space, "holdout"))
    assert sizes == {160: 4, 192: 4, 224: 4}


def test_seed_decides(space: SearchSpace) -> None:
    assert choose_networks(space, 20, 12, 3) == choose_networks(space, 20, 12, 3)
    assert of_role(space, "holdout", 3) != of_role(space, "holdout", 4)


def test_chosen_ones_determine_a_linear_model_better_than_random_ones(space: SearchSpace) -> None:
    def uncertainty(archs: list[Arch]) -> float:
        """Mean variance of a ridge regression's predictions over the space."""
        known = features(space, space.encode(archs))
        covariance = np.linalg.inv(known.T @ known + 0.01 * np.eye(known.shape[1]))
        asked = features(space, space.sample(np.random.default_rng(9), 500))
        return float(np.einsum("ij,jk,ik->i", asked, covariance, asked).mean())

    random = space.decode(space.sample(np.random.default_rng(1), 20))
    assert uncertainty(of_role(space, "calibration")) < 0.85 * uncertainty(random)


def test_most_are_learned_from_at_random(space: SearchSpace) -> None:
    learned = of_role(space, "calibration")
    assert Counter(arch.resolution for arch in learned[6:]) == {160: 5, 192: 5, 224: 4}
    assert learned[6:] != of_role(space, "calibration", 1)[6:]


def test_too_small_a_space_is_refused(tiny_space: SearchSpace) -> None:
    with pytest.raises(InputError, match="too few networks for 3000 calibration"):
        choose_networks(tiny_space, 3000, 12, 0)
