"""ONNX files that keep weights elsewhere are refused, wherever in the graph they say so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.errors import DeviceError, FileFormatError
from ofa_deploy.runtimes import get_runtime

Make = Callable[[TensorProto], onnx.ModelProto]


def elsewhere(name: str = "w", where: str = "../secret.bin") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", where), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(nodes: list[onnx.NodeProto], initializers: list[TensorProto]) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", [value[0]], [value[1]], initializers)
    opset = [helper.make_opsetid("", 17)]
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return made


def in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])


def in_constant(tensor: TensorProto) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    return model([constant, helper.make_node("Add", ["x", "w"], ["y"])], [])


def in_branch(tensor: TensorProto) -> onnx.ModelProto:
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 2])
    branches = [
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], name, [], [out], [tensor])
        for name in ("yes", "no")
    ]
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    return model([node], [condition])


@pytest.mark.parametrize("make", [in_initializer, in_constant, in_branch])
def test_weights_elsewhere_are_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with pytest.raises(FileFormatError, match=r"'w' in another file \('\.\./secret\.bin'\)") as e:
        get_runtime("onnxruntime").load(make(elsewhere()).SerializeToString())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("make", [in_initializer, in_constant, in_branch])
def test_weights_inside_are_let_be(make: Make) -> None:
    inside = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    session = get_runtime("onnxruntime").load(make(inside).SerializeToString())
    np.testing.assert_array_equal(session.run(np.zeros((2, 2), np.float32)), np.ones((2, 2)))


def test_a_model_that_fails_while_it_runs_writes_nothing_to_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Names in it are somebody else's text, which a terminal might obey."""
    hostile = "\x1b]0;owned\x07"
    shape = numpy_helper.from_array(np.array([7, 7]), "s")
    made = model([helper.make_node("Reshape", ["x", "s"], ["y"], name=hostile)], [shape])
    session = get_runtime("onnxruntime").load(made.SerializeToString())
    with pytest.raises(DeviceError) as error:
        session.run(np.zeros((2, 2), np.float32))
    assert str(error.value).isprintable()
    assert capfd.readouterr() == ("", "")
