"""Graphs against the torch modules that they stand for, and against torch's own exporter."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from ofa_deploy.errors import InputError
from ofa_deploy.graph import INPUT, OUTPUT, build_onnx
from ofa_deploy.space import Block, get_space
from ofa_deploy.supernet import Subnet, folded_weights
from ofa_deploy.supernet.modules import initialise

FAMILIES = ("ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50")


def bottleneck(
    size: int,
    *,
    stride: int = 1,
    outputs: int = 8,
    residual: bool = False,
    activation: str = "relu",
) -> Block:
    return Block(
        kind="bottleneck",
        in_channels=8,
        mid_channels=5,
        out_channels=outputs,
        kernel=3,
        stride=stride,
        size=size,
        activation=activation,
        residual=residual,
    )


def maxpool(size: int) -> Block:
    return Block(kind="maxpool", in_channels=8, out_channels=8, kernel=3, stride=2, size=size)


def conv(size: int, activation: str = "relu", *, residual: bool = True, kernel: int = 3) -> Block:
    return Block(
        kind="conv",
        in_channels=8,
        out_channels=8,
        kernel=kernel,
        size=size,
        activation=activation,
        residual=residual,
    )


def mbconv(size: int, *, stride: int = 1, residual: bool = False) -> Block:
    return Block(
        kind="mbconv",
        in_channels=8,
        mid_channels=20,
        out_channels=8,
        kernel=5,
        stride=stride,
        size=size,
        activation="relu6",
        residual=residual,
    )


BLOCKS = {
    **{f"projected-{n}": bottleneck(n, outputs=12) for n in (1, 6, 7)},
    **{f"projected-same-{n}": bottleneck(n) for n in (6, 7)},
    **{f"strided-{n}": bottleneck(n, stride=2, outputs=12) for n in (1, 2, 3, 6, 7, 17)},
    **{f"strided-by-3-{n}": bottleneck(n, stride=3) for n in (7, 9)},
    **{f"residual-{n}": bottleneck(n, residual=True) for n in (1, 6, 7)},
    "bottleneck-relu6": bottleneck(7, stride=2, activation="relu6"),
    **{f"maxpool-{n}": maxpool(n) for n in (1, 2, 3, 8, 9, 17)},
    **{f"residual-conv-{a}": conv(7, a) for a in ("relu", "relu6", "hswish", "none")},
    "residual-conv-1x1": conv(6, kernel=1),
    "conv-relu6": conv(6, "relu6", residual=False),
    "mbconv-relu6": mbconv(7),
    "mbconv-relu6-strided": mbconv(8, stride=2),
    "mbconv-relu6-residual": mbconv(7, residual=True),
}


@torch.no_grad()
def network(blocks: Sequence[Block], bn_eps: float = 1e-5, gain: float = 1.0) -> Subnet:
    """A plain network with random weights and statistics, in eval mode."""
    subnet = Subnet.of(blocks, bn_eps).eval()
    generator = torch.Generator().manual_seed(len(blocks))
    initialise(subnet, generator)
    for module in subnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.uniform_(0.5 * gain, 1.5 * gain, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return subnet


def run(model: onnx.ModelProto | bytes, x: Tensor) -> Tensor:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (result,) = session.run([OUTPUT], {INPUT: x.numpy()})
    return torch.from_numpy(np.asarray(result, np.float32))


def images(block: Block, n: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, block.in_channels, block.size, block.size, generator=generator)


def spread(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_blocks_compute_what_their_modules_do(name: str) -> None:
    block = BLOCKS[name]
    subnet = network([block])
    model = build_onnx([block], folded_weights(subnet))
    onnx.checker.check_model(model, full_check=True)
    x = images(block, 3)
    expected = subnet(x)
    assert expected.shape == (3, block.out_channels, block.out_size, block.out_size)
    assert spread(run(model, x), expected) < 1e-5


@pytest.mark.parametrize("fixed", [1, 3])
@pytest.mark.parametrize("name", ["strided-7", "maxpool-9", "residual-conv-relu6"])
@torch.no_grad()
def test_shapes_of_new_kinds_are_inferred(name: str, fixed: int) -> None:
    block = BLOCKS[name]
    model = build_onnx([block], folded_weights(network([block])), batch=fixed)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert sizes[0] == fixed and sizes[2] in (block.size, block.out_size)
    assert len(inferred.graph.value_info) == len(model.graph.node) - 1


@torch.no_grad()
def test_relu6_clips_on_both_sides() -> None:
    block = conv(6, "relu6", residual=False)
    x = images(block, 4) * 10
    subnet = network([block])
    expected = subnet(x)
    found = run(build_onnx([block], folded_weights(subnet)), x)
    for each in (found, expected):
        assert each.min() == 0 and each.max() == 6
        assert ((each > 0) & (each < 6)).any()
    assert torch.equal(found == 0, expected == 0) and torch.equal(found == 6, expected == 6)


@torch.no_grad()
def test_the_overhang_counts_what_is_there() -> None:
    """A shortcut of ones through an average pool stays one, at the border too."""
    block = bottleneck(5, stride=2)
    weights = {
        name: np.zeros_like(array) for name, array in folded_weights(network([block]))[0].items()
    }
    weights["shortcut.weight"][:, :, 0, 0] = np.eye(8)
    x = torch.arange(1, 26, dtype=torch.float32).reshape(1, 1, 5, 5).expand(1, 8, 5, 5).contiguous()
    found = run(build_onnx([block], [weights]), x)[0, 3]
    expected = [[4, 6, 7.5], [14, 16, 17.5], [21.5, 23.5, 25]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_residuals_that_cannot_be_are_refused() -> None:
    for bad in (
        bottleneck(6, outputs=12, residual=True),
        bottleneck(6, stride=2, residual=True),
        Block(kind="conv", in_channels=8, out_channels=4, size=6, residual=True),
    ):
        with pytest.raises(InputError, match="a residual needs equal shapes"):
            build_onnx([bad])


# -- whole networks -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [62, 65])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_whole_networks(name: str, size: int) -> None:
    space = get_space(name).with_resolutions(size).with_classes(10)
    (arch,) = space.decode(space.sample(np.random.default_rng(size), 1))
    blocks = space.lower(arch)
    subnet = network(blocks, space.bn_eps)
    model = build_onnx(blocks, folded_weights(subnet))
    onnx.checker.check_model(model, full_check=True)
    x = images(blocks[0])
    expected = subnet(x)
    assert expected.std() > 1e-3
    assert spread(run(model, x), expected) < 1e-4


def exported(subnet: Subnet, x: Tensor, path: Path) -> bytes:
    """What torch's exporter makes of a network.

    The one through TorchScript is deprecated; the other takes ten seconds and more a network.
    """
    with warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)
        torch.onnx.export(
            subnet, (x,), path, dynamo=False, input_names=[INPUT], output_names=[OUTPUT]
        )
    return path.read_bytes()


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_torchs_own_exporter_agrees(name: str, tmp_path: Path) -> None:
    space = get_space(name).with_resolutions(50).with_classes(10)
    arch = space.smallest
    blocks = space.lower(arch)
    subnet = network(blocks, space.bn_eps, gain=0.8)
    x = images(blocks[0])
    ours = run(build_onnx(blocks, folded_weights(subnet)), x)
    theirs = run(exported(subnet, x, tmp_path / "theirs.onnx"), x)
    assert spread(ours, theirs) < 1e-5
    assert spread(ours, subnet(x)) < 1e-5
