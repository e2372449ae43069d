"""The ONNX builder against torch functions, run by ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ofa_deploy.errors import InputError
from ofa_deploy.graph import (
    INPUT,
    OPSET,
    OUTPUT,
    BlockWeights,
    build_onnx,
    random_weights,
    weight_shapes,
)
from ofa_deploy.space import Block, SearchSpace

Floats = npt.NDArray[np.float32]


def conv(stride: int = 1, kernel: int = 3, size: int = 9, activation: str = "hswish") -> Block:
    return Block(
        kind="conv",
        in_channels=4,
        out_channels=6,
        kernel=kernel,
        stride=stride,
        size=size,
        activation=activation,
    )


def mbconv(
    *,
    mid: int = 12,
    out: int = 4,
    kernel: int = 3,
    stride: int = 1,
    se: int = 0,
    residual: bool = False,
    activation: str = "relu",
    size: int = 7,
) -> Block:
    return Block(
        kind="mbconv",
        in_channels=4,
        mid_channels=mid,
        out_channels=out,
        kernel=kernel,
        stride=stride,
        size=size,
        se=se,
        activation=activation,
        residual=residual,
    )


def classifier(mid: int = 8, channels: int = 4, size: int = 7) -> Block:
    return Block(
        kind="classifier",
        in_channels=channels,
        mid_channels=mid,
        out_channels=5,
        size=size,
        activation="hswish" if mid else "none",
    )


BLOCKS = {
    "conv": conv(),
    "conv-strided": conv(stride=2),
    "conv-strided-even": conv(stride=2, size=8),
    "conv-1x1-linear": conv(kernel=1, activation="none"),
    "conv-wide": conv(kernel=7, stride=4, activation="relu"),
    "mbconv": mbconv(),
    "mbconv-residual": mbconv(residual=True),
    "mbconv-unexpanded": mbconv(mid=4, out=6),
    "mbconv-unexpanded-residual": mbconv(mid=4, residual=True, kernel=5),
    "mbconv-narrowing": mbconv(mid=2),
    "mbconv-se": mbconv(se=3, activation="hswish"),
    "mbconv-se-residual": mbconv(se=3, residual=True, activation="hswish", kernel=5),
    "mbconv-se-unexpanded": mbconv(mid=4, se=2),
    "mbconv-all": mbconv(se=3, stride=2, kernel=7, out=8, activation="hswish"),
    "mbconv-linear": mbconv(activation="none"),
    "classifier": classifier(),
    "classifier-plain": classifier(mid=0),
}


def weights_for(block: Block, rng: np.random.Generator) -> BlockWeights:
    """Weights of about unit gain, with biases that are not zero."""
    return {
        name: (rng.standard_normal(shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)
        for name, shape in weight_shapes(block).items()
    }


def act(x: Tensor, name: str) -> Tensor:
    if name == "hswish":
        return x * (x + 3).clamp(0, 6) / 6
    return x.clamp(min=0) if name == "relu" else x


def reference(x: Tensor, block: Block, arrays: BlockWeights) -> Tensor:
    """The block as its docstring reads, BN folded."""
    w = {name: torch.from_numpy(array) for name, array in arrays.items()}
    half = block.kernel // 2
    if block.kind == "conv":
        y = F.conv2d(x, w["conv.weight"], w["conv.bias"], stride=block.stride, padding=half)
        return act(y, block.activation)
    if block.kind == "classifier":
        y = x.mean((2, 3))
        if block.mid_channels:
            y = act(y @ w["features.weight"][:, :, 0, 0].T, block.activation)
        return y @ w["linear.weight"].T + w["linear.bias"]
    y = x
    if block.mid_channels != block.in_channels:
        y = act(F.conv2d(y, w["expand.weight"], w["expand.bias"]), block.activation)
    y = F.conv2d(
        y,
        w["depthwise.weight"],
        w["depthwise.bias"],
        stride=block.stride,
        padding=half,
        groups=block.mid_channels,
    )
    y = act(y, block.activation)
    if block.se:
        scale = y.mean((2, 3), keepdim=True)
        scale = F.conv2d(scale, w["reduce.weight"], w["reduce.bias"]).clamp(min=0)
        scale = F.conv2d(scale, w["excite.weight"], w["excite.bias"])
        y = y * ((scale + 3).clamp(0, 6) / 6)
    y = F.conv2d(y, w["project.weight"], w["project.bias"])
    return x + y if block.residual else y


def run(model: onnx.ModelProto, x: Floats) -> Floats:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run([OUTPUT], {INPUT: x})
    return np.asarray(result, np.float32)


def images(block: Block, rng: np.random.Generator, batch: int = 3) -> Floats:
    shape = (batch, block.in_channels, block.size, block.size)
    return rng.standard_normal(shape).astype(np.float32)


def check_against_torch(
    blocks: Sequence[Block], weights: Sequence[BlockWeights], rng: np.random.Generator
) -> None:
    model = build_onnx(blocks, weights)
    onnx.checker.check_model(model, full_check=True)
    x = images(blocks[0], rng)
    expected = torch.from_numpy(x)
    for block, arrays in zip(blocks, weights, strict=True):
        expected = reference(expected, block, arrays)
    assert expected.std() > 0.01
    np.testing.assert_allclose(run(model, x), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_one_block(name: str, rng: np.random.Generator) -> None:
    block = BLOCKS[name]
    check_against_torch([block], [weights_for(block, rng)], rng)


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_whole_network(tiny_space: SearchSpace, which: str, rng: np.random.Generator) -> None:
    blocks = tiny_space.lower(getattr(tiny_space, which))
    check_against_torch(blocks, [weights_for(block, rng) for block in blocks], rng)


def test_every_network_is_a_valid_model(tiny_space: SearchSpace, rng: np.random.Generator) -> None:
    for arch in tiny_space.decode(tiny_space.sample(rng, 10)):
        model = build_onnx(tiny_space.lower(arch))
        onnx.checker.check_model(model, full_check=True)
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        assert shape == [0, 3, arch.resolution, arch.resolution]


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_dynamic_batch(rng: np.random.Generator) -> None:
    blocks = [conv(), classifier(channels=6, size=9)]
    model = build_onnx(blocks)
    assert shape_of(model.graph.input[0]) == ["batch", 4, 9, 9]
    assert shape_of(model.graph.output[0]) == ["batch", 5]
    x = images(blocks[0], rng, batch=5)
    together = run(model, x)
    apart = np.concatenate([run(model, x[i : i + 1]) for i in range(5)])
    assert together.shape == (5, 5)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


def test_fixed_batch(rng: np.random.Generator) -> None:
    model = build_onnx([mbconv(stride=2, out=8)], batch=2)
    onnx.checker.check_model(model, full_check=True)
    assert shape_of(model.graph.input[0]) == [2, 4, 7, 7]
    assert shape_of(model.graph.output[0]) == [2, 8, 4, 4]
    assert run(model, images(mbconv(), rng, batch=2)).shape == (2, 8, 4, 4)
    with pytest.raises(Exception, match="invalid dimensions"):
        run(model, images(mbconv(), rng, batch=3))


def test_names_versions_and_metadata() -> None:
    model = build_onnx([conv()], metadata={"arch": "r9", "classes": "ä\nb"})
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert (model.graph.input[0].name, model.graph.output[0].name) == (INPUT, OUTPUT)
    assert {p.key: p.value for p in model.metadata_props} == {"arch": "r9", "classes": "ä\nb"}
    assert not build_onnx([conv()]).metadata_props
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names)) and all(names)


def test_metadata_reach_the_runtime() -> None:
    model = build_onnx([conv()], metadata={"arch": "r9"})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"arch": "r9"}


def test_random_weights_are_the_same_every_time() -> None:
    blocks = [conv(), classifier(channels=6, size=9)]
    assert build_onnx(blocks).SerializeToString() == build_onnx(blocks).SerializeToString()


@pytest.mark.parametrize("name", BLOCKS)
def test_random_weights_keep_activations_in_range(name: str, rng: np.random.Generator) -> None:
    block = BLOCKS[name]
    weights = random_weights(block, rng)
    assert {key: array.shape for key, array in weights.items()} == weight_shapes(block)
    assert all(array.dtype == np.float32 for array in weights.values())
    out = run(build_onnx([block], [weights]), images(block, rng, batch=8))
    assert 0.05 < out.std() < 20


@pytest.mark.parametrize("name", BLOCKS)
def test_weights_count_the_parameters(name: str) -> None:
    # Folding BN leaves a bias where there were a scale and a shift.
    block = BLOCKS[name]
    shapes = weight_shapes(block)
    folded = {"conv.bias", "expand.bias", "depthwise.bias", "project.bias"}
    scales = sum(shape[0] for name, shape in shapes.items() if name in folded)
    assert sum(int(np.prod(s)) for s in shapes.values()) + scales == block.params


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(conv(), mbconv(size=9), id="channels"),
        pytest.param(mbconv(stride=2), mbconv(), id="size"),
        pytest.param(mbconv(), classifier(size=8), id="size at the end"),
        pytest.param(classifier(), mbconv(), id="after the classifier"),
    ],
)
def test_blocks_that_do_not_fit_are_named(before: Block, after: Block) -> None:
    with pytest.raises(InputError, match=f"block {after.key} cannot follow {before.key}"):
        build_onnx([before, after])


def test_weights_that_do_not_fit_are_named(rng: np.random.Generator) -> None:
    block = mbconv(se=3)
    good = weights_for(block, rng)
    bad: list[BlockWeights] = [
        {name: array for name, array in good.items() if name != "reduce.bias"},
        {**good, "extra.weight": np.zeros(3, np.float32)},
        {**good, "project.weight": good["project.weight"].transpose(1, 0, 2, 3)},
    ]
    for weights in bad:
        with pytest.raises(InputError, match=f"block {block.key}: expected weights"):
            build_onnx([block], [weights])
    with pytest.raises(InputError, match="expected weights for 1 blocks, found 2"):
        build_onnx([block], [good, good])
    with pytest.raises(InputError):
        build_onnx([])


def test_weights_of_another_type_are_refused(rng: np.random.Generator) -> None:
    doubles = {name: array.astype(np.float64) for name, array in weights_for(conv(), rng).items()}
    with pytest.raises(InputError, match="float"):
        build_onnx([conv()], [doubles])  # type: ignore[list-item]


@pytest.mark.parametrize("bad", [conv(activation="swish"), mbconv(out=8, residual=True)])
def test_blocks_that_cannot_be_are_refused(bad: Block) -> None:
    with pytest.raises(InputError):
        build_onnx([bad])
