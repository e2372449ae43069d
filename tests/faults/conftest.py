"""What every part of the suite shares: how many cases it tries.

``make test`` tries a few of each kind, ``make test-all`` the whole: a thousand damaged files of
each format, every point at which a command may be killed, a hundred random times. ``OFA_FAULTS=N``
tries N of each kind where the number is open.
"""

import os
from collections.abc import Callable

import pytest

Amount = Callable[[int], int]
SETTING = "OFA_FAULTS"


@pytest.fixture
def amount() -> Amount:
    """From the usual number of cases of the whole part to how many are asked for."""
    return lambda usual: int(os.environ.get(SETTING) or usual)
