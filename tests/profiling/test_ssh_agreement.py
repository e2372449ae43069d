"""What is found over real SSH, by another Python, is what is found here."""

import importlib
import math
from typing import Any

import pytest

from ofa_deploy.profiling import (
    REFERENCE,
    Protocol,
    RemoteTarget,
    blocks_subject,
    measure,
    network_subject,
)
from ofa_deploy.profiling.remote.ssh import Ssh
from ofa_deploy.space import get_space

measure_module: Any = importlib.import_module("ofa_deploy.profiling.measure")
NANO = get_space("mbv3-nano-32")
PROTOCOL = Protocol(rounds=12, runs=4, processes=1, window_ms=20.0, tolerance=0.3)
# A figure is a ratio to the reference beside it, and all take less than a system gives a process
# at a time: what else runs slows both down.
APART = 2.5
SPAN = 2 * APART  # of the slowest to the fastest: more than they may be apart
BLOCKS = sorted(NANO.blocks(), key=lambda block: (block.macs, block.key))
SUBJECTS = {block.key: blocks_subject((block,)) for block in BLOCKS[:: len(BLOCKS) // 2]}
SUBJECTS["network"] = network_subject(NANO, NANO.largest)


def ratios(target: RemoteTarget | None) -> dict[str, float]:
    found = measure(SUBJECTS, SUBJECTS[BLOCKS[0].key], protocol=PROTOCOL, target=target)
    return {name: found[name].ms / found[REFERENCE].ms for name in SUBJECTS}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_entries_agree_with_the_local_profile(device: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "_TOO_NOISY", math.inf)  # however busy this machine is
    here = ratios(None)
    with RemoteTarget(device) as target:
        there = ratios(target)
    assert max(here.values()) > SPAN * min(here.values()), "one for another would be seen"
    for name, ratio in here.items():
        assert ratio / APART < there[name] < ratio * APART, name
