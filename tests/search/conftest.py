"""All networks of the tiny space, and what is known of them."""

from itertools import product

import numpy as np
import pytest

from ofa_deploy.predict import LatencyModel
from ofa_deploy.space import Population, SearchSpace
from tests.search.made_up import Accuracy, latency_of


@pytest.fixture(scope="module")
def everyone(tiny_space: SearchSpace) -> Population:
    """All 5,712 networks."""
    rows = np.array(list(product(*(range(len(g.choices)) for g in tiny_space.genes))), np.int8)
    rows = np.unique(tiny_space.mask_inactive(rows), axis=0)
    assert len(rows) == tiny_space.num_archs == 5_712
    return rows


@pytest.fixture(scope="module")
def accuracy(tiny_space: SearchSpace) -> Accuracy:
    return Accuracy(tiny_space)


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> LatencyModel:
    return latency_of(tiny_space)
