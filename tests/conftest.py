"""What many tests share: one thread, a small space with everything elastic in it, a generator."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

from ofa_deploy.space import Head, SearchSpace, Stage, Stem

# The same examples every run, and no record of them kept on disk.
settings.register_profile("steady", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("steady")
# The same sums in the same order.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands set the threads of their process, which is this one."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_space() -> SearchSpace:
    """5,712 networks of at most 16x16 pixels: a fixed stage, an elastic one, one with SE.

    Kernels 3, 5, 7; a depth choice that skips a depth; an expansion ratio that is no integer; SE
    hidden units that differ between widths; an odd map size at the smaller resolution.
    """
    return SearchSpace(
        name="tiny",
        resolutions=(12, 16),
        classes=4,
        stem=Stem(channels=8),
        stages=(
            Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1,), activation="relu"),
            Stage(
                channels=16,
                stride=2,
                depths=(1, 2),
                kernels=(3, 5, 7),
                expands=(2, 3),
                activation="relu",
            ),
            Stage(channels=16, stride=1, depths=(1, 3), kernels=(3, 5), expands=(1.5, 3), se=True),
        ),
        head=Head(channels=24, features=32),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator, the same for every test."""
    return np.random.default_rng(20)
