"""A supernet for many tests."""

import pytest

from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import Supernet
from tests.supernet.nets import shaken


@pytest.fixture(scope="module")
def net(tiny_space: SearchSpace) -> Supernet:
    """Shared: not to be changed."""
    return shaken(tiny_space)
