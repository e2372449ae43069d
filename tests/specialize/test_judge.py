"""What is told of a network or an ensemble."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from ofa_deploy.data import DataSplits
from ofa_deploy.specialize import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    judge,
    member_probabilities,
    quality,
)
from ofa_deploy.supernet import Ensemble, load_members, to_tensor, top1
from tests.specialize.conftest import Cut
from tests.specialize.test_ensemble import CASES, ensemble

judge_module: Any = importlib.import_module("ofa_deploy.specialize.judge")


@pytest.fixture(scope="module")
def alone(cut: Cut) -> Ensemble:
    return load_members(cut.subnet)


def test_a_subnet_is_judged_as_top1_does(alone: Ensemble, data: DataSplits) -> None:
    found = judge(alone, data.test, corrupted_images=10)
    assert found.clean.top1 == top1(alone.subnets[0], data.test, 16) == found.member_top1
    assert (found.diversity.disagreement, found.diversity.kl) == (0, 0)
    assert found.macs == found.sparse_macs == sum(block.macs for block in alone.blocks)
    assert found.corrupted.keys() == {(n, s) for n in CORRUPTIONS for s in SEVERITIES}
    row = found.row()
    assert row["top1_corrupted"] == pytest.approx(np.mean([row[f"top1_{n}"] for n in CORRUPTIONS]))
    assert row["members"] == 1 and all(np.isfinite(value) for value in row.values())


def test_corrupted_images_are_of_all_classes(
    alone: Ensemble, data: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = data.test.take(np.argsort(data.test.labels, kind="stable"))
    seen: list[set[int]] = []
    answers = judge_module.member_probabilities

    def watched(ensemble: Ensemble, images: Any, *corruption: Any) -> Any:
        seen.append(set(images.labels.tolist()))
        return answers(ensemble, images, *corruption)

    monkeypatch.setattr(judge_module, "member_probabilities", watched)
    every = set(test.labels.tolist())
    judge(alone, test, corrupted_images=3 * len(every))
    assert len(seen) == 26 and all(each == every for each in seen)


def test_corrupted_images_are_seen_corrupted(alone: Ensemble, data: DataSplits) -> None:
    images = data.test.batch(np.arange(20))
    pixels = corrupt(images, "contrast", 5)
    with torch.no_grad():
        expected = alone.subnets[0](to_tensor(pixels, 16)).softmax(1).numpy()
    found = member_probabilities(alone, data.test.take(np.arange(20)), ("contrast", 5))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_no_corruptions_if_none_are_wanted(alone: Ensemble, data: DataSplits) -> None:
    found = judge(alone, data.test, corrupted_images=0)
    assert not found.corrupted
    assert "top1_corrupted" not in found.row()


def test_members_answer_with_the_mean_of_their_probabilities(data: DataSplits) -> None:
    space, arch = CASES["mobile"]
    made = ensemble(space.with_classes(4), arch, 3)
    found = judge(made, data.test, corrupted_images=0)
    members = member_probabilities(made, data.test)
    assert members.shape == (3, len(data.test), 4)
    assert found.clean == quality(members.mean(0), data.test.labels)
    alone = [
        judge(Ensemble((each,), made.record), data.test, corrupted_images=0)
        for each in made.subnets
    ]
    assert found.member_top1 == pytest.approx(np.mean([each.clean.top1 for each in alone]))
    for name in ("macs", "sparse_macs", "params", "living", "dense_bytes", "sparse_bytes"):
        assert getattr(found, name) == sum(getattr(each, name) for each in alone)
    assert found.diversity.kl > 0


def test_zeros_cost_nothing_in_the_sparse_account(data: DataSplits) -> None:
    space, arch = CASES["mobile"]
    made = ensemble(space.with_classes(4), arch, 1)
    before = judge(made, data.test, corrupted_images=0)
    weight = made.subnets[0].get_parameter("blocks.2.expand.weight")
    with torch.no_grad():
        weight.view(-1)[: weight.numel() // 4 * 3] = 0
    after = judge(made, data.test, corrupted_images=0)
    assert after.macs == before.macs and after.params == before.params
    assert before.living - after.living == weight.numel() // 4 * 3
    block = made.blocks[2]
    saved = block.in_channels * block.mid_channels * block.size**2 * 3 // 4
    assert before.sparse_macs - after.sparse_macs == saved
