"""Folded networks in ONNX compute what their subnets do."""

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from ofa_deploy.graph import INPUT, OUTPUT, build_onnx
from ofa_deploy.supernet import Supernet, folded_weights
from tests.supernet.nets import close, images, sampled, seeds


def onnx_logits(model: bytes, x: Tensor) -> Tensor:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (result,) = session.run([OUTPUT], {INPUT: x.numpy()})
    return torch.from_numpy(np.asarray(result))


@settings(max_examples=15)
@given(seed=seeds)
def test_folded_model_computes_the_same(net: Supernet, seed: int) -> None:
    (arch,) = sampled(net.space, seed)
    subnet, x = net.extract(arch), images(arch)
    model = build_onnx(net.space.lower(arch), folded_weights(subnet))
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        assert close(onnx_logits(model.SerializeToString(), x), subnet(x))


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_torchs_own_exporter_agrees(net: Supernet, which: str, tmp_path: Path) -> None:
    arch = getattr(net.space, which)
    subnet, x = net.extract(arch), images(arch)
    theirs = tmp_path / "theirs.onnx"
    with warnings.catch_warnings():
        # The exporter through TorchScript is deprecated, and thirty times as fast as the other.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            subnet, (x,), theirs, dynamo=False, input_names=[INPUT], output_names=[OUTPUT]
        )
    ours = build_onnx(net.space.lower(arch), folded_weights(subnet)).SerializeToString()
    assert close(onnx_logits(ours, x), onnx_logits(theirs.read_bytes(), x))


def test_folding_takes_plain_subnets_only(net: Supernet) -> None:
    subnet = net.extract(net.space.smallest)
    subnet.blocks.append(nn.ReLU())
    with pytest.raises(TypeError, match="ReLU"):
        folded_weights(subnet)


def test_folding_copies(net: Supernet) -> None:
    subnet = net.extract(net.space.smallest)
    before = copy.deepcopy(subnet.state_dict())
    for arrays in folded_weights(subnet):
        assert all(array.dtype == np.float32 for array in arrays.values())
        for name in arrays:
            if name.startswith(("conv", "expand", "depthwise", "project")):
                arrays[name][...] = 0
    assert all(torch.equal(v, before[name]) for name, v in subnet.state_dict().items())
