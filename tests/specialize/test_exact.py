"""Cut at every step, a run ends with the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.specialize import Parent, Specialist
from ofa_deploy.train import Ranks
from ofa_deploy.train.checkpoint import load_state, save_state
from tests.specialize.conftest import settings
from tests.specialize.test_bridges import THIN, WIDE
from tests.specialize.test_ensemble import network
from tests.specialize.test_sparse_training import step

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "wide-narrow": (
        "wide-narrow",
        {
            "imitate_epochs": (0.5,),
            "imitate_optimizer": ("sgd", "rmsprop"),
            "start": ("random", "inherited"),
            "output_epochs": 0.5,
            "label_epochs": 1,
        },
    ),
    "below": (
        "wide-narrow",
        {"imitate_epochs": (0.25,), "trains": "below", "output_epochs": 0, "label_epochs": 0.5},
    ),
    "edst": (
        "edst",
        {"explore_epochs": 0.75, "refine_epochs": 1.25, "members": 2, "update_steps": 2},
    ),
    "set": (
        "dst",
        {"epochs": 1.5, "members": 2, "update_steps": 2, "growth": "set", "first_mask": "random"},
    ),
}


def assert_same(found: object, expected: object, where: str) -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor) and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), where
        for position, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}.{position}")
    else:
        assert repr(found) == repr(expected), where  # so that NaN is NaN


@pytest.mark.parametrize("case", CASES)
def test_cut_at_every_step_it_ends_the_same(case: str, data: DataSplits, tmp_path: Path) -> None:
    method, changes = CASES[case]
    thin, wide = THIN.with_classes(4), WIDE.with_classes(4)
    source = network(thin, thin.largest, 1).state_dict()
    teacher = Parent(wide, wide.largest, network(wide, wide.largest, 2), "0" * 64)

    def make() -> Specialist:
        config = settings(method, **changes)
        weights = {name: tensor.clone() for name, tensor in source.items()}
        used = teacher if config.needs_parent else None
        return Specialist(thin, thin.largest, config, data, weights, used, Ranks())

    whole, cut, file = make(), make(), tmp_path / "state.pt"
    while not whole.finished:
        save_state(file, "id", cut.state_dict())
        cut = make()
        state = load_state(file, "id", Specialist.STATE)  # reads with weights_only=True
        assert state is not None
        cut.load_state_dict(state)
        for each in (whole, cut):
            step(each)
    assert_same(cut.state_dict(), whole.state_dict(), "state")
    assert whole.tickets
    assert cut.state_dict().keys() == Specialist.STATE
