"""Short searches, and models that the bench's truth departs from."""

from functools import partial

import pytest

from ofa_deploy.cost import AdditiveModel
from ofa_deploy.search import evolution, verify
from ofa_deploy.space import SearchSpace
from tests.search.verify.bench import Accuracy, Bench


@pytest.fixture(autouse=True)
def _short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    short = partial(evolution.search, population=60, generations=6)
    monkeypatch.setattr(verify, "search", short)


@pytest.fixture(scope="module")
def accuracy(tiny_space: SearchSpace) -> Accuracy:
    return Accuracy(tiny_space)


@pytest.fixture(scope="module")
def latency(tiny_space: SearchSpace) -> AdditiveModel:
    return AdditiveModel.from_blocks(
        tiny_space, lambda block: 1e-4 * block.macs**0.7 + 0.01 * block.kernel
    )


@pytest.fixture
def bench(accuracy: Accuracy, latency: AdditiveModel) -> Bench:
    return Bench(accuracy, latency)
