"""Ranks that see different images hold the same network all the way.

Two threads stand for two processes here: what they exchange goes through ``Ranks.sum``. Real
processes run the same loop in ``tests/train/test_ranks.py``.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier, Lock
from typing import Any

import pytest
import torch
from torch import Tensor

from ofa_deploy.data import DataSplits
from ofa_deploy.space import SearchSpace
from ofa_deploy.specialize import Parent, Specialist
from ofa_deploy.supernet import load_subnet
from ofa_deploy.train import Ranks
from tests.specialize.conftest import Cut, settings
from tests.specialize.test_exact import assert_same
from tests.specialize.test_sparse_training import step

EDST = {"explore_epochs": 1, "refine_epochs": 1.5, "members": 2, "update_steps": 2}
WIDE = {"imitate_epochs": (0.5,), "output_epochs": 0.5, "label_epochs": 1}


class Meeting:
    """Where threads bring a tensor each and take the sum."""

    def __init__(self, count: int) -> None:
        self.all_here = Barrier(count, timeout=60)
        self.lock = Lock()
        self.brought: list[Tensor] = []

    def sum(self, tensor: Tensor) -> Tensor:
        with self.lock:
            self.brought.append(tensor.clone())
        self.all_here.wait()
        tensor.copy_(torch.stack(self.brought).sum(0))
        if not self.all_here.wait():
            self.brought.clear()
        self.all_here.wait()
        return tensor


@dataclass(frozen=True)
class Threads(Ranks):
    """One of several threads."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def sum(self, tensor: Tensor) -> Tensor:
        return self.meeting.sum(tensor)

    def wait(self) -> None:
        self.meeting.all_here.wait()


def both(work: Callable[[Ranks], dict[str, Any]]) -> list[dict[str, Any]]:
    """What each of two ranks finds."""
    meeting = Meeting(2)
    ranks = [Threads(rank, 2, meeting=meeting) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        return [each.result() for each in [pool.submit(work, rank) for rank in ranks]]


@pytest.mark.parametrize(
    ("method", "changes"),
    [("edst", EDST), ("edst", {**EDST, "growth": "set"}), ("wide-narrow", WIDE)],
    ids=["rigl", "set", "wide-narrow"],
)
def test_ranks_agree(
    cut: Cut,
    space: SearchSpace,
    data: DataSplits,
    parent: Parent,
    method: str,
    changes: dict[str, Any],
) -> None:
    config = settings(method, batch=12, processes=2, **changes)
    teacher = parent if config.needs_parent else None

    def run(ranks: Ranks) -> dict[str, Any]:
        weights = load_subnet(cut.subnet)[0].state_dict()
        made = Specialist(space, cut.arch, config, data, weights, teacher, ranks)
        seen = made.batches.at(0)[0].sum()
        while not made.finished:
            step(made)
        return {**made.state_dict(), "seen": seen}

    first, second = both(run)
    assert not torch.equal(first.pop("seen"), second.pop("seen"))
    assert_same(first, second, method)
    assert len(first["tickets"]) == (2 if method == "edst" else 1)
    alone = run(Ranks(count=1))
    alone.pop("seen")
    with pytest.raises(AssertionError):
        assert_same(alone, first, method)  # the other rank had a say
