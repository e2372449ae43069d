"""What every part of the suite shares: how many cases it tries.

``make test`` tries a few of each kind. ``OFA_FAULTS=N make test-all`` tries the whole, with N of
each kind where the number is open; it takes hours, so without that setting it is skipped.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Amount = Callable[[int], int]
HERE = Path(__file__).parent
SETTING = "OFA_FAULTS"


@pytest.fixture
def amount() -> Amount:
    """From the usual number of cases of the whole part to how many are asked for."""
    return lambda usual: int(os.environ.get(SETTING) or usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the setting the whole part is skipped."""
    if os.environ.get(SETTING):
        return
    skip = pytest.mark.skip(reason=f"the whole fault suite takes hours: {SETTING}=1000 asks for it")
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("slow"):
            item.add_marker(skip)
