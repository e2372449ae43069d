"""Which blocks INT8 leaves in float32: the rule on made-up noise, and a real network."""

import copy
import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ofa_deploy.data import ImageSet
from ofa_deploy.export.sensitivity import Noise, Sensitivity, find_sensitive
from ofa_deploy.runtimes.base import ByteMath
from ofa_deploy.runtimes.onnx_int8 import Quantizer
from ofa_deploy.space import Arch, Block, SearchSpace
from ofa_deploy.supernet import Ensemble, batches
from ofa_deploy.supernet.modules import Classifier


@pytest.fixture
def network(tiny_space: SearchSpace, arch: Arch) -> tuple[tuple[str, Block], ...]:
    return tiny_space.lower_named(arch)


class Additive:
    """A quantiser whose blocks bring noise of known powers, and the measure of it."""

    def __init__(self, model: onnx.ModelProto, powers: dict[int, float]) -> None:
        self.names = [node.name for node in model.graph.node]
        self.powers = powers
        self.images = 7
        self.built = 0

    def build(self, *, only: Iterable[str] = (), floats: Iterable[str] = ()) -> Any:
        self.built += 1
        chosen = set(only) or set(self.names) - set(floats)
        blocks = {int(name.partition(".")[0]) for name in chosen}
        return sum(self.powers.get(block, 0.0) for block in blocks)

    def of_model(self, power: Any) -> float:
        return float(-10 * np.log10(max(power, 1e-20)))


def found(saved: Any, network: Any, powers: dict[int, float]) -> tuple[Sensitivity, Additive]:
    model = Ensemble((saved.subnet,), saved.record).onnx()
    fake: Any = Additive(model, powers)
    return find_sensitive(model, fake, fake, network), fake


def test_good_networks_are_left_alone(saved: Any, network: Any) -> None:
    result, fake = found(saved, network, {0: 1e-4, 1: 1e-4})
    assert result.blocks == result.nodes == ()
    assert result.sqnr_db is not None and result.sqnr_db[0] == result.sqnr_db[1] > 30
    assert fake.built == 1


def test_the_noisiest_goes_first_and_that_is_enough(saved: Any, network: Any) -> None:
    result, _ = found(saved, network, {0: 1e-2, 1: 1e-4})
    assert result.blocks == (network[0][0],)
    assert list(result.tried) == [network[0][0]]
    assert result.sqnr_db == pytest.approx((19.957, 40.0), abs=0.01)
    assert all(name.startswith("0.") for name in result.nodes) and result.nodes
    macs = [block.macs for _, block in network]
    assert result.macs_share == pytest.approx(macs[0] / sum(macs))


def test_what_buys_nothing_goes_back(saved: Any, network: Any) -> None:
    """Noise that all blocks share: leaving out one of many buys less than a decibel."""
    result, fake = found(saved, network, dict.fromkeys(range(20), 1e-3))
    assert result.blocks == ()
    assert result.tried and all(0 <= gain < 1 for gain in result.tried.values())
    assert len(result.tried) <= 8
    assert fake.built <= 1 + len(network) + 8


def test_large_blocks_are_never_left_in_float(saved: Any, network: Any) -> None:
    shares = np.array([block.macs for _, block in network], float)
    shares /= shares.sum()
    heavy = int(shares.argmax())
    assert shares[heavy] > 0.15
    result, _ = found(saved, network, {heavy: 1e-1, 0: 1e-2})
    assert network[heavy][0] not in result.tried
    assert result.macs_share <= 0.15


def test_it_is_written_down(saved: Any, network: Any) -> None:
    result, _ = found(saved, network, {0: 1e-2})
    written = result.to_dict()
    assert written["float_blocks"] == [network[0][0]]
    assert (written["measured"], written["images"]) == (True, 7)
    assert Sensitivity().to_dict() == {"float_blocks": [], "measured": False}


def test_a_real_network_gains_what_is_said(
    saved: Any, network: Any, calibration: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last block's weights are of very different sizes, so that bytes hold the small badly."""
    monkeypatch.setattr(importlib.import_module(find_sensitive.__module__), "_SHARE", 0.5)
    subnet = copy.deepcopy(saved.subnet)
    last = subnet.blocks[len(subnet.blocks) - 1]
    assert isinstance(last, Classifier)
    with torch.no_grad():
        last.linear.weight[:, 0] *= 1000.0
        last.features.weight[0] *= 0.001
    model = Ensemble((subnet,), saved.record).onnx()
    x, others = (
        [np.ascontiguousarray(b.numpy()) for b in batches(calibration.take(part), 12)]
        for part in (slice(40), slice(40, None))
    )
    quantizer = Quantizer(model, x, ByteMath(signed=False, narrow=True))
    result = find_sensitive(model, quantizer, Noise(model, others), network)
    assert next(iter(result.tried)) == network[-1][0] == "classifier"
    assert "classifier" in result.blocks
    assert result.sqnr_db is not None
    before, after = result.sqnr_db
    assert after > before + 3
    assert Noise(model, others).of_model(quantizer.build()) == pytest.approx(before)
    again = Noise(model, others).of_model(quantizer.build(floats=result.nodes))
    assert again == pytest.approx(after)
