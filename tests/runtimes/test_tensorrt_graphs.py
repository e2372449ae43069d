import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import InputError
from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes.onnx_fp16 import half
from ofa_deploy.runtimes.trt.graphs import quantized, with_precision
from ofa_deploy.space import SearchSpace, get_space

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module")
def model(tiny_space: SearchSpace) -> onnx.ModelProto:
    return build_onnx(tiny_space.lower(tiny_space.largest))


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((4, 3, 16, 16)).astype(np.float32)


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def noise(expected: np.ndarray, found: np.ndarray) -> float:
    return float(((expected - found) ** 2).mean() / expected.var())


def kinds(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precision_leaves_the_model_and_its_ends_alone(
    model: onnx.ModelProto, images: np.ndarray, precision: str
) -> None:
    before = model.SerializeToString()
    ready = with_precision(model, precision, [images])
    assert model.SerializeToString() == before
    assert list(ready.graph.input) == list(model.graph.input)
    assert list(ready.graph.output) == list(model.graph.output)
    assert noise(run(model, images), run(ready, images)) < 0.05


def test_half_is_half_everywhere(model: onnx.ModelProto, images: np.ndarray) -> None:
    ready = half(model)
    assert kinds(ready) == {HALF}
    casts = [node for node in ready.graph.node if node.op_type == "Cast"]
    assert [casts[0].input[0], casts[-1].output[0]] == ["images", "logits"]
    assert len(casts) == 2
    inferred = onnx.shape_inference.infer_shapes(ready, strict_mode=True)
    inside = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert inside == {HALF}
    assert 0 < noise(run(model, images), run(ready, images)) < 1e-4


@pytest.mark.parametrize("name", ["ofa-proxyless-w1.0", "ofa-resnet50", "ofa-mbv3-w1.0"])
def test_every_family_has_a_half(name: str) -> None:
    space = get_space(name)
    blocks = space.lower(space.smallest)
    ready = half(build_onnx([*blocks[:3], *blocks[3:4]]))
    assert kinds(ready) == {HALF}


def test_half_of_a_graph_that_takes_bytes_and_resizes_them() -> None:
    """Images of 8 bits, resized and scaled in the graph: what ONNX wants in float32 stays so."""
    mean = np.array(9, np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=FLOAT),
        helper.make_node("Resize", ["floats", "", "scales"], ["large"], mode="linear"),
        helper.make_node("Constant", [], ["mean"], value=numpy_helper.from_array(mean)),
        helper.make_node("Sub", ["large", "mean"], ["logits"]),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    ends = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 4, 4]),
        helper.make_tensor_value_info("logits", FLOAT, [1, 3, 8, 8]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    ready = half(model)
    assert kinds(ready) == {FLOAT}
    images = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    np.testing.assert_allclose(run(ready, images), run(model, images), atol=0.05)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(ready).graph.value_info
    }
    assert types["floats"] == types["large"] == types["mean"] == HALF


def test_weights_beyond_half_are_refused(model: onnx.ModelProto) -> None:
    large = onnx.ModelProto.FromString(model.SerializeToString())
    tensor = large.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = 1e5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    with pytest.raises(InputError, match=r"weights '0.conv.weight': .* 65,504, .* found 100000"):
        half(large)


def test_an_operator_without_half_is_refused() -> None:
    nodes = [
        helper.make_node("Det", ["images"], ["d"]),
        helper.make_node("Nope", ["d"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(n, FLOAT, [1, 1, 2, 2]) for n in ("images", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    with pytest.raises(InputError, match="the graph cannot be had in float16") as error:
        half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    assert "\n" not in str(error.value)


def test_int8_is_what_tensorrt_reads(model: onnx.ModelProto, images: np.ndarray) -> None:
    ready = quantized(model, [images[:2], images[2:]])
    arrays = {t.name: numpy_helper.to_array(t) for t in ready.graph.initializer}
    made_by = {name: node for node in ready.graph.node for name in node.output}
    layers = [node for node in ready.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) > 10
    for layer in layers:
        data, weight = (made_by[name] for name in layer.input[:2])
        assert data.op_type == weight.op_type == "DequantizeLinear"
        scales = arrays[weight.input[1]]
        assert scales.size == arrays[weight.input[0]].shape[0] > 1  # one a channel
        if len(layer.input) > 2:
            assert arrays[layer.input[2]].dtype == np.float32
    for node in ready.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = arrays[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
    wanted = {name for layer in layers for name in layer.input}
    for name, maker in made_by.items():
        assert maker.op_type != "DequantizeLinear" or name in wanted  # none for its own sake


def test_int8_leaves_layers_in_float32(model: onnx.ModelProto, images: np.ndarray) -> None:
    ready = quantized(model, [images], floats=["0.conv"])
    (first,) = (node for node in ready.graph.node if node.name == "0.conv")
    assert list(first.input) == ["images", "0.conv.weight", "0.conv.bias"]
    assert any(node.op_type == "DequantizeLinear" for node in ready.graph.node)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "INT8 needs calibration images, found none"),
        ([np.zeros((2, 3, 8, 8), np.float32)], r"found float32 \(2, 3, 8, 8\)"),
    ],
)
def test_calibration_that_will_not_do(
    model: onnx.ModelProto, batches: list[np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        quantized(model, batches)


def test_a_precision_that_is_none(model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="expected fp32, fp16 or int8, found 'bf16'"):
        with_precision(model, "bf16")
